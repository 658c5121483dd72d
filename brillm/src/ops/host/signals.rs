//! The signals of a batch, from which candidates are scored.

use super::trail::Trail;
use crate::model::BriLlmConfig;
use crate::position::Encoding;

/// The signals of a batch.
pub struct Signals<'a> {
    /// Sizes and rules of the model.
    pub config: BriLlmConfig,
    /// Places per path.
    pub seq: usize,
    /// The paths.
    pub trails: &'a [Trail],
    /// Codes of all positions, `[positions, d]`.
    pub codes: &'a [f32],
}

impl Signals<'_> {
    /// Whether codes of positions are learnt.
    pub fn learn_codes(&self) -> bool {
        matches!(self.config.flow.encoding, Encoding::Learnt { .. })
    }

    /// The position whose code is added behind a place.
    pub fn position(&self, place: usize) -> usize {
        place % self.seq + self.config.flow.first_hop
    }

    /// The mix at a place of the paths, `[d]`.
    pub fn mixed(&self, place: usize) -> &[f32] {
        let d = self.config.d_node;
        &self.trails[place / self.seq].mixed[place % self.seq * d..][..d]
    }

    /// The code of the position behind a place, `[d]`.
    pub fn code(&self, place: usize) -> &[f32] {
        let d = self.config.d_node;
        &self.codes[self.position(place) * d..][..d]
    }
}
