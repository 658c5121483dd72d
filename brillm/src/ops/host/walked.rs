//! `Walked`: the rows of the edge table along the paths that this process walks, brought here where they lie in others.

use crate::candidate::Paths;
use crate::model::{BriLlm, Parameters};
use crate::shard::Shard;
use std::collections::BTreeSet;

/// Rows of the edge table by their numbers.
pub enum Walked {
    /// Those of a table all of which lies here.
    Here,
    /// Those that are walked, rising, with their values one behind the other.
    Brought { rows: Vec<usize>, values: Vec<f32> },
}

impl Walked {
    /// The rows of the paths. Of a table in shards every process brings its own to those who walk over them: all call it together.
    pub fn of(model: &BriLlm, paths: &Paths<'_>) -> Self {
        let Some(shard) = model.graph.shard() else {
            return Self::Here;
        };
        let d = model.config.d_node;
        let row_len = model.config.row_len();
        let wanted: Vec<BTreeSet<(usize, u32)>> = (0..shard.size())
            .map(|rank| rows_for(model, shard, paths, rank))
            .collect();
        let own = wanted.iter().map(|wanted| {
            let here = wanted.iter().filter(|(_, source)| shard.is_here(*source));
            let values = here.flat_map(|&(row, source)| {
                let place = model.graph.place(source, row);
                model.parameters.edge(place, d).into_owned()
            });
            bytemuck::cast_slice(&values.collect::<Vec<f32>>()).to_vec()
        });
        let wanted = &wanted[shard.rank()];
        let of_rank = |rank: usize| {
            let from = wanted
                .iter()
                .filter(|(_, source)| shard.owner(*source) == rank);
            from.count() * row_len * size_of::<f32>()
        };
        let lengths: Vec<usize> = (0..shard.size()).map(of_rank).collect();
        let brought = shard.exchange(&own.collect::<Vec<_>>(), &lengths);
        let mut brought: Vec<_> = brought
            .iter()
            .map(|bytes| bytes.chunks_exact(row_len * size_of::<f32>()))
            .collect();
        let mut values = Vec::with_capacity(wanted.len() * row_len);
        for &(_, source) in wanted {
            let row = brought[shard.owner(source)].next();
            let row = row
                .expect("a row of its source")
                .chunks_exact(size_of::<f32>());
            values.extend(row.map(bytemuck::pod_read_unaligned::<f32>));
        }
        Self::Brought {
            rows: wanted.iter().map(|&(row, _)| row).collect(),
            values,
        }
    }

    /// A row, `[d + 1, d]`, widened into `scratch` where it is not f32.
    #[inline(always)]
    pub fn load<'a>(
        &'a self,
        parameters: &'a Parameters,
        row: usize,
        d: usize,
        scratch: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        match self {
            Self::Here => parameters.load_edge(row, d, scratch),
            Self::Brought { rows, values } => {
                let place = rows.binary_search(&row);
                let place = place.expect("every row that is walked was brought");
                &values[place * d * (d + 1)..][..d * (d + 1)]
            }
        }
    }
}

/// The rows that a process walks over, rising, each with a source that uses it: a back-off row comes from the process of the lowest.
fn rows_for(
    model: &BriLlm,
    shard: &Shard,
    paths: &Paths<'_>,
    rank: usize,
) -> BTreeSet<(usize, u32)> {
    let mut rows = BTreeSet::new();
    let sequences = (0..paths.batch()).filter(|&row| shard.walker(row) == rank);
    for row in sequences {
        let begin = row * paths.seq;
        for place in begin..begin + paths.length(row) {
            let (source, target) = (paths.sources[place], paths.targets[place]);
            rows.insert((model.graph.row(source, target), source));
        }
    }
    let mut last = None;
    rows.retain(|&(row, _)| last.replace(row) != Some(row));
    rows
}
