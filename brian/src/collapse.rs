//! Detects six kinds of router collapse (`Mode`) in counts of walks, with the rate found, its bound and settings that may help,
//! and says which kinds a teacher's own paths show by design. Host only.

use crate::route::action::Action;
use crate::route::draws::Draws;
use crate::route::policy::{SequenceInfo, Teacher};
use crate::route::trace::{Decisions, Origin, Walks};
use crate::stats::RouteCounts;

/// A collapse that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Collapse {
    /// Its kind.
    pub mode: Mode,
    /// The measured rate.
    pub found: f64,
    /// The bound it crossed.
    pub bound: f64,
}

/// The kinds of collapse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The executed blocks are far from evenly used.
    Load,
    /// One block does nearly all the work.
    OneBlock,
    /// Nearly every token leaves before it executed a block.
    ExitFirst,
    /// Nearly every token walks as long as it can.
    ExitNever,
    /// Blocks nearly always follow themselves.
    SelfRecurrence,
    /// Nearly every token takes the same path.
    OnePath,
}

impl Mode {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Load,
        Self::OneBlock,
        Self::ExitFirst,
        Self::ExitNever,
        Self::SelfRecurrence,
        Self::OnePath,
    ];

    /// The name of the metric that shows it.
    pub fn metric(self) -> &'static str {
        match self {
            Self::Load => "route/load_entropy",
            Self::OneBlock => "route/load_max",
            Self::ExitFirst => "route/exit_first",
            Self::ExitNever => "the share of tokens that walk to the last step",
            Self::SelfRecurrence => "route/recur",
            Self::OnePath => "route/path_top_share",
        }
    }

    /// Settings that may help.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Load | Self::OneBlock => {
                "raise walk.loss.selected_balance or walk.loss.coverage_floor"
            }
            Self::ExitFirst => "raise walk.constraint.early_exit_penalty or lower walk.loss.cost",
            Self::ExitNever => "raise walk.loss.cost or walk.loss.halting_prior",
            Self::SelfRecurrence => {
                "set walk.constraint.self_recurrence_cap or raise walk.loss.transition_diversity"
            }
            Self::OnePath => "raise walk.exploration or walk.loss.transition_diversity",
        }
    }
}

/// Entropy of the load below which it is uneven, of 1.
const LEAST_LOAD_ENTROPY: f64 = 0.3;
/// Share of one block above which it does nearly everything.
const MOST_OF_ONE_BLOCK: f64 = 0.9;
/// Share of moves to the same block above which there is nothing else.
const MOST_RECURRENCE: f64 = 0.95;
/// Share of tokens above which it is nearly all of them.
const NEARLY_ALL: f64 = 0.98;

impl RouteCounts {
    /// The collapses in these walks; none for a healthy router.
    pub fn collapses(&self) -> Vec<Collapse> {
        let named = self.named(false);
        let rate = |name: &str| named.get(&format!("route/{name}")).copied();
        let walked_on =
            self.lengths.last().copied().unwrap_or(0) as f64 / self.tokens.max(1) as f64;
        let moves_often = rate("steps_mean").is_some_and(|steps| steps >= 2.0);
        let recurrence = rate("recur").filter(|_| moves_often && self.n_pool > 1);
        let above = [
            (
                Mode::OneBlock,
                rate("load_max").filter(|_| self.n_pool > 1),
                MOST_OF_ONE_BLOCK,
            ),
            (Mode::ExitFirst, rate("exit_first"), NEARLY_ALL),
            (
                Mode::ExitNever,
                Some(walked_on).filter(|_| self.max_steps > 1),
                NEARLY_ALL,
            ),
            (Mode::SelfRecurrence, recurrence, MOST_RECURRENCE),
            (
                Mode::OnePath,
                rate("path_top_share").filter(|_| self.n_pool > 1),
                NEARLY_ALL,
            ),
        ];
        let low = rate("load_entropy").filter(|&found| found < LEAST_LOAD_ENTROPY);
        let low = low.map(|found| Collapse {
            mode: Mode::Load,
            found,
            bound: LEAST_LOAD_ENTROPY,
        });
        let high = above.into_iter().filter_map(|(mode, found, bound)| {
            let found = found.filter(|&found| found > bound)?;
            Some(Collapse { mode, found, bound })
        });
        low.into_iter().chain(high).collect()
    }
}

/// The collapses that a teacher's own paths show: a router that learnt from it does the same by design. `counts` give the size
/// of the pool, the longest walk and the difficulties of the sequences.
pub fn by_design(teacher: &Teacher, counts: &RouteCounts) -> Vec<Mode> {
    let (n_pool, max_steps) = (counts.n_pool, counts.max_steps);
    let hard = counts.samples.iter().map(|&(difficulty, _)| difficulty);
    let mut difficulties: Vec<Option<u8>> = hard.map(Some).collect();
    if difficulties.is_empty() {
        difficulties = vec![None; n_pool];
    }
    let rows = difficulties
        .iter()
        .zip(0..)
        .map(|(&difficulty, sequence)| SequenceInfo {
            sequence,
            difficulty,
        });
    let rows: Vec<SequenceInfo> = rows.collect();
    let mut targets = teacher.targets(n_pool, max_steps, &rows, Draws::new(0, 0));
    targets.truncate(max_steps);
    let mut walked = RouteCounts::default();
    let walks = followed(targets, rows.len(), n_pool, max_steps);
    walked.add(&walks, &vec![true; rows.len()], &difficulties);
    walked
        .collapses()
        .iter()
        .map(|collapse| collapse.mode)
        .collect()
}

/// Walks of sequences of one token that do as they are told.
fn followed(targets: Vec<Vec<Action>>, rows: usize, n_pool: usize, max_steps: usize) -> Walks {
    let mut left = vec![false; rows];
    let mut steps = Vec::new();
    for actions in targets {
        let origin = |&left: &bool| if left { Origin::Left } else { Origin::Teacher };
        let origins = left.iter().map(origin).collect();
        for (left, action) in left.iter_mut().zip(&actions) {
            *left |= *action == Action::Out;
        }
        steps.push(Decisions {
            actions: actions.iter().map(|action| action.index(n_pool)).collect(),
            origins,
            fused: vec![false; rows],
            capped: vec![false; rows],
            ..Decisions::default()
        });
    }
    Walks {
        batch: rows,
        seq: 1,
        n_pool,
        max_steps,
        hard_exit: true,
        steps,
        ..Walks::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    const N_POOL: usize = 4;
    const MAX_STEPS: usize = 6;
    const TOKENS: usize = 400;

    /// Walks of one sequence whose actions `action(token, step)` gives; OUT ends a walk.
    fn counted(action: impl Fn(usize, usize) -> usize) -> RouteCounts {
        let mut left = vec![false; TOKENS];
        let mut steps = Vec::new();
        for step in 0..MAX_STEPS {
            let origins = left
                .iter()
                .map(|&left| if left { Origin::Left } else { Origin::Router });
            let origins: Vec<Origin> = origins.collect();
            let chosen = |token: usize| {
                if left[token] {
                    N_POOL
                } else {
                    action(token, step)
                }
            };
            let actions: Vec<usize> = (0..TOKENS).map(chosen).collect();
            for (left, &action) in left.iter_mut().zip(&actions) {
                *left |= action == N_POOL;
            }
            steps.push(Decisions {
                actions,
                origins,
                fused: vec![false; TOKENS],
                capped: vec![false; TOKENS],
                ..Decisions::default()
            });
        }
        let walks = Walks {
            batch: 1,
            seq: TOKENS,
            n_pool: N_POOL,
            max_steps: MAX_STEPS,
            hard_exit: true,
            steps,
            ..Walks::default()
        };
        let mut counts = RouteCounts::default();
        counts.add(&walks, &[true; TOKENS], &[None]);
        counts
    }

    fn drawn(seed: u64, token: usize, step: usize, n: usize) -> usize {
        let key = random::key(seed, "walk", token as u64);
        (random::bits(key, step as u64) % n as u64) as usize
    }

    #[test]
    fn every_way_to_collapse_is_found() {
        let cases: [(Mode, RouteCounts); 6] = [
            (
                Mode::Load,
                counted(|token, step| if drawn(1, token, step, 12) == 0 { 1 } else { 0 }),
            ),
            (
                Mode::OneBlock,
                counted(|token, step| if drawn(2, token, step, 25) == 0 { 3 } else { 2 }),
            ),
            (
                Mode::ExitFirst,
                counted(|token, _| if token == 0 { 0 } else { N_POOL }),
            ),
            (
                Mode::ExitNever,
                counted(|token, step| drawn(3, token, step, N_POOL)),
            ),
            (
                Mode::SelfRecurrence,
                counted(|token, step| {
                    if step > 2 + token % 4 {
                        N_POOL
                    } else {
                        token % N_POOL
                    }
                }),
            ),
            (Mode::OnePath, counted(|_, step| step.min(N_POOL))),
        ];
        for (mode, counts) in cases {
            let found = counts.collapses();
            assert!(
                found.iter().any(|collapse| collapse.mode == mode),
                "{mode:?}: {found:?}"
            );
        }
    }

    #[test]
    fn what_a_teacher_does_by_design_is_known() {
        let counts = counted(|token, step| drawn(4, token, step, N_POOL));
        assert_eq!(by_design(&Teacher::Sequential, &counts), [Mode::OnePath]);
        let path = |blocks: &[usize]| Teacher::Path {
            blocks: blocks.to_vec(),
        };
        let same = by_design(&path(&[2, 2, 2]), &counts);
        let all = [
            Mode::Load,
            Mode::OneBlock,
            Mode::SelfRecurrence,
            Mode::OnePath,
        ];
        assert_eq!(same, all);
        assert_eq!(
            by_design(&Teacher::BalancedCoverage, &counts),
            [Mode::ExitNever]
        );
        // Without grades all sequences are medium; with all three grades there is nothing to excuse.
        assert_eq!(
            by_design(&Teacher::MixedSkipRecur, &counts),
            [Mode::OnePath]
        );
        let mut graded = counts;
        graded.samples = (0..30).map(|index| (index % 3, 1.0)).collect();
        assert_eq!(by_design(&Teacher::MixedSkipRecur, &graded), []);
    }

    #[test]
    fn healthy_routers_raise_no_alarm() {
        for seed in 0..20 {
            let counts = counted(|token, step| {
                let leaves = step > 0 && drawn(seed, token, 100 + step, 4) == 0;
                if leaves {
                    N_POOL
                } else {
                    drawn(seed, token, step, 2 + seed as usize % 3)
                }
            });
            assert_eq!(counts.collapses(), [], "seed {seed}");
        }
    }

    /// Walks of a thousand tokens in a pool of two, healthy but for what `change` does.
    fn healthy(change: impl Fn(&mut RouteCounts)) -> Vec<Collapse> {
        let mut counts = RouteCounts::default();
        (
            counts.n_pool,
            counts.max_steps,
            counts.tokens,
            counts.decisions,
        ) = (2, 3, 1000, 3000);
        counts.load = vec![1000, 1000];
        counts.exits = vec![100, 400, 400];
        counts.lengths = vec![100, 200, 300, 400];
        counts.moves = vec![250; 4];
        counts.paths = [(vec![0], 500), (vec![1], 500)].into();
        change(&mut counts);
        counts.collapses()
    }

    fn modes(found: &[Collapse]) -> Vec<Mode> {
        found.iter().map(|collapse| collapse.mode).collect()
    }

    #[test]
    fn each_alarm_rings_beyond_its_bound_and_not_at_it() {
        assert_eq!(healthy(|_| {}), []);
        let one_block = |most: u64| healthy(|counts| counts.load = vec![most, 2000 - most]);
        assert_eq!(modes(&one_block(1800)), []);
        let found = one_block(1810);
        assert_eq!(modes(&found), [Mode::OneBlock]);
        assert_eq!((found[0].found, found[0].bound), (0.905, 0.9));
        // In bits, the entropy of 5.3 % is 0.299 and that of 5.4 % is 0.303.
        assert_eq!(modes(&one_block(2000 - 108)), [Mode::OneBlock]);
        assert_eq!(modes(&one_block(2000 - 106)), [Mode::Load, Mode::OneBlock]);
        let first = |n: u64| healthy(|counts| counts.exits = vec![n, 0, 0]);
        assert_eq!(modes(&first(980)), []);
        assert_eq!(modes(&first(981)), [Mode::ExitFirst]);
        let long = |n: u64| healthy(|counts| counts.lengths = vec![1000 - n, 0, 0, n]);
        assert_eq!(modes(&long(980)), []);
        assert_eq!(modes(&long(981)), [Mode::ExitNever]);
        let same = |n: u64| healthy(|counts| counts.moves = vec![n, 1000 - n, 0, 0]);
        assert_eq!(modes(&same(950)), []);
        assert_eq!(modes(&same(951)), [Mode::SelfRecurrence]);
        let path =
            |n: u64| healthy(|counts| counts.paths = [(vec![0], n), (vec![1], 1000 - n)].into());
        assert_eq!(modes(&path(980)), []);
        assert_eq!(modes(&path(981)), [Mode::OnePath]);
    }

    /// Where there is one block, or one step, nothing else can be done; and who makes fewer than two steps has no habit.
    #[test]
    fn what_cannot_be_otherwise_is_no_collapse() {
        let single = |n_pool: usize, max_steps: usize, steps: u64| {
            healthy(|counts| {
                (counts.n_pool, counts.max_steps) = (n_pool, max_steps);
                counts.load = vec![steps * 1000];
                counts.load.resize(n_pool, 0);
                counts.load[n_pool - 1] += 1;
                counts.moves = vec![0; n_pool * n_pool];
                counts.moves[0] = 1000;
                counts.lengths = vec![0, 0, 1000];
                counts.paths = [(vec![0; steps as usize], 1000)].into();
            })
        };
        assert_eq!(modes(&single(1, 1, 2)), []);
        assert_eq!(modes(&single(1, 2, 2)), [Mode::ExitNever]);
        let all = [
            Mode::Load,
            Mode::OneBlock,
            Mode::SelfRecurrence,
            Mode::OnePath,
        ];
        assert_eq!(modes(&single(2, 1, 2)), all);
        assert_eq!(
            modes(&single(2, 1, 1)),
            [Mode::Load, Mode::OneBlock, Mode::OnePath]
        );
        assert_eq!(RouteCounts::default().collapses(), []);
    }

    #[test]
    fn every_alarm_has_a_name_and_an_advice_of_its_own_kind() {
        let metrics: std::collections::BTreeSet<&str> =
            Mode::ALL.iter().map(|mode| mode.metric()).collect();
        assert_eq!(metrics.len(), Mode::ALL.len());
        assert!(Mode::ExitFirst.advice().contains("early_exit_penalty"));
        assert!(Mode::ExitNever.advice().contains("raise walk.loss.cost"));
    }
}
