//! The published configurations by name, each a choice of the same switches (`docs/brillm.md`, section 3).
//!
//! | discrepancy | switch | D |
//! |---|---|---|
//! | what goes along an edge | [`Hop`] | D1 |
//! | the first signal | [`First`] | D2, D3 |
//! | biases of edges and of nodes | [`Bias`] | D3, D4 |
//! | codes of positions | [`Encoding`], `first_hop` | D5, D6 |
//! | positions, self-transitions and temperature in decoding | [`Decoding`] | D7, D17, D18 |
//! | rows that pairs share | [`BackOff`], [`BackOffRows`] | D10 |
//! | which targets compete in training | [`Candidates`] | D11 |
//! | how the past is mixed, and how far back | [`Mix`] | D12 |
//! | whether the last edge of a path is trained | [`LastEdge`] | D14 |
//! | what AdamW does to rows that a step did not use | [`Mode`] | D16 |

use crate::candidate::{Candidates, LastEdge};
use crate::flow::{Bias, First, FlowConfig, Hop, Mix};
use crate::generate::Decoding;
use crate::graph::BackOff;
use crate::model::BackOffRows;
use crate::position::Encoding;
use crate::row_adamw::Mode;

/// The width of the releases.
pub const D_NODE: usize = 32;

/// Everything in which the published descriptions and programs differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// The signal flow.
    pub flow: FlowConfig,
    /// What pairs without an edge use; `None` where every pair has an edge.
    pub back_off: Option<BackOff>,
    /// Whether what they use is trained.
    pub back_off_rows: BackOffRows,
    /// Which targets compete in training.
    pub candidates: Candidates,
    /// Whether the last edge of a path is trained.
    pub last_edge: LastEdge,
    /// What happens to rows that a step did not use.
    pub mode: Mode,
    /// Settings of decoding.
    pub decoding: Decoding,
}

/// The signal flow of the released code.
pub const REFERENCE: FlowConfig = FlowConfig {
    first: First::NodeBias,
    hop: Hop::Mixed,
    mix: Mix::Absolute { max_length: 512 },
    encoding: Encoding::ReferenceMultiply,
    first_hop: 1,
    bias: Bias::Edge,
};

/// The signal flow of the release of March 2025.
pub const DENSE_2025: FlowConfig = FlowConfig {
    first: First::Even,
    first_hop: 0,
    ..REFERENCE
};

/// The signal flow of the paper's equations. Its text gives biases to nodes instead of edges: `Bias::Node`.
pub const PAPER: FlowConfig = FlowConfig {
    first: First::Ones,
    hop: Hop::Previous,
    encoding: Encoding::Standard,
    first_hop: 0,
    ..REFERENCE
};

/// Our own signal flow: that of the code, without its limits.
pub const NATIVE: FlowConfig = FlowConfig {
    mix: Mix::Decay { initial: 0.9 },
    encoding: Encoding::Standard,
    ..REFERENCE
};

/// Mode `ref-sparse`: the released code with a count file.
pub const REF_SPARSE: Published = Published {
    flow: REFERENCE,
    back_off: Some(BackOff::SharedRow),
    back_off_rows: BackOffRows::Trained,
    candidates: Candidates::Frequent { n: 400 },
    last_edge: LastEdge::Left,
    mode: Mode::Exact,
    decoding: Decoding::REFERENCE,
};

/// Mode `ref-dense`: the released code without a count file. Frequencies are unknown then, and all targets compete.
pub const REF_DENSE: Published = Published {
    back_off: None,
    candidates: Candidates::All,
    ..REF_SPARSE
};

/// Mode `dense-2025`: the release of March 2025.
pub const DENSE_2025_RELEASE: Published = Published {
    flow: DENSE_2025,
    decoding: Decoding::DENSE_2025,
    ..REF_DENSE
};

/// Mode `paper`: all pairs that were seen have an edge, the rest share one that is never updated, and all targets compete.
pub const PAPER_MODE: Published = Published {
    flow: PAPER,
    back_off_rows: BackOffRows::Frozen,
    candidates: Candidates::All,
    last_edge: LastEdge::Trained,
    decoding: Decoding::NATIVE,
    ..REF_SPARSE
};

/// Mode `native`: our own.
pub const NATIVE_MODE: Published = Published {
    flow: NATIVE,
    back_off: Some(BackOff::Classes { n_classes: 64 }),
    back_off_rows: BackOffRows::Trained,
    mode: Mode::Touched,
    ..PAPER_MODE
};
