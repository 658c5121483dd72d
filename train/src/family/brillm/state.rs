//! `BriLlmState`: a graph, its optimizer and who competes, which the clones of a [`BriLlmTask`](super::BriLlmTask) share.

use super::shards::SharedOut;
use brillm::BriLlm;
use brillm::candidate::{Competition, LastEdge};
use brillm::counts::PairCounts;
use brillm::training::RowAdamW;
use std::fmt;
use std::sync::Arc;

/// A BriLLM, its optimizer, and what competes in training.
pub struct BriLlmState {
    /// The model.
    pub model: BriLlm,
    /// What AdamW remembers.
    pub optimizer: RowAdamW,
    /// Who competes in training.
    pub training: Competition,
    /// Everybody, with the same weights.
    pub evaluation: Competition,
    /// What the graph was made from.
    pub counts: Option<Arc<PairCounts>>,
    /// Decides the draws of candidates.
    pub seed: u64,
    /// Whether the last edge of a path is trained.
    pub last_edge: LastEdge,
    /// Whether passes run in place on the host.
    pub on_host: bool,
    /// The ranks that hold the table together, if not all of it lies here.
    pub shared_out: Option<Arc<SharedOut>>,
}

// The module's display prints it: no table of numbers, please.
impl fmt::Debug for BriLlmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BriLlm { config, graph, .. } = &self.model;
        write!(
            f,
            "{} nodes, {} edges, d = {}",
            graph.nodes(),
            graph.edges(),
            config.d_node
        )
    }
}
