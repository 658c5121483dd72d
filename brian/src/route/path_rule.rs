//! `PathRule`, a teacher whose type only its program knows: the action of a sequence at a step of its walk; `Turn`, what it is
//! asked with, `SequenceInfo` among it; `CustomTeacher`, one of them as a value.

use super::action::Action;
use super::draws::{Draws, Purpose};
use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

/// What a teacher may know about a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequenceInfo {
    /// Its number, which decides its draws; the same sequence has the same number in every batch.
    pub sequence: u64,
    /// 0 easy, 1 medium, 2 hard; unknown counts as medium.
    pub difficulty: Option<u8>,
}

/// What a walk can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSize {
    /// Blocks of the pool.
    pub n_pool: usize,
    /// The longest walk.
    pub max_steps: usize,
}

/// One question to a teacher: which action does this sequence take at this step of its walk?
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// The sequence.
    pub sequence: SequenceInfo,
    /// The step of the walk, from 0 to below `pool.max_steps`.
    pub step: usize,
    /// What the walk can have.
    pub pool: PoolSize,
    pub(super) draws: Draws,
}

impl Turn {
    /// The sequence's draw of this number from `0..n`, the same at every step of the walk and another one at every step of the
    /// training. Who draws at every step gives the step as the number.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn draw(&self, n: usize, number: usize) -> usize {
        assert!(n > 0, "a draw among none");
        let sequence = self.sequence.sequence;
        self.draws.below(n, Purpose::Teacher, sequence, number, 0)
    }
}

/// A teacher of a program.
pub trait PathRule: Any + Debug + Send + Sync {
    /// What recipes and lines of progress call it.
    fn kind(&self) -> &'static str;

    /// Whether it asks how hard a sequence is.
    fn needs_difficulty(&self) -> bool;

    /// The action, of the turn alone: a resumed run asks again and needs the same answer.
    fn action(&self, turn: Turn) -> Action;

    /// Whether it is the same rule with the same settings.
    fn equals(&self, other: &dyn PathRule) -> bool;
}

/// A [`PathRule`], shared by those who follow it.
#[derive(Clone, Debug)]
pub struct CustomTeacher(Arc<dyn PathRule>);

impl CustomTeacher {
    /// A teacher that follows a rule.
    pub fn new(rule: impl PathRule) -> Self {
        Self(Arc::new(rule))
    }

    /// Its rule.
    pub fn rule(&self) -> &dyn PathRule {
        &*self.0
    }

    /// Its rule, if it is of this type.
    pub fn downcast<R: PathRule>(&self) -> Option<&R> {
        let rule: &dyn Any = &*self.0;
        rule.downcast_ref()
    }

    /// The actions of a step, one for each sequence.
    ///
    /// # Panics
    /// If the rule names a block that the pool does not have.
    pub(super) fn actions(
        &self,
        step: usize,
        pool: PoolSize,
        rows: &[SequenceInfo],
        draws: Draws,
    ) -> Vec<Action> {
        let action = |&sequence: &SequenceInfo| {
            let turn = Turn {
                sequence,
                step,
                pool,
                draws,
            };
            let action = self.0.action(turn);
            let (kind, n_pool) = (self.0.kind(), pool.n_pool);
            let known = action.index(n_pool) < n_pool || action == Action::Out;
            assert!(
                known,
                "the teacher {kind} names {action:?} of a pool of {n_pool} at step {step}"
            );
            action
        };
        rows.iter().map(action).collect()
    }
}

impl PartialEq for CustomTeacher {
    fn eq(&self, other: &Self) -> bool {
        self.0.equals(other.rule())
    }
}

impl Eq for CustomTeacher {}

#[cfg(test)]
mod tests {
    use super::super::policy::Teacher;
    use super::*;

    /// From a drawn block on, so many blocks further at every step; sequences of difficulty 0 leave at the second step.
    #[derive(Debug, PartialEq)]
    struct Stride(usize);

    impl PathRule for Stride {
        fn kind(&self) -> &'static str {
            "stride"
        }

        fn needs_difficulty(&self) -> bool {
            true
        }

        fn action(&self, turn: Turn) -> Action {
            if turn.sequence.difficulty == Some(0) && turn.step > 0 {
                return Action::Out;
            }
            let n_pool = turn.pool.n_pool;
            Action::Block((turn.draw(n_pool, 0) + turn.step * self.0) % n_pool)
        }

        fn equals(&self, other: &dyn PathRule) -> bool {
            let other: &dyn Any = other;
            other.downcast_ref() == Some(self)
        }
    }

    fn rows(n: u64) -> Vec<SequenceInfo> {
        let row = |sequence| SequenceInfo {
            sequence,
            difficulty: Some((sequence % 2) as u8),
        };
        (0..n).map(row).collect()
    }

    fn stride(blocks: usize) -> Teacher {
        Teacher::Custom(CustomTeacher::new(Stride(blocks)))
    }

    #[test]
    fn a_rule_of_a_program_is_asked_for_every_sequence_and_step_with_draws_of_their_own() {
        let targets = |rows: &[SequenceInfo], draws| stride(2).targets(5, 3, rows, draws);
        let draws = Draws::new(1, 4);
        let all = targets(&rows(40), draws);
        assert_eq!(all.len(), 3);
        let mut starts = std::collections::BTreeSet::new();
        for row in 0..40 {
            let path: Vec<Action> = all.iter().map(|step| step[row]).collect();
            let start = path[0].block().unwrap();
            starts.insert(start);
            let expected = match row % 2 {
                0 => [Action::Block(start), Action::Out, Action::Out],
                _ => [0, 2, 4].map(|far| Action::Block((start + far) % 5)),
            };
            assert_eq!(path, expected, "sequence {row}");
        }
        assert_eq!(starts.len(), 5, "every block begins somewhere");
        // The same in another batch and in another sitting, another one at another step of the training.
        let alone = targets(&rows(40)[7..8], draws);
        assert!((0..3).all(|step| alone[step][0] == all[step][7]));
        assert_eq!(targets(&rows(40), Draws::new(1, 4)), all);
        assert_ne!(targets(&rows(40), Draws::new(1, 5)), all);
    }

    #[test]
    fn rules_are_equal_where_their_settings_are() {
        assert_eq!(stride(2), stride(2).clone());
        assert_ne!(stride(2), stride(3));
        assert_ne!(stride(2), Teacher::Sequential);
        assert!(stride(2).needs_difficulty() && !Teacher::Sequential.needs_difficulty());
        assert_eq!(stride(2).kind(), "stride");
    }

    #[test]
    #[should_panic(expected = "the teacher beyond names Block(2) of a pool of 2 at step 0")]
    fn a_block_that_the_pool_does_not_have_is_named_with_who_names_it() {
        #[derive(Debug)]
        struct Beyond;

        impl PathRule for Beyond {
            fn kind(&self) -> &'static str {
                "beyond"
            }

            fn needs_difficulty(&self) -> bool {
                false
            }

            fn action(&self, turn: Turn) -> Action {
                Action::Block(turn.pool.n_pool)
            }

            fn equals(&self, _: &dyn PathRule) -> bool {
                true
            }
        }

        let teacher = Teacher::Custom(CustomTeacher::new(Beyond));
        teacher.targets(2, 1, &rows(1), Draws::new(1, 1));
    }
}
