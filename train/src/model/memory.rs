//! `CustomMemory`: the trait of a memory of codes that a program using this crate adds, named by `model.memory` of a recipe;
//! `MemoryEntry`: its registry entry; `MemoryTable`: the table of one, whatever its type. No memory is defined here.

use crate::device::{self, ForBackend};
use crate::recipe::choice::read_choice;
use crate::recipe::reader::Reader;
use crate::recipe::section::Section;
use crate::recipe::table::{AnyConfig, table};
use brian::memory::MemoryConfig;
use brian::memory::custom::{self, Asked, CodeFlops, CodeMap, CodeRule, Found};
use brian::memory::window::Window;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use serde::de::DeserializeOwned;
use std::any::{Any, TypeId};
use std::fmt::{self, Debug};

/// A memory that recipes can name, of models with a pool: every token writes a code before its walk and after every step of it, and
/// reads codes before every step and behind the exit. Slots are steps of the walk. Which are there, and who may see them, is known
/// already; a memory says what a code is and what is read.
pub trait CustomMemory: Send + Sync + 'static {
    /// The word in `model.memory`.
    const KIND: &'static str;

    /// The other keys of its table; a type without fields if it has no settings.
    type Config: DeserializeOwned + Clone + PartialEq + Debug + Send + Sync;

    /// Reports every rule that the table breaks, for a model of this width. What is below is asked for nothing but
    /// [`Self::retention`] where this has reported something.
    fn check(_config: &Self::Config, _d_model: usize, _section: &Section<'_>) {}

    /// Which slots are kept: the keys `sink` and `window` of its table, if it has them.
    fn retention(config: &Self::Config) -> Window;

    /// Its maps, none without rows or columns; checkpoints know them by their number, and weight decay takes all, as it takes
    /// matrices. What reads should start nearly silent, so that a model begins as it would without a memory.
    fn maps(config: &Self::Config, d_model: usize) -> Vec<CodeMap>;

    /// Codes of hidden states; each depends on the state of its token alone.
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to `[batch, seq, d_code]`
    fn write<B: Backend>(
        config: &Self::Config,
        maps: &[Tensor<B, 2>],
        hidden: Tensor<B, 3>,
    ) -> Tensor<B, 3>;

    /// What tokens find in codes; each depends on the state of its token and on the codes that `mask` leaves to it: it is added to
    /// scores, 0 or far below it. Every token sees a code.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, seq, d_model]`
    /// - `codes`: `[batch, n_codes, d_code]`
    /// - `mask`: `[batch or 1, seq, n_codes]`
    fn read<B: Backend>(
        config: &Self::Config,
        maps: &[Tensor<B, 2>],
        hidden: Tensor<B, 3>,
        codes: Tensor<B, 3>,
        mask: Tensor<B, 3>,
    ) -> Found<B>;

    /// What it costs: two for every product of two numbers.
    fn flops(config: &Self::Config, d_model: usize) -> CodeFlops;
}

/// [`CustomMemory`], whatever its type.
pub struct MemoryEntry {
    /// The word in `model.memory`.
    pub kind: &'static str,
    read: fn(Reader<'_>) -> Option<Box<dyn AnyConfig>>,
    check: fn(&dyn AnyConfig, usize, &Section<'_>),
    retention: fn(&dyn AnyConfig) -> Window,
    maps: fn(&dyn AnyConfig, usize) -> Vec<CodeMap>,
    answer: Answer,
    flops: fn(&dyn AnyConfig, usize) -> CodeFlops,
}

/// Of a table, a question, and the id of its backend.
type Answer = fn(&dyn AnyConfig, Box<dyn Any>, TypeId) -> Box<dyn Any>;

impl MemoryEntry {
    pub(crate) fn of<M: CustomMemory>() -> Self {
        Self {
            kind: M::KIND,
            read: |reader| Some(Box::new(read_choice::<M::Config>(reader)?)),
            check: |config, d_model, section| M::check(table(config), d_model, section),
            retention: |config| M::retention(table(config)),
            maps: |config, d_model| M::maps(table(config), d_model),
            answer: |config, asked, backend| answer::<M>(table(config), asked, backend),
            flops: |config, d_model| M::flops(table(config), d_model),
        }
    }

    /// Reads the memory from its table, or from the bare word, which is a table without further keys. `None` if a type of its
    /// own refused a value.
    pub fn read(&'static self, reader: Reader<'_>) -> Option<MemoryConfig> {
        let config = (self.read)(reader)?;
        let table = MemoryTable {
            entry: self,
            config,
        };
        Some(MemoryConfig::Custom(custom::CustomMemory::new(table)))
    }
}

/// Answers a question of one of the backends.
fn answer<M: CustomMemory>(
    config: &M::Config,
    asked: Box<dyn Any>,
    backend: TypeId,
) -> Box<dyn Any> {
    struct Of<'a, M: CustomMemory>(&'a M::Config, Box<dyn Any>);

    impl<M: CustomMemory> ForBackend for Of<'_, M> {
        type Output = Box<dyn Any>;

        fn call<B: AutodiffBackend>(self) -> Box<dyn Any> {
            match self.1.downcast::<Asked<B>>() {
                Ok(asked) => on::<B, M>(self.0, *asked),
                Err(asked) => {
                    let asked = asked.downcast().expect("a question of this backend");
                    on::<B::InnerBackend, M>(self.0, *asked)
                }
            }
        }
    }

    fn on<B: Backend, M: CustomMemory>(config: &M::Config, asked: Asked<B>) -> Box<dyn Any> {
        match asked {
            Asked::Write { maps, hidden } => Box::new(M::write(config, &maps, hidden)),
            Asked::Read {
                maps,
                hidden,
                codes,
                mask,
            } => Box::new(M::read(config, &maps, hidden, codes, mask)),
        }
    }

    device::for_backend(backend, Of::<M>(config, asked))
}

/// A [`CustomMemory`] with its table.
pub struct MemoryTable {
    entry: &'static MemoryEntry,
    config: Box<dyn AnyConfig>,
}

impl MemoryTable {
    /// The table of a memory, if it is one of the program.
    pub fn of(memory: &MemoryConfig) -> Option<&'static Self> {
        match memory {
            MemoryConfig::Custom(own) => own.downcast(),
            _ => None,
        }
    }

    /// Reports every rule that the table breaks, in a model of this width.
    pub fn check(&self, d_model: usize, section: &Section<'_>) {
        (self.entry.check)(&*self.config, d_model, section);
    }
}

impl CodeRule for MemoryTable {
    fn kind(&self) -> &'static str {
        self.entry.kind
    }

    fn retention(&self) -> Window {
        (self.entry.retention)(&*self.config)
    }

    fn maps(&self, d_model: usize) -> Vec<CodeMap> {
        (self.entry.maps)(&*self.config, d_model)
    }

    fn answer(&self, asked: Box<dyn Any>, backend: TypeId) -> Box<dyn Any> {
        (self.entry.answer)(&*self.config, asked, backend)
    }

    fn flops(&self, d_model: usize) -> CodeFlops {
        (self.entry.flops)(&*self.config, d_model)
    }

    fn equals(&self, other: &dyn CodeRule) -> bool {
        let other: &dyn Any = other;
        other
            .downcast_ref::<Self>()
            .is_some_and(|other| self.kind() == other.kind() && self.config.equals(&*other.config))
    }
}

impl Debug for MemoryTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple(self.kind()).field(&self.config).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::path::KeyPath;
    use crate::recipe::report::Report;
    use crate::recipe::source::Source;
    use serde::Deserialize;

    /// Codes are hidden states; what is read is nothing.
    struct Silent;

    #[derive(Clone, Debug, PartialEq, Deserialize)]
    struct SilentConfig {
        window: usize,
    }

    impl CustomMemory for Silent {
        const KIND: &'static str = "silent";
        type Config = SilentConfig;

        fn retention(config: &SilentConfig) -> Window {
            Window {
                sink: 0,
                window: config.window,
            }
        }

        fn maps(_: &SilentConfig, _: usize) -> Vec<CodeMap> {
            Vec::new()
        }

        fn write<B: Backend>(
            _: &SilentConfig,
            _: &[Tensor<B, 2>],
            hidden: Tensor<B, 3>,
        ) -> Tensor<B, 3> {
            hidden
        }

        fn read<B: Backend>(
            _: &SilentConfig,
            _: &[Tensor<B, 2>],
            hidden: Tensor<B, 3>,
            _: Tensor<B, 3>,
            mask: Tensor<B, 3>,
        ) -> Found<B> {
            let open = Tensor::zeros([1], &hidden.device());
            let (change, attention) = (hidden.zeros_like(), mask.zeros_like());
            Found {
                change,
                attention,
                open,
            }
        }

        fn flops(_: &SilentConfig, _: usize) -> CodeFlops {
            CodeFlops {
                write: 0,
                read: 0,
                per_code: 0,
            }
        }
    }

    /// What serde reads first, what the program reads then, and what is reported.
    fn read(memory: &str) -> (MemoryConfig, Option<MemoryConfig>, Vec<String>) {
        let entry: &'static MemoryEntry = Box::leak(Box::new(MemoryEntry::of::<Silent>()));
        let source = Source::parse("r.toml", format!("memory = {memory}\n")).unwrap();
        let report = Report::new(&source);
        let path = KeyPath::default().key("memory");
        report.register(&path, vec![entry.kind]);
        let reader = |path: KeyPath| Reader {
            report: &report,
            node: source.locate(&path).node,
            path,
        };
        let first = reader(path.clone()).read().unwrap();
        let own = report.chosen(&path).map(|_| entry.read(reader(path)));
        let problems = report.into_problems();
        let problems = problems.iter().map(ToString::to_string).collect();
        (first, own.map(Option::unwrap), problems)
    }

    #[test]
    fn a_memory_of_a_program_is_a_choice_like_others_and_another_one_with_other_settings() {
        let (first, silent, problems) = read("{ kind = \"silent\", window = 2 }");
        assert_eq!((first, problems), (MemoryConfig::None, vec![]));
        let silent = silent.unwrap();
        let again = read("{ kind = \"silent\", window = 2 }").1.unwrap();
        let other = read("{ kind = \"silent\", window = 3 }").1.unwrap();
        assert!(silent == again && silent != other && silent != MemoryConfig::None);
        let table = MemoryTable::of(&silent).unwrap();
        assert_eq!(table.retention().window, 2);
        let shown = "Custom(CustomMemory(silent(SilentConfig { window: 2 })))";
        assert_eq!(format!("{silent:?}"), shown);
        assert!(MemoryTable::of(&silent).is_some() && MemoryTable::of(&first).is_none());
        // Those that come with the models stay serde's.
        for kind in MemoryConfig::BUILT_IN {
            assert!(read(&format!("{kind:?}")).1.is_none(), "{kind}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_memory_of_a_program_is_said_in_one_line_and_lists_it() {
        let all = "expected one of \"none\", \"hidden_code\", \"key_value_prefix\", \"shared_code\", \
                   \"both\", \"silent\"";
        let cases = [
            ("\"loud\"", format!("memory: found string \"loud\", {all}")),
            (
                "{ kind = \"loud\" }",
                format!("kind: found string \"loud\", {all}"),
            ),
            ("{ window = 2 }", format!("kind: found no such key, {all}")),
            ("7", format!("memory: found integer 7, {all}")),
            (
                "{ kind = \"silents\", window = 2 }",
                format!("kind: found string \"silents\", {all}; did you mean \"silent\"?"),
            ),
            (
                "\"silent\"",
                "window: found no such key, expected a whole number".to_string(),
            ),
            (
                "{ kind = \"silent\", window = 2, sink = 1 }",
                "memory.sink: found an unknown key, expected one of the keys window".to_string(),
            ),
        ];
        for (memory, expected) in cases {
            let (_, _, problems) = read(memory);
            assert!(
                problems.len() == 1 && problems[0].ends_with(&expected),
                "{problems:?}"
            );
        }
    }
}
