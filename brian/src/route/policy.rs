//! `Policy`, who decides the actions of a pass: a teacher, the router (`Select` says how), or one of them by lot; and
//! `Teacher`, the rules that compute the target actions of every sequence.

use super::action::Action;
use super::draws::{Draws, Purpose};
use super::path_rule::{CustomTeacher, PoolSize};
use serde::Deserialize;

pub use super::path_rule::SequenceInfo;

/// A rule that gives every sequence its path.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Teacher {
    /// Every block of the pool once, in order, then OUT: the baseline's own path.
    Sequential,
    /// Easy sequences skip (`0, 2, OUT`), medium ones advance (`0, 1, 2, …, OUT`), hard ones repeat (`0, 0, 1, …, OUT`).
    MixedSkipRecur,
    /// Sequence `i` runs the blocks `i, i + 1, …` modulo the pool and never leaves: every block is used alike.
    BalancedCoverage,
    /// Any block at every step, and never OUT.
    RandomInternal,
    /// The same actions for every sequence, then OUT: `{ kind = "path", blocks = [0, 1, 0, 1] }`.
    Path {
        /// Blocks in the order of their execution.
        blocks: Vec<usize>,
    },
    /// One of the program.
    #[serde(skip)]
    Custom(CustomTeacher),
}

impl Teacher {
    /// The kinds that come with this crate.
    pub const BUILT_IN: [&str; 5] = [
        "sequential",
        "mixed_skip_recur",
        "balanced_coverage",
        "random_internal",
        "path",
    ];

    /// The recipe's word for it.
    pub fn kind(&self) -> &'static str {
        let [sequential, mixed, coverage, random, path] = Self::BUILT_IN;
        match self {
            Self::Sequential => sequential,
            Self::MixedSkipRecur => mixed,
            Self::BalancedCoverage => coverage,
            Self::RandomInternal => random,
            Self::Path { .. } => path,
            Self::Custom(own) => own.rule().kind(),
        }
    }

    /// Whether it asks how hard a sequence is.
    pub fn needs_difficulty(&self) -> bool {
        match self {
            Self::MixedSkipRecur => true,
            Self::Custom(own) => own.rule().needs_difficulty(),
            _ => false,
        }
    }

    /// The targets of a pass, `[n_steps][rows]`, for a pool of `n_pool` blocks and walks of at most `max_steps`.
    ///
    /// # Panics
    /// If a path names an action beyond OUT, or a rule of the program a block that the pool does not have.
    pub fn targets(
        &self,
        n_pool: usize,
        max_steps: usize,
        rows: &[SequenceInfo],
        draws: Draws,
    ) -> Vec<Vec<Action>> {
        let all = |n_steps: usize, index: &dyn Fn(usize, &SequenceInfo) -> usize| {
            let action = |s, row| Action::from_index(index(s, row), n_pool);
            let step = |s| rows.iter().map(|row| action(s, row)).collect();
            (0..n_steps).map(step).collect::<Vec<Vec<Action>>>()
        };
        match self {
            Self::Sequential => all(n_pool + 1, &|s, _| s),
            Self::Path { blocks } => all(blocks.len() + 1, &|s, _| {
                blocks.get(s).copied().unwrap_or(n_pool)
            }),
            Self::BalancedCoverage => all(max_steps, &|s, row| {
                ((row.sequence % n_pool as u64) as usize + s) % n_pool
            }),
            Self::RandomInternal => all(max_steps, &|s, row| {
                draws.below(n_pool, Purpose::Teacher, row.sequence, 0, s)
            }),
            Self::MixedSkipRecur => {
                let action = |s, row: &SequenceInfo| {
                    mixed(row.difficulty.unwrap_or(MEDIUM), s, n_pool, max_steps)
                };
                let mut targets = all(max_steps, &action);
                let last = targets.last().expect("a walk has at least one step");
                if last.iter().any(|&action| action != Action::Out) {
                    targets.push(vec![Action::Out; rows.len()]);
                }
                targets
            }
            Self::Custom(own) => {
                let pool = PoolSize { n_pool, max_steps };
                let actions = |step| own.actions(step, pool, rows, draws);
                (0..max_steps).map(actions).collect()
            }
        }
    }
}

const MEDIUM: u8 = 1;

fn mixed(difficulty: u8, step: usize, n_pool: usize, max_steps: usize) -> usize {
    let (out, last_block) = (n_pool, n_pool - 1);
    match (difficulty, step) {
        (0, 0) => 0,
        (0, 1) if n_pool > 2 => 2.min(last_block),
        (0, _) => out,
        _ if step + 1 == max_steps => out,
        (MEDIUM, _) => step.min(last_block),
        _ => step.saturating_sub(1).min(last_block),
    }
}

/// How the router's distribution becomes an action.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// The largest logit, the lowest action among equals.
    Argmax,
    /// A draw from `softmax(logits / temperature)`.
    Sample {
        /// Above 0.
        temperature: f64,
        /// Whether evaluation draws too; else it takes the largest logit.
        in_evaluation: bool,
    },
}

/// Who decides the actions of a pass.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// A teacher.
    Teacher(Teacher),
    /// For each token and step the router with a probability, else the teacher.
    Blend {
        /// The teacher that decides otherwise, and that imitation learns from.
        teacher: Teacher,
        /// The router's probability.
        router_probability: f64,
        /// How the router chooses.
        select: Select,
    },
    /// The router; a teacher may be given for comparison.
    Router {
        /// The teacher to compare with.
        teacher: Option<Teacher>,
        /// How the router chooses.
        select: Select,
    },
}

impl Policy {
    /// The teacher that gives the targets, if there is one.
    pub fn teacher(&self) -> Option<&Teacher> {
        match self {
            Self::Teacher(teacher) | Self::Blend { teacher, .. } => Some(teacher),
            Self::Router { teacher, .. } => teacher.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(
        teacher: &Teacher,
        n_pool: usize,
        max_steps: usize,
        rows: &[SequenceInfo],
    ) -> Vec<Vec<usize>> {
        let steps = teacher.targets(n_pool, max_steps, rows, Draws::new(1, 1));
        (0..rows.len())
            .map(|row| steps.iter().map(|step| step[row].index(n_pool)).collect())
            .collect()
    }

    fn graded() -> Vec<SequenceInfo> {
        [0, 1, 2]
            .map(|difficulty| SequenceInfo {
                sequence: u64::from(difficulty),
                difficulty: Some(difficulty),
            })
            .to_vec()
    }

    #[test]
    fn a_mixed_teacher_skips_what_is_easy_and_repeats_what_is_hard() {
        let mixed = Teacher::MixedSkipRecur;
        let expected = [vec![0, 2, 8, 8], vec![0, 1, 2, 8], vec![0, 0, 1, 8]];
        assert_eq!(paths(&mixed, 8, 4, &graded()), expected);
        let expected = [vec![0, 2, 5, 5], vec![0, 1, 2, 5], vec![0, 0, 1, 5]];
        assert_eq!(paths(&mixed, 5, 4, &graded()), expected);
        let expected = [vec![0, 2, 2], vec![0, 1, 2], vec![0, 0, 2]];
        assert_eq!(paths(&mixed, 2, 3, &graded()), expected);
        let longer = paths(&mixed, 8, 16, &graded());
        assert_eq!(longer[2][..9], [0, 0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(longer[2][9..], [7, 7, 7, 7, 7, 7, 8]);
    }

    #[test]
    fn a_mixed_path_that_does_not_leave_gets_one_step_more() {
        let paths = paths(&Teacher::MixedSkipRecur, 3, 2, &graded());
        assert_eq!(paths, [vec![0, 2, 3], vec![0, 3, 3], vec![0, 3, 3]]);
    }

    #[test]
    fn balanced_coverage_uses_every_block_alike() {
        let rows: Vec<SequenceInfo> = (0..4)
            .map(|sequence| SequenceInfo {
                sequence,
                difficulty: None,
            })
            .collect();
        let paths = paths(&Teacher::BalancedCoverage, 4, 8, &rows);
        assert_eq!(paths[0], [0, 1, 2, 3, 0, 1, 2, 3]);
        assert_eq!(paths[1], [1, 2, 3, 0, 1, 2, 3, 0]);
    }

    #[test]
    fn a_random_path_belongs_to_its_sequence_and_not_to_its_place_in_the_batch() {
        let rows: Vec<SequenceInfo> = (0..50)
            .map(|sequence| SequenceInfo {
                sequence,
                difficulty: None,
            })
            .collect();
        let together = paths(&Teacher::RandomInternal, 3, 6, &rows);
        let alone = paths(&Teacher::RandomInternal, 3, 6, &rows[7..8]);
        assert_eq!(together[7], alone[0]);
        let used: std::collections::BTreeSet<usize> = together.concat().into_iter().collect();
        assert_eq!(used.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_path_ends_with_out_and_one_in_order_has_every_block() {
        let two = [
            SequenceInfo::default(),
            SequenceInfo {
                sequence: 9,
                difficulty: Some(2),
            },
        ];
        let path = Teacher::Path {
            blocks: vec![2, 0, 0],
        };
        assert_eq!(
            paths(&path, 3, 2, &two),
            [[2, 0, 0, 3], [2, 0, 0, 3]],
            "whatever the bound on steps"
        );
        assert_eq!(
            paths(&Teacher::Sequential, 3, 2, &two),
            [[0, 1, 2, 3], [0, 1, 2, 3]]
        );
        // An unknown difficulty is a medium one; sequences beyond the pool begin again.
        assert_eq!(
            paths(&Teacher::MixedSkipRecur, 3, 4, &two[..1]),
            [[0, 1, 2, 3]]
        );
        assert_eq!(
            paths(&Teacher::BalancedCoverage, 3, 4, &two[1..]),
            [[0, 1, 2, 0]]
        );
        let late = SequenceInfo {
            sequence: 10,
            difficulty: None,
        };
        assert_eq!(
            paths(&Teacher::BalancedCoverage, 3, 4, &[late]),
            [[1, 2, 0, 1]]
        );
    }

    #[test]
    fn a_random_teacher_takes_all_blocks_alike_at_every_step() {
        let rows: Vec<SequenceInfo> = (0..3000)
            .map(|sequence| SequenceInfo {
                sequence,
                difficulty: None,
            })
            .collect();
        let steps = Teacher::RandomInternal.targets(3, 2, &rows, Draws::new(4, 1));
        for step in &steps {
            for block in 0..3 {
                let count = step
                    .iter()
                    .filter(|&&action| action == Action::Block(block))
                    .count();
                // Standard deviation 26.
                assert!(count.abs_diff(1000) < 130, "{block}: {count}");
            }
        }
        assert_ne!(steps[0], steps[1]);
    }
}
