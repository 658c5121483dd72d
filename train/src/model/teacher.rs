//! `CustomTeacher`: the trait of a teacher that a program using this crate adds; a stage of a recipe names it by
//! `policy.teacher`. `TeacherTable` is the table of one, whatever its type. No teacher is defined here.

use crate::recipe::choice::read_choice;
use crate::recipe::reader::Reader;
use crate::recipe::section::Section;
use crate::recipe::table::{AnyConfig, table};
use brian::route::action::Action;
use brian::route::path_rule::{self, PathRule, PoolSize, Turn};
use brian::route::policy::Teacher;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::fmt::{self, Debug};

/// A teacher that recipes can name.
pub trait CustomTeacher: Send + Sync + 'static {
    /// The word in `stage.NAME.policy.teacher`.
    const KIND: &'static str;

    /// Whether it asks how hard a sequence is; a recipe without `data.difficulty` is then refused.
    const NEEDS_DIFFICULTY: bool = false;

    /// The other keys of its table; a type without fields if it has no settings.
    type Config: DeserializeOwned + Clone + PartialEq + Debug + Send + Sync;

    /// Reports every rule that the table breaks, also those that depend on the pool. [`Self::action`] may name a block that the
    /// pool does not have only where this has reported something.
    fn check(_config: &Self::Config, _pool: PoolSize, _section: &Section<'_>) {}

    /// What a sequence does at a step of its walk: a block of the pool, or OUT, behind which further steps count only where OUT
    /// does not end a walk. It depends on nothing but the table and the turn, whose draws are those of the step of the training:
    /// so a resumed run teaches what the run that never stopped does. A walk has at most `turn.pool.max_steps` steps.
    fn action(config: &Self::Config, turn: Turn) -> Action;
}

/// [`CustomTeacher`], whatever its type.
pub struct TeacherEntry {
    /// The word in `policy.teacher`.
    pub kind: &'static str,
    needs_difficulty: bool,
    read: fn(Reader<'_>) -> Option<Box<dyn AnyConfig>>,
    check: fn(&dyn AnyConfig, PoolSize, &Section<'_>),
    action: fn(&dyn AnyConfig, Turn) -> Action,
}

impl TeacherEntry {
    pub(crate) fn of<T: CustomTeacher>() -> Self {
        Self {
            kind: T::KIND,
            needs_difficulty: T::NEEDS_DIFFICULTY,
            read: |reader| Some(Box::new(read_choice::<T::Config>(reader)?)),
            check: |config, pool, section| T::check(table(config), pool, section),
            action: |config, turn| T::action(table(config), turn),
        }
    }

    /// Reads the teacher from its table, or from the bare word, which is a table without further keys. `None` if a type of its
    /// own refused a value.
    pub fn read(&'static self, reader: Reader<'_>) -> Option<Teacher> {
        let config = (self.read)(reader)?;
        let table = TeacherTable {
            entry: self,
            config,
        };
        Some(Teacher::Custom(path_rule::CustomTeacher::new(table)))
    }
}

/// A [`CustomTeacher`] with its table.
pub struct TeacherTable {
    entry: &'static TeacherEntry,
    config: Box<dyn AnyConfig>,
}

impl TeacherTable {
    /// The table of a teacher, if it is one of the program.
    pub fn of(teacher: &Teacher) -> Option<&Self> {
        match teacher {
            Teacher::Custom(own) => own.downcast(),
            _ => None,
        }
    }

    /// Reports every rule that the table breaks.
    pub fn check(&self, pool: PoolSize, section: &Section<'_>) {
        (self.entry.check)(&*self.config, pool, section);
    }
}

impl PathRule for TeacherTable {
    fn kind(&self) -> &'static str {
        self.entry.kind
    }

    fn needs_difficulty(&self) -> bool {
        self.entry.needs_difficulty
    }

    fn action(&self, turn: Turn) -> Action {
        (self.entry.action)(&*self.config, turn)
    }

    fn equals(&self, other: &dyn PathRule) -> bool {
        let other: &dyn Any = other;
        other
            .downcast_ref::<Self>()
            .is_some_and(|other| self.kind() == other.kind() && self.config.equals(&*other.config))
    }
}

impl Debug for TeacherTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple(self.kind()).field(&self.config).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brian::route::draws::Draws;
    use brian::route::policy::SequenceInfo;

    /// One block, then OUT.
    struct Once;

    impl CustomTeacher for Once {
        const KIND: &'static str = "once";
        const NEEDS_DIFFICULTY: bool = true;
        type Config = usize;

        fn action(block: &usize, turn: Turn) -> Action {
            match turn.step {
                0 => Action::Block(*block),
                _ => Action::Out,
            }
        }
    }

    #[test]
    fn a_teacher_of_a_program_is_a_teacher_like_others_and_another_one_with_other_settings() {
        let entry: &'static TeacherEntry = Box::leak(Box::new(TeacherEntry::of::<Once>()));
        let once = |block: usize| {
            let config = Box::new(block);
            Teacher::Custom(path_rule::CustomTeacher::new(TeacherTable {
                entry,
                config,
            }))
        };
        assert_eq!(once(1), once(1));
        assert_ne!(once(1), once(0));
        assert_eq!(format!("{:?}", once(1)), "Custom(CustomTeacher(once(1)))");
        assert!(once(1).kind() == "once" && once(1).needs_difficulty());
        assert!(TeacherTable::of(&once(1)).is_some());
        assert!(TeacherTable::of(&Teacher::Sequential).is_none());
        let rows = [SequenceInfo::default(); 2];
        let targets = once(1).targets(3, 2, &rows, Draws::new(1, 1));
        assert_eq!(targets, [[Action::Block(1); 2], [Action::Out; 2]]);
    }
}
