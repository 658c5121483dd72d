//! Walks of tokens of many sequences, each at a step of its own. A round runs the block for which most tokens wait, at whichever
//! step they are, on the host also the next on other threads; who leaves makes room at once.
//!
//! The rules are those of [`walk`](super::walk) in evaluation. What a token does depends on its own sequence alone; on the host
//! so do its bits.

use super::action::Action;
use super::attending::Attending;
use super::choose::{Chosen, Token, choose};
use super::context::{WalkContext, WalkState};
use super::execute::{Dispatch, GradientGates, after_blocks};
use super::exited_cache::ExitedCache;
use super::policy::{Policy, SequenceInfo};
use super::rules::{ChoiceGradient, Rules};
use super::walk::targets_at;
use super::walk_cache::{WalkCache, output};
use crate::ops::cat::cat;
use crate::ops::gather::some;
use crate::ops::linear::groups_at_once;
use crate::ops::reshape::reshape;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rayon::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// For how many rounds per queue others may go first because they are more.
const PATIENCE: usize = 4;

/// Tokens on their walks, at most one of each sequence.
#[derive(Debug)]
pub(crate) struct Rounds<B: Backend> {
    waiting: Vec<Waiting<B>>,
    n_rounds: usize,
}

/// What a token waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Queue {
    /// That others leave the pool with it.
    Leaving,
    /// A block.
    Block(usize),
    /// Several blocks, whose outputs are mixed.
    Mixture,
}

/// A token that waits.
#[derive(Debug)]
struct Waiting<B: Backend> {
    queue: Queue,
    /// The round in which it came.
    since: usize,
    walker: Walker<B>,
    /// What it chose; nothing where it leaves.
    choice: Option<Choice<B>>,
}

/// A token on its walk.
#[derive(Debug)]
struct Walker<B: Backend> {
    slot: usize,
    token: Token,
    /// The step it takes next.
    index: usize,
    /// The longest walk.
    n_steps: usize,
    /// The teacher's actions, if it has one.
    targets: Option<Vec<Vec<Action>>>,
    path: Vec<usize>,
    /// How often it has executed each block.
    visits: Vec<usize>,
    /// `[1, d_model]`
    hidden: Tensor<B, 2>,
    /// `[1, d_position]`
    position: Tensor<B, 2>,
}

/// A token's choice at a step.
#[derive(Debug)]
struct Choice<B: Backend> {
    chosen: Chosen,
    /// Of every block, `[1, n_pool]`, where outputs are mixed.
    weights: Option<Tensor<B, 2>>,
    /// `[1, 1]`, where blocks are gated.
    gate: Option<Tensor<B, 2>>,
}

/// Tokens whose walks are over.
pub(crate) struct Finished<B: Backend> {
    /// The slots of their sequences.
    pub slots: Vec<usize>,
    /// The blocks that each has run.
    pub paths: Vec<Vec<usize>>,
    /// `[finished, d_model]`
    pub hidden: Tensor<B, 2>,
    /// As blocks see them, `[finished, d_position]`.
    pub position: Tensor<B, 2>,
}

/// The caches of slots, by their numbers.
pub(crate) type Walks<'w, B> = [Option<&'w mut WalkCache<B>>];

const OPEN: &str = "the slot is open";

fn of_slot<'w, B: Backend>(walks: &'w mut Walks<'_, B>, slot: usize) -> &'w mut WalkCache<B> {
    walks[slot].as_mut().expect(OPEN)
}

impl<B: Backend> Rounds<B> {
    /// No token walks.
    pub fn new() -> Self {
        Self {
            waiting: Vec::new(),
            n_rounds: 0,
        }
    }

    /// Whether a token of this slot walks.
    pub fn has(&self, slot: usize) -> bool {
        let mut waiting = self.waiting.iter();
        waiting.any(|waiting| waiting.walker.slot == slot)
    }

    /// Ends the walk of a slot without an end.
    pub fn drop_slot(&mut self, slot: usize) {
        self.waiting.retain(|waiting| waiting.walker.slot != slot);
    }

    /// Lets tokens enter their walks, each with its slot, sequence and place.
    ///
    /// # Shapes
    /// `entered`: `[new, d_model]`
    pub fn enter(
        &mut self,
        context: &WalkContext<'_, B>,
        rules: &Rules,
        new: &[(usize, SequenceInfo, usize)],
        entered: Tensor<B, 2>,
        walks: &mut Walks<'_, B>,
    ) {
        let start = context.positions.table().start(1);
        let walker = |(row, &(slot, info, place)): (usize, &(usize, SequenceInfo, usize))| {
            let taught = rules.policy.teacher();
            let targets = taught.map(|_| context.targets(rules, &[info]));
            Walker {
                slot,
                token: Token::new(info.sequence, place),
                index: 0,
                n_steps: match (&rules.policy, &targets) {
                    (Policy::Teacher(_), Some(targets)) => targets.len(),
                    _ => context.route.max_steps,
                },
                targets,
                path: Vec::new(),
                visits: vec![0; context.pool.len()],
                hidden: row_of(&entered, row),
                position: start.clone(),
            }
        };
        let walkers = new.iter().enumerate().map(walker).collect();
        self.come(context, rules, walkers, walks);
    }

    /// Takes those further who wait for what most wait for, on the host in as many queues as there are threads; gives those that
    /// are through, if it is they.
    pub fn round(
        &mut self,
        context: &WalkContext<'_, B>,
        rules: &Rules,
        walks: &mut Walks<'_, B>,
    ) -> Option<Finished<B>> {
        let mut queues = self.by_urgency(context.pool.len() + 2);
        self.n_rounds += 1;
        if *queues.first()? == Queue::Leaving {
            let leaving = self.leave_queue(Queue::Leaving);
            return Some(finish(context, leaving.map(|of| of.walker).collect()));
        }
        queues.retain(|&queue| queue != Queue::Leaving);
        let first = &context.pool[0].block.attention.output;
        queues.truncate(rayon::current_num_threads().min(groups_at_once(first)));
        let mut together = Vec::new();
        for queue in queues {
            let mut runners = Runners::default();
            for Waiting { walker, choice, .. } in self.leave_queue(queue) {
                runners.walks.push(walks[walker.slot].take().expect(OPEN));
                runners.walkers.push(walker);
                runners.choices.extend(choice);
            }
            together.push(runners);
        }
        let (attending, n_pool) = (context.attending(), context.pool.len());
        let moved = together
            .into_par_iter()
            .with_max_len(1)
            .map(|runners| runners.run(&attending, n_pool));
        let mut come = Vec::new();
        for Moved {
            walkers,
            walks: back,
            chosen,
            weights,
            hidden,
        } in moved.collect::<Vec<_>>()
        {
            let position = context.arrive(&chosen, weights, &context.positions.table());
            for (row, ((mut walker, chosen), walk)) in
                walkers.into_iter().zip(chosen).zip(back).enumerate()
            {
                walks[walker.slot] = Some(walk);
                walker.path.extend(chosen.action.block());
                come.push(Walker {
                    index: walker.index + 1,
                    hidden: row_of(&hidden, row),
                    position: row_of(&position, row),
                    ..walker
                });
            }
        }
        self.come(context, rules, come, walks);
        None
    }

    fn leave_queue(&mut self, queue: Queue) -> impl Iterator<Item = Waiting<B>> {
        self.waiting
            .extract_if(.., move |waiting| waiting.queue == queue)
    }

    /// The queues in which tokens wait: first those in which one has waited too long, then those of most tokens, and of several the
    /// one that came first.
    fn by_urgency(&self, n_queues: usize) -> Vec<Queue> {
        let mut queues: BTreeMap<Queue, (usize, usize)> = BTreeMap::new();
        for waiting in &self.waiting {
            let (n_tokens, since) = queues.entry(waiting.queue).or_insert((0, waiting.since));
            *n_tokens += 1;
            *since = waiting.since.min(*since);
        }
        let too_long = PATIENCE * n_queues;
        let mut queues: Vec<_> = queues.into_iter().collect();
        queues.sort_by_key(|&(_, (n_tokens, since))| {
            let late = (self.n_rounds - since).checked_sub(too_long);
            (Reverse((late, n_tokens)), since)
        });
        queues.into_iter().map(|(queue, _)| queue).collect()
    }

    /// Lets tokens that have come to a step choose what to wait for; those that are through wait to leave.
    fn come(
        &mut self,
        context: &WalkContext<'_, B>,
        rules: &Rules,
        mut walkers: Vec<Walker<B>>,
        walks: &mut Walks<'_, B>,
    ) {
        let hard_exit = rules.exit_objective.hard();
        let since = self.n_rounds;
        loop {
            let is_through =
                |walker: &mut Walker<B>| walker.token.left || walker.index == walker.n_steps;
            for walker in walkers.extract_if(.., is_through) {
                let position = told(context, &walker.position);
                of_slot(walks, walker.slot).end(&[walker.index], walker.hidden.clone(), position);
                self.waiting.push(Waiting {
                    queue: Queue::Leaving,
                    since,
                    walker,
                    choice: None,
                });
            }
            if walkers.is_empty() {
                return;
            }
            let choices = choose_each(context, rules, &walkers);
            let mut idle = Vec::new();
            for (mut walker, choice) in walkers.into_iter().zip(choices) {
                let position = told(context, &walker.position);
                of_slot(walks, walker.slot).enter(walker.index, walker.hidden.clone(), position);
                walker.token.go(&choice.chosen, hard_exit);
                let queue = match choice.chosen.action {
                    _ if choice.chosen.fused => Queue::Mixture,
                    Action::Block(block) => Queue::Block(block),
                    _ => {
                        idle.push((walker, choice.chosen));
                        continue;
                    }
                };
                self.waiting.push(Waiting {
                    queue,
                    since,
                    walker,
                    choice: Some(choice),
                });
            }
            let go_on = |(walker, chosen): (Walker<B>, Chosen)| {
                let position = context.arrive(&[chosen], None, &context.positions.table());
                Walker {
                    index: walker.index + 1,
                    position,
                    ..walker
                }
            };
            walkers = idle.into_iter().map(go_on).collect();
        }
    }
}

/// Tokens that run their blocks together, with the walks of their sequences.
struct Runners<'w, B: Backend> {
    walkers: Vec<Walker<B>>,
    choices: Vec<Choice<B>>,
    walks: Vec<&'w mut WalkCache<B>>,
}

impl<B: Backend> Default for Runners<'_, B> {
    fn default() -> Self {
        Self {
            walkers: Vec::new(),
            choices: Vec::new(),
            walks: Vec::new(),
        }
    }
}

/// The same when they have run.
struct Moved<'w, B: Backend> {
    walkers: Vec<Walker<B>>,
    walks: Vec<&'w mut WalkCache<B>>,
    chosen: Vec<Chosen>,
    /// `[walkers, n_pool]`, where outputs are mixed.
    weights: Option<Tensor<B, 2>>,
    /// `[walkers, d_model]`
    hidden: Tensor<B, 2>,
}

impl<'w, B: Backend> Runners<'w, B> {
    /// Runs the blocks that they have chosen.
    fn run(self, attending: &Attending<'_, B>, n_pool: usize) -> Moved<'w, B> {
        let Self {
            mut walkers,
            choices,
            mut walks,
        } = self;
        let hidden = all(&walkers, |of| &of.hidden);
        let weights = together(choices.iter().filter_map(|choice| choice.weights.clone()));
        let gates = GradientGates {
            whole: together(choices.iter().filter_map(|choice| choice.gate.clone())),
            straight: None,
        };
        let chosen: Vec<Chosen> = choices.into_iter().map(|choice| choice.chosen).collect();
        let dispatch = Dispatch::new(&chosen, n_pool);
        let blocks: Vec<usize> = dispatch.used().collect();
        let moved = after_blocks(
            &hidden,
            &dispatch,
            weights.as_ref(),
            &gates,
            blocks.chunks(1),
            |blocks, tokens| {
                let block = blocks[0];
                let unread = tokens.iter().map(|&token| {
                    let index = walkers[token].index;
                    walks[token].take(attending, index, block, &[0])
                });
                let mut unread: Vec<_> = unread.collect();
                let visits = tokens.iter().map(|&token| walkers[token].visits[block] + 1);
                let visits: Vec<usize> = visits.collect();
                let output = output(attending, block, &mut unread, &visits);
                for (&token, read) in tokens.iter().zip(unread) {
                    walks[token].put_back(attending, walkers[token].index, block, read);
                }
                output
            },
        );
        for block in dispatch.used() {
            let runners = dispatch.of(block).iter();
            runners.for_each(|&token| walkers[token].visits[block] += 1);
        }
        let writing = walks.iter_mut().zip(&walkers).enumerate();
        for (row, (walk, walker)) in writing.filter(|_| attending.seen().is_some()) {
            let weights = weights.as_ref().map(|weights| row_of(weights, row));
            walk.write(walker.index, weights.as_ref());
        }
        Moved {
            hidden: moved.expect("a block that tokens wait for"),
            walkers,
            walks,
            chosen,
            weights,
        }
    }
}

/// Ends walks.
fn finish<B: Backend>(context: &WalkContext<'_, B>, walkers: Vec<Walker<B>>) -> Finished<B> {
    Finished {
        slots: walkers.iter().map(|walker| walker.slot).collect(),
        hidden: all(&walkers, |of| &of.hidden),
        position: told(context, &all(&walkers, |of| &of.position)),
        paths: walkers.into_iter().map(|walker| walker.path).collect(),
    }
}

/// What tokens choose, each at its own step.
fn choose_each<B: Backend>(
    context: &WalkContext<'_, B>,
    rules: &Rules,
    walkers: &[Walker<B>],
) -> Vec<Choice<B>> {
    let step_of = |row: usize| {
        let Walker { index, n_steps, .. } = walkers[row];
        context.step_at(rules, index, n_steps)
    };
    let asked = rules.asks_router().then(|| {
        let tokens: Vec<Token> = walkers.iter().map(|of| of.token.clone()).collect();
        let hidden = all(walkers, |of| &of.hidden);
        let [n_tokens, d_model] = hidden.dims();
        let state = WalkState {
            hidden: reshape(hidden, [n_tokens, 1, d_model]),
            position: all(walkers, |of| &of.position),
        };
        let mut resting = ExitedCache::new(n_tokens);
        let table = context.positions.table();
        context.score(rules, step_of, &state, &tokens, &table, &mut resting)
    });
    let asked = asked.as_ref();
    let rows = walkers.iter().enumerate();
    let chosen = rows.map(|(row, of)| {
        let logits = asked.map_or(&[][..], |asked| asked.of_token(row));
        let target = of.targets.as_ref();
        let target = target.map(|targets| targets_at(targets, of.index, &[0])[0]);
        choose(step_of(row), &of.token, logits, target)
    });
    let chosen: Vec<Chosen> = chosen.collect();
    let mixes = chosen.iter().any(|chosen| chosen.fused);
    let weights = asked.filter(|_| mixes).map(|asked| asked.fusion(&chosen));
    let is_gated = rules.choice_gradient == ChoiceGradient::Gated;
    let gates = asked.filter(|_| is_gated);
    let gates = gates.map(|asked| asked.gates(&chosen) - 1.0);
    let choice = |(row, chosen): (usize, Chosen)| Choice {
        weights: weights
            .as_ref()
            .filter(|_| chosen.fused)
            .map(|all| row_of(all, row)),
        gate: gates.as_ref().map(|all| row_of(all, row)),
        chosen,
    };
    chosen.into_iter().enumerate().map(choice).collect()
}

/// A row of each token, as one tensor.
fn all<B: Backend>(walkers: &[Walker<B>], of: fn(&Walker<B>) -> &Tensor<B, 2>) -> Tensor<B, 2> {
    let rows = walkers.iter().map(|walker| of(walker).clone());
    together(rows).expect("a token")
}

/// Positions as the blocks see them.
fn told<B: Backend>(context: &WalkContext<'_, B>, position: &Tensor<B, 2>) -> Tensor<B, 2> {
    context.positions.reach().tell_blocks(position.clone())
}

/// Rows as one tensor; `None` if there are none.
fn together<B: Backend>(rows: impl Iterator<Item = Tensor<B, 2>>) -> Option<Tensor<B, 2>> {
    let rows: Vec<_> = rows.collect();
    (!rows.is_empty()).then(|| cat(rows, 0))
}

/// A row, as a matrix.
fn row_of<B: Backend>(of: &Tensor<B, 2>, row: usize) -> Tensor<B, 2> {
    some(of.clone(), &[row])
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::ops::tests::Host;

    #[test]
    fn the_fullest_queue_goes_first_but_one_that_has_waited_too_long_before_all() {
        let row = || Tensor::<Host, 2>::zeros([1, 1], &Default::default());
        let waiting = |(queue, since): (Queue, usize)| Waiting {
            queue,
            since,
            walker: Walker {
                slot: 0,
                token: Token::new(0, 0),
                index: 0,
                n_steps: 1,
                targets: None,
                path: Vec::new(),
                visits: Vec::new(),
                hidden: row(),
                position: row(),
            },
            choice: None,
        };
        let order = |n_rounds, tokens: &[(Queue, usize)]| {
            let waiting = tokens.iter().copied().map(waiting).collect();
            Rounds { waiting, n_rounds }.by_urgency(3)
        };
        use Queue::{Block, Leaving, Mixture};
        let tokens = [
            (Block(1), 3),
            (Leaving, 2),
            (Block(0), 5),
            (Block(1), 6),
            (Mixture, 1),
        ];
        assert_eq!(order(6, &tokens), [Block(1), Mixture, Leaving, Block(0)]);
        // Three queues times the patience of four.
        assert_eq!(order(13, &tokens)[0], Mixture);
        assert_eq!(order(12, &tokens)[0], Block(1));
        assert!(order(6, &[]).is_empty());
    }
}
