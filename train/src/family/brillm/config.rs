//! `SignalConfig`: the `[model]` section of a recipe for a BriLLM (sizes, edges, candidates, storage, flow, decoding).

use brillm::candidate::{Candidates, LastEdge};
use brillm::flow::FlowConfig;
use brillm::generate::Decoding;
use brillm::graph::BackOff;
use brillm::model::{BackOffRows, BriLlmConfig, Initial};
use brillm::prior::Prior;
use brillm::table::Storage;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A BriLLM, and who competes in its training.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct SignalConfig {
    /// Width of a signal.
    pub d_node: usize,
    /// Which pairs have an edge of their own.
    pub edges: Edges,
    /// The weights with which pairs compete before any signal flows.
    pub prior: Prior,
    /// Who competes in training; evaluation is always over the whole vocabulary.
    pub candidates: Candidates,
    /// Whether the last edge of a path is trained.
    pub last_edge: LastEdge,
    /// How the edge table is stored, and what the optimizer remembers of it.
    pub storage: Storage,
    /// How weights begin.
    pub initial: Initial,
    /// The way of a signal.
    pub flow: FlowConfig,
    /// What is decided otherwise in decoding than in training.
    pub decode: Decoding,
}

/// Which pairs have an edge of their own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edges {
    /// All.
    Full,
    /// Those that a training split holds often enough.
    Counted {
        /// The file of `nerve data bigrams`.
        counts: PathBuf,
        /// How often a pair must have been seen. 0 takes all that the file lists: imported counts may list pairs that own
        /// an edge and were never seen.
        min_count: u32,
        /// What the other pairs use.
        back_off: BackOff,
        /// Whether that is trained.
        back_off_rows: BackOffRows,
    },
}

impl SignalConfig {
    /// Sizes and rules of the model.
    pub fn model(&self) -> BriLlmConfig {
        BriLlmConfig {
            d_node: self.d_node,
            flow: self.flow,
            initial: self.initial,
            back_off_rows: match self.edges {
                Edges::Full => BackOffRows::Trained,
                Edges::Counted { back_off_rows, .. } => back_off_rows,
            },
            storage: self.storage,
            decoding: self.decode,
        }
    }

    /// The file of counts, if one is used.
    pub fn counts(&self) -> Option<&Path> {
        match &self.edges {
            Edges::Full => None,
            Edges::Counted { counts, .. } => Some(counts),
        }
    }
}
