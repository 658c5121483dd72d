//! The published configurations by name, each a choice of the same switches (specification §3, §21.1).

use crate::flow::{First, FlowConfig, Hop, Mix};
use crate::position::Encoding;

/// The width of the releases.
pub const D_NODE: usize = 32;

/// The way of a signal in the released code, with a count file (`ref-sparse`) or without (`ref-dense`).
pub const REFERENCE: FlowConfig = FlowConfig {
    first: First::NodeBias,
    hop: Hop::Mixed,
    mix: Mix::Absolute { max_length: 512 },
    encoding: Encoding::ReferenceMultiply,
    first_hop: 1,
};

/// The way of a signal in the release of March 2025.
pub const DENSE_2025: FlowConfig = FlowConfig {
    first: First::Even,
    first_hop: 0,
    ..REFERENCE
};

/// The way of a signal as the paper writes it.
pub const PAPER: FlowConfig = FlowConfig {
    first: First::Ones,
    hop: Hop::Previous,
    mix: Mix::Absolute { max_length: 512 },
    encoding: Encoding::Standard,
    first_hop: 0,
};

/// Ours: the code's, without its limits.
pub const NATIVE: FlowConfig = FlowConfig {
    first: First::NodeBias,
    hop: Hop::Mixed,
    mix: Mix::Decay { initial: 0.9 },
    encoding: Encoding::Standard,
    first_hop: 1,
};
