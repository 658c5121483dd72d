//! Detects which BriLLM release a PyTorch checkpoint is, compares its tensors and reads them into those of [`brillm`].
//!
//! | release | tensors |
//! |---|---|
//! | one row per pair | `positions (1, n, 1)`, `weights (rows, d, d)`, `biases (rows, 1, d)`, `node_bias (nodes, 1, d)` |
//! | March 2025 | `positions`, and for every source `network.{s} (nodes, d, d)` and `bias.{s} (nodes, 1, d)`, in several files |
//!
//! Matrices are `[in, out]` in both, as here: nothing is transposed. A row of our table is a matrix with its bias below.
//! In the release of March 2025 the pair `(s, t)` owns row `1 + s·nodes + t`; no pair uses row 0, and there are no biases
//! of nodes.

use super::checkpoint::Checkpoint;
use super::fit::{self, Fit, Target, Wanted, What};
use super::json::shown;
use super::source::in_tensor;
use crate::error::{Error, Problem};
use crate::run::{HostTensor, TensorMap, Values};
use brillm::table::{Storage, Table};
use std::collections::BTreeMap;
use std::io;

/// Which release a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// One row per pair that was seen, or per pair.
    Rows(usize),
    /// A tensor per source: March 2025.
    Sources,
}

/// The sizes of our model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Number of nodes, one per token.
    pub nodes: usize,
    /// Rows of the edge table.
    pub rows: usize,
    /// Width of a signal.
    pub d: usize,
    /// Parameters of the mix.
    pub mix: usize,
    /// How the edge table is stored; released weights are f32, and rounded if this type is smaller.
    pub storage: Storage,
}

impl Sizes {
    /// Bytes that the weights take.
    pub fn bytes(self) -> u64 {
        let table = self.rows as u64 * (self.d as u64 + 1) * self.d as u64;
        self.storage.bytes() * table + 4 * (self.nodes * self.d + self.mix) as u64
    }
}

/// The tensor that only a graph of ours has: the whole edge table.
pub const OUR_TABLE: &str = "edges";

impl Checkpoint {
    /// Whether it is a graph of our own, not a release.
    pub fn is_our_graph(&self) -> bool {
        self.tensors().contains_key(OUR_TABLE)
    }

    /// Detects the release by the names of its tensors.
    ///
    /// # Errors
    /// `Invalid` if the names are those of no release.
    pub fn release(&self) -> Result<Release, Error> {
        if let Some(weights) = self.tensors().get("weights") {
            let rows = weights.stored.shape.first().copied();
            return Ok(Release::Rows(rows.unwrap_or(0)));
        }
        if self.tensors().contains_key("network.0") {
            return Ok(Release::Sources);
        }
        let names = self.tensors().keys().take(4);
        let names: Vec<String> = names.map(|name| shown(name)).collect();
        let found = match names.len() {
            0 => "no tensors of floating-point numbers".to_string(),
            _ => format!("tensors {} and others", names.join(", ")),
        };
        let expected =
            "positions, weights, biases and node_bias, or positions, network.0 and bias.0";
        let problem = Problem::new(self.path(), "", found, expected);
        Err(Error::Invalid(problem))
    }

    /// Matches every tensor of the checkpoint with those of our model.
    pub fn compare(&self, release: Release, sizes: Sizes) -> Vec<Fit> {
        let wanted = wanted(release, sizes);
        let target = |name: &str| wanted.contains_key(name).then(|| Target::new(name, false));
        let mut all = fit::compare(self, &wanted, &BTreeMap::new(), target);
        for fit in &mut all {
            fit.kept = kept(&fit.ours, sizes.storage);
        }
        let others = all.split_off(self.tensors().len());
        let mut together: BTreeMap<&str, (usize, Fit)> = BTreeMap::new();
        let mut fits = Vec::new();
        for (name, fit) in self.tensors().keys().zip(all) {
            match name.split_once('.') {
                // Thousands of equal lines help nobody.
                Some((kind, _)) if fit.what == What::Fits => {
                    together.entry(kind).or_insert((0, fit)).0 += 1;
                }
                _ => fits.push(fit),
            }
        }
        fits.extend(together.into_iter().map(|(kind, (n, mut fit))| {
            if let Some(theirs) = &mut fit.theirs {
                theirs.name = format!("{kind}.0 and so on, {n} in all");
            }
            fit
        }));
        fits.extend(others);
        fits
    }

    /// Reads all values into our layout; the caller has compared the shapes.
    ///
    /// # Errors
    /// `Invalid` if a file does not hold them or they are not finite, `Resource` if memory does not suffice.
    pub fn load(&mut self, release: Release, sizes: Sizes) -> Result<TensorMap, Error> {
        let Sizes {
            nodes,
            rows,
            d,
            mix,
            storage,
        } = sizes;
        let row_len = (d + 1) * d;
        require_room(sizes)?;
        let mut edges = Table::zeros(storage, rows * row_len);
        let positions = self.values("positions")?;
        let mut of_rows = |file: &mut Self, matrices: &str, biases: &str, first_row: usize| {
            let first = first_row * row_len;
            let at = |start, len| Places {
                row_len,
                start: first + start,
                len,
            };
            file.fill(matrices, &mut edges, at(0, d * d))?;
            file.fill(biases, &mut edges, at(d * d, d))
        };
        let node_bias = match release {
            Release::Rows(_) => {
                of_rows(self, "weights", "biases", 0)?;
                self.values("node_bias")?
            }
            Release::Sources => {
                for source in 0..nodes {
                    let [matrices, biases] = of_source(source);
                    of_rows(self, &matrices, &biases, 1 + source * nodes)?;
                }
                vec![0.0; nodes * d]
            }
        };
        let edges = match edges {
            Table::F32(values) => Values::F32(values),
            Table::Bf16(values) => Values::Bf16(values),
        };
        let tensors = [
            (OUR_TABLE, HostTensor::of(vec![rows, d + 1, d], edges)),
            ("mix", HostTensor::new(vec![mix], positions)),
            ("node_bias", HostTensor::new(vec![nodes, d], node_bias)),
        ];
        Ok(tensors
            .map(|(name, tensor)| (name.to_string(), tensor))
            .into())
    }

    /// Reads a tensor into its places.
    fn fill(&mut self, name: &str, to: &mut Table, places: Places) -> Result<(), Error> {
        let halved = to.storage() == Storage::Bf16;
        let (mut at, mut too_large) = (0, None);
        self.read(name, &mut |piece| {
            if halved && too_large.is_none() {
                let place = piece.iter().position(|value| overflows(*value));
                too_large = place.map(|place| (at + place, piece[place]));
            }
            places.scatter(piece, at, to);
            at += piece.len();
        })?;
        match too_large {
            None => Ok(()),
            Some((place, value)) => {
                let found = format!("{value:e} at index {place}, too large for the recipe's bf16");
                Err(in_tensor(self.path(), name, found, "numbers up to 3.38e38"))
            }
        }
    }
}

/// The number type of a tensor of ours: only the edge table may be stored in less than f32.
pub fn kept(ours: &Option<(String, Vec<usize>)>, storage: Storage) -> &'static str {
    match (ours, storage) {
        (Some((name, _)), Storage::Bf16) if name == OUR_TABLE => "BF16",
        _ => "F32",
    }
}

/// Whether a finite number becomes infinite as bf16.
pub fn overflows(value: f32) -> bool {
    value.is_finite() && half::bf16::from_f32(value).is_infinite()
}

/// The tensors of a release, by name.
fn wanted(release: Release, sizes: Sizes) -> BTreeMap<String, Wanted> {
    let Sizes {
        nodes,
        rows,
        d,
        mix,
        ..
    } = sizes;
    let tensor = |name: &str, shape: [usize; 3], ours: &str, our_shape: &[usize]| {
        let wanted = Wanted {
            name: format!("{ours} ({name})"),
            ours: (ours.to_string(), our_shape.to_vec()),
            shape: shape.to_vec(),
        };
        (name.to_string(), wanted)
    };
    let edges = |name: &str, shape| tensor(name, shape, OUR_TABLE, &[rows, d + 1, d]);
    let mut all = BTreeMap::from([tensor("positions", [1, mix, 1], "mix", &[mix])]);
    match release {
        Release::Rows(_) => all.extend([
            edges("weights", [rows, d, d]),
            edges("biases", [rows, 1, d]),
            tensor("node_bias", [nodes, 1, d], "node_bias", &[nodes, d]),
        ]),
        Release::Sources => all.extend((0..nodes).flat_map(|source| {
            let [matrices, biases] = of_source(source);
            [
                edges(&matrices, [nodes, d, d]),
                edges(&biases, [nodes, 1, d]),
            ]
        })),
    }
    all
}

/// The names of the matrices and biases of a source.
fn of_source(source: usize) -> [String; 2] {
    [format!("network.{source}"), format!("bias.{source}")]
}

/// Where the values of a tensor lie in ours: `len` values from `start` on in each row of `row_len`.
#[derive(Clone, Copy)]
struct Places {
    row_len: usize,
    start: usize,
    len: usize,
}

impl Places {
    /// Puts values, the first of which is number `at` of its tensor, in their places.
    fn scatter(self, mut piece: &[f32], mut at: usize, to: &mut Table) {
        while !piece.is_empty() {
            let (row, within) = (at / self.len, at % self.len);
            let n = piece.len().min(self.len - within);
            to.set(row * self.row_len + self.start + within, &piece[..n]);
            piece = &piece[n..];
            at += n;
        }
    }
}

/// Asks for the memory first: whoever takes it without asking is ended where there is none.
fn require_room(sizes: Sizes) -> Result<(), Error> {
    let mut room: Vec<u8> = Vec::new();
    room.try_reserve_exact(sizes.bytes() as usize).map_err(|_| {
        let doing = format!("hold {} bytes of weights", sizes.bytes());
        Error::resource("memory", doing, io::ErrorKind::OutOfMemory.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_land_in_their_places() {
        let places = Places {
            row_len: 5,
            start: 2,
            len: 3,
        };
        let values: Vec<f32> = (1..=9).map(|value| value as f32).collect();
        let expected = [0., 0., 1., 2., 3., 0., 0., 4., 5., 6., 0., 0., 7., 8., 9.];
        for storage in [Storage::F32, Storage::Bf16] {
            for size in 1..=9 {
                let mut to = Table::zeros(storage, 15);
                let mut at = 0;
                for piece in values.chunks(size) {
                    places.scatter(piece, at, &mut to);
                    at += piece.len();
                }
                assert_eq!(*to.part(0..15), expected, "pieces of {size}");
            }
        }
    }
}
