//! `MemoryConfig` and its check: no memory, codes of hidden states, keys and values, codes that blocks share, or two of them, with code
//! width, kept slots, adapters, compression, and what exists of a token that has left.

use super::custom::CustomMemory;
use super::window::Window;
use crate::error::{ConfigError, Problems};
use serde::Deserialize;

/// The kinds of memory.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryConfig {
    /// No memory.
    None,
    /// Codes of hidden states.
    HiddenCode(HiddenCodeConfig),
    /// Keys and values of executed blocks.
    KeyValuePrefix(KeyValuePrefixConfig),
    /// Codes to which all blocks of the pool attend.
    SharedCode(SharedCodeConfig),
    /// Codes of hidden states, and a memory to which blocks attend.
    Both(BothConfig),
    /// Codes of a program. As with [`Lifecycle::Frozen`], nothing exists of a token that has left.
    #[serde(skip)]
    Custom(CustomMemory),
}

/// Two memories at once.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct BothConfig {
    /// What is read before every decision.
    pub codes: HiddenCodeConfig,
    /// What blocks attend to.
    pub attended: AttendedConfig,
}

/// A memory to which blocks attend.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttendedConfig {
    /// Keys and values of executed blocks.
    KeyValuePrefix(KeyValuePrefixConfig),
    /// Codes to which all blocks of the pool attend.
    SharedCode(SharedCodeConfig),
}

/// A memory of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct HiddenCodeConfig {
    /// Width of a code.
    pub d_code: usize,
    /// First slots, which stay.
    pub sink: usize,
    /// Last slots of the others.
    pub window: usize,
    /// Whose maps write and read.
    pub adapters: Adapters,
    /// Rank of what every head adds to the maps on its own; 0 adds nothing.
    pub head_rank: usize,
    /// What exists of a token that has left.
    pub lifecycle: Lifecycle,
}

/// A memory of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct KeyValuePrefixConfig {
    /// First slots, which stay.
    pub sink: usize,
    /// Last slots of the others.
    pub window: usize,
    /// What each block adds to the scores of the memory in the beginning; far below 0 the memory starts silent.
    pub bias: f64,
    /// Whether codes of keys and values are kept in their place.
    pub compression: Compression,
    /// What exists of a token that has left.
    pub lifecycle: Lifecycle,
}

/// Codes that all blocks share.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct SharedCodeConfig {
    /// Width of a code.
    pub d_code: usize,
    /// Which codes blocks attend to.
    pub codes: SharedCodes,
}

/// Which codes blocks attend to.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedCodes {
    /// Those of the states at this step.
    Current,
    /// Those that the block makes of its own input for all tokens, and what every token's last block made of its input.
    CurrentAndLast {
        /// What each block adds to the scores of the latter in the beginning; far below 0 they start silent.
        bias: f64,
    },
}

impl SharedCodes {
    /// What blocks add to the scores of earlier steps in the beginning, if they see any.
    pub fn bias(self) -> Option<f64> {
        match self {
            Self::Current => None,
            Self::CurrentAndLast { bias } => Some(bias),
        }
    }
}

/// Whose maps write and read codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adapters {
    /// One pair for all.
    Shared,
    /// One pair for every action: that of the action a token took last, which is OUT before the first.
    PerBlock,
}

/// What is kept of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Everything.
    None,
    /// Codes, made with maps of the block that writes and undone with maps of the block that reads.
    Code {
        /// Width of the code of a head's key or value.
        d_code: usize,
    },
}

/// What exists of a token that has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// It neither reads nor writes nor moves again, and every step makes a slot: no token can tell how long others walk.
    Frozen,
    /// As in the reference: who has left is read for and written too, and keys and values get a slot only if somebody in
    /// the batch executed a block. With a hard exit this depends on later tokens and on the rest of the batch.
    Reference,
}

impl MemoryConfig {
    /// The kinds that come with this crate.
    pub const BUILT_IN: [&str; 5] = [
        "none",
        "hidden_code",
        "key_value_prefix",
        "shared_code",
        "both",
    ];

    /// The codes of hidden states, if there are any that come with this crate.
    pub fn codes(&self) -> Option<HiddenCodeConfig> {
        match self {
            Self::HiddenCode(codes) | Self::Both(BothConfig { codes, .. }) => Some(*codes),
            _ => None,
        }
    }

    /// What blocks attend to, if there is such a memory.
    pub fn attended(&self) -> Option<AttendedConfig> {
        match self {
            Self::KeyValuePrefix(config) => Some(AttendedConfig::KeyValuePrefix(*config)),
            Self::SharedCode(config) => Some(AttendedConfig::SharedCode(*config)),
            Self::Both(BothConfig { attended, .. }) => Some(*attended),
            Self::None | Self::HiddenCode(_) | Self::Custom(_) => None,
        }
    }

    /// The tables in which the codes and what blocks attend to stand.
    pub fn tables(&self) -> [&'static str; 2] {
        match self {
            Self::Both(_) => ["memory.codes", "memory.attended"],
            _ => ["memory"; 2],
        }
    }

    /// All fields with values that no memory can be built from.
    pub(crate) fn check(&self) -> Vec<ConfigError> {
        let mut problems = Problems::default();
        let [codes, attended] = self.tables();
        if let Some(config) = self.codes() {
            problems.at_least_1(&format!("{codes}.d_code"), config.d_code);
            config.retention().check(codes, &mut problems);
        }
        match self.attended() {
            Some(AttendedConfig::KeyValuePrefix(config)) => config.check(attended, &mut problems),
            Some(AttendedConfig::SharedCode(config)) => config.check(attended, &mut problems),
            None => {}
        }
        match self {
            Self::Custom(memory) => memory.rule().retention().check("memory", &mut problems),
            Self::Both(both) => both.check(&mut problems),
            _ => {}
        }
        problems.0
    }
}

impl BothConfig {
    fn check(&self, problems: &mut Problems) {
        let (expected, fits) = match self.attended {
            AttendedConfig::KeyValuePrefix(config) => (
                "that of memory.codes",
                config.lifecycle == self.codes.lifecycle,
            ),
            AttendedConfig::SharedCode(_) => (
                "frozen with codes that blocks share",
                self.codes.lifecycle == Lifecycle::Frozen,
            ),
        };
        let field = match self.attended {
            AttendedConfig::KeyValuePrefix(_) => "memory.attended.lifecycle",
            AttendedConfig::SharedCode(_) => "memory.codes.lifecycle",
        };
        let found = match self.codes.lifecycle {
            Lifecycle::Frozen => "reference",
            Lifecycle::Reference if field.starts_with("memory.codes") => "reference",
            Lifecycle::Reference => "frozen",
        };
        problems.require(fits, field, found, expected);
        // Codes of states would have to be made before the read or after it, and the reference does neither at every step.
        let of_states = matches!(
            self.attended,
            AttendedConfig::SharedCode(config) if config.codes == SharedCodes::Current
        );
        let expected = "current_and_last beside codes that change states between steps";
        problems.require(!of_states, "memory.attended.codes", "current", expected);
    }
}

impl AttendedConfig {
    /// Whether what a token sees of it follows from its own walk and those of earlier tokens.
    pub(crate) fn is_frozen(&self) -> bool {
        match self {
            Self::KeyValuePrefix(config) => config.lifecycle == Lifecycle::Frozen,
            Self::SharedCode(_) => true,
        }
    }
}

impl SharedCodeConfig {
    fn check(&self, table: &str, problems: &mut Problems) {
        problems.at_least_1(&format!("{table}.d_code"), self.d_code);
        let bias = self.codes.bias().unwrap_or(0.0);
        let field = format!("{table}.codes.bias");
        problems.require(bias.is_finite(), &field, bias, "a number");
    }
}

impl HiddenCodeConfig {
    /// Which slots are kept.
    pub fn retention(&self) -> Window {
        Window {
            sink: self.sink,
            window: self.window,
        }
    }
}

impl KeyValuePrefixConfig {
    fn check(&self, table: &str, problems: &mut Problems) {
        if let Compression::Code { d_code } = self.compression {
            problems.at_least_1(&format!("{table}.compression.d_code"), d_code);
        }
        let field = format!("{table}.bias");
        problems.require(self.bias.is_finite(), &field, self.bias, "a number");
        self.retention().check(table, problems);
    }

    /// Which slots are kept.
    pub fn retention(&self) -> Window {
        Window {
            sink: self.sink,
            window: self.window,
        }
    }
}
