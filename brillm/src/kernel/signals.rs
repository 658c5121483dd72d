//! The signals of a batch, from which candidates are scored.

use super::trail::Trail;
use crate::candidate::Paths;
use crate::flow::Bias;
use crate::model::BriLlmConfig;
use crate::position::Encoding;

/// The signals of a batch.
pub struct Signals<'a> {
    /// Width of a signal.
    pub d: usize,
    /// Which biases are added to a signal.
    pub bias: Bias,
    /// Whether codes of positions are learnt.
    pub learn_codes: bool,
    seq: usize,
    first_hop: usize,
    trails: &'a [Trail],
    codes: &'a [f32],
}

impl<'a> Signals<'a> {
    pub fn new(
        config: &BriLlmConfig,
        paths: &Paths<'_>,
        trails: &'a [Trail],
        codes: &'a [f32],
    ) -> Self {
        Self {
            d: config.d_node,
            bias: config.flow.bias,
            learn_codes: matches!(config.flow.encoding, Encoding::Learnt { .. }),
            seq: paths.seq,
            first_hop: config.flow.first_hop,
            trails,
            codes,
        }
    }
}

impl Signals<'_> {
    /// The position whose code is added behind a place.
    pub fn position(&self, place: usize) -> usize {
        place % self.seq + self.first_hop
    }

    /// The mix at a place of the paths, `[d]`.
    pub fn mixed(&self, place: usize) -> &[f32] {
        &self.trails[place / self.seq].mixed[place % self.seq * self.d..][..self.d]
    }

    /// The code of the position behind a place, `[d]`.
    pub fn code(&self, place: usize) -> &[f32] {
        &self.codes[self.position(place) * self.d..][..self.d]
    }
}
