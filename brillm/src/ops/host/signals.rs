//! `Signals`: the forward paths of a batch and the codes of positions; gives the mix and the code at a place, for scoring.

use super::numeric::vectorised;
use super::trail::Trail;
use super::walked::Walked;
use crate::candidate::Paths;
use crate::model::{BriLlm, BriLlmConfig};
use crate::position::Encoding;
use crate::shard::Message;
use rayon::prelude::*;

/// The signals of a batch.
pub struct Signals {
    /// Sizes and rules of the model.
    pub config: BriLlmConfig,
    /// The rows along the paths.
    pub walked: Walked,
    /// The paths.
    pub trails: Vec<Trail>,
    /// Codes of all positions, `[positions, d]`.
    codes: Vec<f32>,
    seq: usize,
}

impl Signals {
    /// Those along the true paths. Where a table lies in shards, each process walks its sequences, and tells the others of them.
    pub fn of(model: &BriLlm, paths: &Paths<'_>) -> Self {
        let codes = model.codes(paths.seq + model.config.flow.first_hop);
        let walked = Walked::of(model, paths);
        let walk = |row| vectorised!(Trail::walk(model, &walked, &codes, paths, row));
        let trails = match model.graph.shard() {
            None => (0..paths.batch()).into_par_iter().map(walk).collect(),
            Some(shard) => {
                let sequences = (0..paths.batch()).into_par_iter();
                let trails: Vec<Option<Trail>> = sequences
                    .map(|row| shard.walks(row).then(|| walk(row)))
                    .collect();
                let hop = model.config.flow.hop;
                let mut own = Message::default();
                trails
                    .iter()
                    .flatten()
                    .for_each(|trail| trail.tell(hop, &mut own));
                let mut said = shard.gather(own);
                let told = |(row, trail): (usize, Option<Trail>)| {
                    trail.unwrap_or_else(|| {
                        let rows = rows_of(model, paths, row);
                        Trail::told(rows, hop, &mut said[shard.walker(row)])
                    })
                };
                trails.into_iter().enumerate().map(told).collect()
            }
        };
        Self {
            config: model.config,
            walked,
            trails,
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

/// The row of every edge of a sequence.
fn rows_of(model: &BriLlm, paths: &Paths<'_>, sequence: usize) -> Vec<usize> {
    let begin = sequence * paths.seq;
    let places = begin..begin + paths.length(sequence);
    let row = |place: usize| model.graph.row(paths.sources[place], paths.targets[place]);
    places.map(row).collect()
}
