//! Walks of tokens of many sequences, each at a step of its own. A round takes every one of them one step further: those that
//! run the same block run together, at whichever step they are, and who leaves makes room at once.
//!
//! The rules are those of [`walk`](super::walk) in evaluation. What a token does depends on its own sequence alone; on the host
//! so do its bits.

use super::action::Action;
use super::choose::{Chosen, Token};
use super::context::{WalkContext, WalkState};
use super::execute::{Dispatch, GradientGates, after_blocks};
use super::exited_cache::ExitedCache;
use super::policy::{Policy, SequenceInfo};
use super::rules::{ChoiceGradient, Rules};
use super::walk::{RouterOutput, choose_all, targets_at};
use super::walk_cache::{WalkCache, output};
use crate::ops::gather::{rows, some};
use crate::ops::reshape::reshape;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::ops::Range;

/// Tokens on their walks, at most one of each sequence; those at the lowest step come first.
#[derive(Debug)]
pub(crate) struct Rounds<B: Backend> {
    walkers: Vec<Walker>,
    /// Of the same tokens.
    tokens: Vec<Token>,
    /// Their states, `[walkers, d_model]`, and positions, `[walkers, d_position]`.
    rows: Option<[Tensor<B, 2>; 2]>,
}

/// A token on its walk.
#[derive(Debug)]
struct Walker {
    slot: usize,
    /// The step it takes next.
    index: usize,
    /// The longest walk.
    n_steps: usize,
    /// The teacher's actions, if it has one.
    targets: Option<Vec<Vec<Action>>>,
    path: Vec<usize>,
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

/// What is known of some tokens at one step before they move.
struct Choice<B: Backend> {
    chosen: Vec<Chosen>,
    asked: Option<RouterOutput<B>>,
    /// `[n, 1]`, where blocks are gated.
    gates: Option<Tensor<B, 2>>,
}

impl<B: Backend> Rounds<B> {
    /// No token walks.
    pub fn new() -> Self {
        Self {
            walkers: Vec::new(),
            tokens: Vec::new(),
            rows: None,
        }
    }

    /// Whether a token of this slot walks.
    pub fn has(&self, slot: usize) -> bool {
        self.walkers.iter().any(|walker| walker.slot == slot)
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
    ) {
        let walker = |&(slot, info, _): &(usize, SequenceInfo, usize)| {
            let taught = rules.policy.teacher();
            let targets = taught.map(|_| context.targets(rules, &[info]));
            Walker {
                slot,
                index: 0,
                n_steps: match (&rules.policy, &targets) {
                    (Policy::Teacher(_), Some(targets)) => targets.len(),
                    _ => context.route.max_steps,
                },
                targets,
                path: Vec::new(),
            }
        };
        let token =
            |&(_, info, place): &(usize, SequenceInfo, usize)| Token::new(info.sequence, place);
        self.walkers.splice(0..0, new.iter().map(walker));
        self.tokens.splice(0..0, new.iter().map(token));
        let start = context.positions.table().start(new.len());
        self.rows = Some(match self.rows.take() {
            None => [entered, start],
            Some([hidden, position]) => [
                Tensor::cat(vec![entered, hidden], 0),
                Tensor::cat(vec![start, position], 0),
            ],
        });
    }

    /// Takes every token one step further; `walks` are those of the slots. Gives those that are through.
    pub fn round(
        &mut self,
        context: &WalkContext<'_, B>,
        rules: &Rules,
        walks: &mut [Option<&mut WalkCache<B>>],
    ) -> Option<Finished<B>> {
        let [hidden, position] = self.rows.take()?;
        let (n_pool, table) = (context.pool.len(), context.positions.table());
        let hard_exit = rules.exit_objective.hard();
        let (mut chosen, mut gates, mut asked) = (Vec::new(), Vec::new(), Vec::new());
        for which in self.same_steps() {
            let [_, d_model] = hidden.dims();
            let at_step = hidden.clone().slice_dim(0, which.clone());
            let state = WalkState {
                hidden: reshape(at_step, [which.len(), 1, d_model]),
                position: position.clone().slice_dim(0, which.clone()),
            };
            let choice = self.choose(context, rules, which, state);
            chosen.extend(choice.chosen);
            gates.extend(choice.gates);
            asked.extend(choice.asked);
        }
        for (token, chosen) in self.tokens.iter_mut().zip(&chosen) {
            token.go(chosen, hard_exit);
        }

        let told = context.positions.reach().tell_blocks(position);
        let mut of_slot = |slot: usize| walks[slot].take().expect("an open slot");
        let mut own: Vec<_> = self.walkers.iter().map(|of| of_slot(of.slot)).collect();
        for (row, (walker, walk)) in self.walkers.iter().zip(&mut own).enumerate() {
            let row = |of: &Tensor<B, 2>| of.clone().slice_dim(0, row..row + 1);
            walk.enter(walker.index, row(&hidden), row(&told));
        }
        let mixes = chosen.iter().any(|chosen| chosen.fused);
        let weights = mixes.then(|| {
            let mut rest = &chosen[..];
            let weights = asked.iter().map(|asked: &RouterOutput<B>| {
                let (these, others) = rest.split_at(asked.logits.dims()[0]);
                rest = others;
                asked.fusion(these)
            });
            Tensor::cat(weights.collect(), 0)
        });
        let gates = GradientGates {
            whole: (!gates.is_empty()).then(|| Tensor::cat(gates, 0)),
            straight: None,
        };
        let dispatch = Dispatch::new(&chosen, n_pool);
        let each: Vec<usize> = dispatch.used().collect();
        let moved = after_blocks(
            &hidden,
            &dispatch,
            weights.as_ref(),
            &gates,
            each.chunks(1),
            |blocks, tokens| {
                let block = blocks[0];
                let index = |token: usize| self.walkers[token].index;
                let unread = tokens
                    .iter()
                    .map(|&token| own[token].take(index(token), block));
                let (output, caches) =
                    output(&context.pool[block], context.rotary, unread.collect());
                for (&token, cache) in tokens.iter().zip(caches) {
                    own[token].put_back(index(token), block, cache);
                }
                output
            },
        );
        let hidden = moved.unwrap_or(hidden);
        let position = context.arrive(&chosen, weights, &table);
        for (walker, chosen) in self.walkers.iter_mut().zip(&chosen) {
            walker.index += 1;
            walker.path.extend(chosen.action.block());
        }
        self.part(context, hidden, position, own)
    }

    /// Ends the walks of those that are through and keeps the others.
    fn part(
        &mut self,
        context: &WalkContext<'_, B>,
        hidden: Tensor<B, 2>,
        position: Tensor<B, 2>,
        own: Vec<&mut WalkCache<B>>,
    ) -> Option<Finished<B>> {
        let told = context.positions.reach().tell_blocks(position.clone());
        let is_through = |row: &usize| {
            let Walker { index, n_steps, .. } = self.walkers[*row];
            self.tokens[*row].left || index == n_steps
        };
        let (through, on): (Vec<usize>, Vec<usize>) = (0..self.walkers.len()).partition(is_through);
        for (row, walk) in own.into_iter().enumerate() {
            if through.contains(&row) {
                let of = |of: &Tensor<B, 2>| of.clone().slice_dim(0, row..row + 1);
                walk.end(self.walkers[row].n_steps, of(&hidden), of(&told));
            }
        }
        let finished = (!through.is_empty()).then(|| Finished {
            slots: through.iter().map(|&row| self.walkers[row].slot).collect(),
            paths: through
                .iter()
                .map(|&row| std::mem::take(&mut self.walkers[row].path))
                .collect(),
            hidden: some(hidden.clone(), &through),
            position: some(told, &through),
        });
        if !on.is_empty() {
            self.rows = Some([some(hidden, &on), some(position, &on)]);
        }
        let mut goes = (0..).map(|row| on.binary_search(&row).is_ok());
        self.walkers.retain(|_| goes.next() == Some(true));
        let mut goes = (0..).map(|row| on.binary_search(&row).is_ok());
        self.tokens.retain(|_| goes.next() == Some(true));
        finished
    }

    /// Ends the walk of a slot without an end.
    pub fn drop_slot(&mut self, slot: usize) {
        let stays = |row: &usize| self.walkers[*row].slot != slot;
        let on: Vec<usize> = (0..self.walkers.len()).filter(stays).collect();
        if on.len() == self.walkers.len() {
            return;
        }
        let kept = self.rows.take().filter(|_| !on.is_empty());
        self.rows = kept.map(|of| of.map(|of| rows(of, &on)));
        let gone = self.walkers.iter().position(|walker| walker.slot == slot);
        let gone = gone.expect("one of the walkers");
        self.walkers.remove(gone);
        self.tokens.remove(gone);
    }

    /// Ranges of tokens that are at the same step.
    fn same_steps(&self) -> Vec<Range<usize>> {
        let mut end = 0;
        let same = self.walkers.chunk_by(|a, b| a.index == b.index);
        let range = |same: &[Walker]| {
            end += same.len();
            end - same.len()..end
        };
        same.map(range).collect()
    }

    /// What tokens at the same step choose.
    fn choose(
        &self,
        context: &WalkContext<'_, B>,
        rules: &Rules,
        which: Range<usize>,
        state: WalkState<B>,
    ) -> Choice<B> {
        let (walkers, tokens) = (&self.walkers[which.clone()], &self.tokens[which]);
        let Walker { index, n_steps, .. } = walkers[0];
        let table = context.positions.table();
        let step = context.step_at(rules, index, n_steps);
        let asked = rules.asks_router().then(|| {
            let mut resting = ExitedCache::new(tokens.len());
            context.score(step, n_steps, &state, tokens, &table, &mut resting)
        });
        let target = |of: &Walker| {
            let targets = of.targets.as_ref()?;
            Some(targets_at(targets, index, 1)[0])
        };
        let targets: Option<Vec<Action>> = walkers.iter().map(target).collect();
        let chosen = choose_all(step, tokens, asked.as_ref(), targets.as_deref(), 1);
        let gates = (rules.choice_gradient == ChoiceGradient::Gated)
            .then(|| asked.as_ref().map(|asked| asked.gates(&chosen) - 1.0));
        Choice {
            gates: gates.flatten(),
            asked,
            chosen,
        }
    }
}
