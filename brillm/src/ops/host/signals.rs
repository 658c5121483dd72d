//! `Signals`: the forward paths of a batch and the codes of positions; gives the mix and the code at a place, for scoring.

use super::numeric::vectorised;
use super::trail::Trail;
use crate::candidate::Paths;
use crate::model::{BriLlm, BriLlmConfig};
use crate::position::Encoding;
use rayon::prelude::*;

/// The signals of a batch.
pub struct Signals {
    /// Sizes and rules of the model.
    pub config: BriLlmConfig,
    /// The paths.
    pub trails: Vec<Trail>,
    /// Codes of all positions, `[positions, d]`.
    codes: Vec<f32>,
    seq: usize,
}

impl Signals {
    /// Those along the true paths.
    pub fn of(model: &BriLlm, paths: &Paths<'_>) -> Self {
        let codes = model.codes(paths.seq + model.config.flow.first_hop);
        let walk = |row| vectorised!(Trail::walk(model, &codes, paths, row));
        Self {
            config: model.config,
            trails: (0..paths.batch()).into_par_iter().map(walk).collect(),
            codes,
            seq: paths.seq,
        }
    }

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
