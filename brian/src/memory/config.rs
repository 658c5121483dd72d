//! `MemoryConfig` and its check: no memory, codes of hidden states, or keys and values, with code width, kept slots, adapters,
//! compression, and what exists of a token that has left.

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
    /// Codes of a program. As with [`Lifecycle::Frozen`], nothing exists of a token that has left.
    #[serde(skip)]
    Custom(CustomMemory),
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
    pub const BUILT_IN: [&str; 4] = ["none", "hidden_code", "key_value_prefix", "shared_code"];

    /// All fields with values that no memory can be built from.
    pub(crate) fn check(&self) -> Vec<ConfigError> {
        let mut problems = Problems::default();
        if let Self::SharedCode(config) = self {
            problems.at_least_1("memory.d_code", config.d_code);
            let bias = config.codes.bias().unwrap_or(0.0);
            problems.require(bias.is_finite(), "memory.codes.bias", bias, "a number");
        }
        let Some(window) = self.retention() else {
            return problems.0;
        };
        match self {
            Self::HiddenCode(config) => problems.at_least_1("memory.d_code", config.d_code),
            Self::KeyValuePrefix(config) => {
                if let Compression::Code { d_code } = config.compression {
                    problems.at_least_1("memory.compression.d_code", d_code);
                }
                let bias = config.bias;
                problems.require(bias.is_finite(), "memory.bias", bias, "a number");
            }
            Self::None | Self::SharedCode(_) | Self::Custom(_) => {}
        }
        let keeps = window.sink > 0 || window.window > 0;
        let expected = "at least 1 where memory.sink is 0: a memory that keeps nothing is none";
        problems.require(keeps, "memory.window", 0, expected);
        problems.0
    }

    /// Which slots are kept, if there is a memory that has slots.
    pub fn retention(&self) -> Option<Window> {
        match self {
            Self::None | Self::SharedCode(_) => None,
            Self::HiddenCode(config) => Some(config.retention()),
            Self::KeyValuePrefix(config) => Some(config.retention()),
            Self::Custom(memory) => Some(memory.rule().retention()),
        }
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
    /// Which slots are kept.
    pub fn retention(&self) -> Window {
        Window {
            sink: self.sink,
            window: self.window,
        }
    }
}
