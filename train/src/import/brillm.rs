//! The releases of BriLLM (PyTorch names and layouts) → the tensors of [`brillm`].
//!
//! | release | tensors |
//! |---|---|
//! | one row per pair | `positions (1, n, 1)`, `weights (rows, d, d)`, `biases (rows, 1, d)`, `node_bias (nodes, 1, d)` |
//! | March 2025 | `positions`, and for every source `network.{s} (nodes, d, d)` and `bias.{s} (nodes, 1, d)`, in several files |
//!
//! Matrices are `[in, out]` in both, as here: nothing is transposed. A row of our table is a matrix with its bias below.
//! In the release of March 2025 the pair `(s, t)` owns row `1 + s·nodes + t`; no pair uses row 0, and there are no biases
//! of nodes (specification §2.8, §7).

use super::Source;
use super::fit::{FITS, Fit, MISSING, NO_PLACE, OTHER_SHAPE};
use crate::error::{Error, Problem};
use crate::run::{HostTensor, TensorMap};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Which release a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// One row per pair that was seen, or per pair.
    Rows(usize),
    /// A tensor per source: March 2025.
    Sources,
}

/// What our model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Tokens.
    pub nodes: usize,
    /// Rows of the edge table.
    pub rows: usize,
    /// Width of a signal.
    pub d: usize,
    /// Parameters of the mix.
    pub mix: usize,
}

impl Sizes {
    /// Bytes that the weights take.
    pub fn bytes(self) -> u64 {
        let table = self.rows as u64 * (self.d as u64 + 1) * self.d as u64;
        4 * (table + (self.nodes * self.d + self.mix) as u64)
    }
}

/// The files of a checkpoint, of which no value is read yet.
pub struct Checkpoint {
    files: Vec<(PathBuf, Source)>,
    /// Shape and file of every tensor; where two files have the same name the later one wins, as in the reference.
    tensors: BTreeMap<String, (Vec<usize>, usize)>,
}

impl Checkpoint {
    /// Reads names and shapes.
    ///
    /// # Errors
    /// `Invalid` if a file is missing or broken.
    pub fn open(paths: &[PathBuf]) -> Result<Self, Error> {
        let mut files = Vec::new();
        let mut tensors = BTreeMap::new();
        for (index, path) in paths.iter().enumerate() {
            let source = Source::open(path)?;
            let of_file = source.shapes().into_iter();
            tensors.extend(of_file.map(|(name, shape)| (name, (shape, index))));
            files.push((path.clone(), source));
        }
        Ok(Self { files, tensors })
    }

    /// The file to name where something is wrong with all of them.
    pub fn path(&self) -> &Path {
        &self.files[0].0
    }

    /// Tells the release by its names.
    ///
    /// # Errors
    /// `Invalid` if the names are those of none.
    pub fn release(&self) -> Result<Release, Error> {
        if let Some((shape, _)) = self.tensors.get("weights") {
            return Ok(Release::Rows(shape.first().copied().unwrap_or(0)));
        }
        if self.tensors.contains_key("network.0") {
            return Ok(Release::Sources);
        }
        let names: Vec<&str> = self.tensors.keys().take(4).map(String::as_str).collect();
        let found = match names.len() {
            0 => "no tensors".to_string(),
            _ => format!("tensors {names:?} and others"),
        };
        let expected =
            "positions, weights, biases and node_bias, or positions, network.0 and bias.0";
        Err(Error::Invalid(Problem::new(
            self.path(),
            "",
            found,
            expected,
        )))
    }

    /// Every tensor of theirs and of ours, and whether they belong together.
    pub fn compare(&self, release: Release, sizes: Sizes) -> Vec<Fit> {
        let mut missing = wanted(release, sizes);
        let mut together: BTreeMap<&str, (usize, Fit)> = BTreeMap::new();
        let mut fits = Vec::new();
        for (name, (shape, _)) in &self.tensors {
            let theirs = Some((name.clone(), shape.clone()));
            let (ours, what) = match missing.remove(name) {
                Some(wanted) if wanted.shape == *shape => (Some(wanted.ours), FITS),
                Some(wanted) => (Some(wanted.ours), OTHER_SHAPE),
                None => (None, NO_PLACE),
            };
            let fit = Fit { theirs, ours, what };
            match name.split_once('.') {
                // Thousands of equal lines help nobody.
                Some((kind, _)) if what == FITS => {
                    together.entry(kind).or_insert((0, fit)).0 += 1;
                }
                _ => fits.push(fit),
            }
        }
        fits.extend(together.into_iter().map(|(kind, (n, mut fit))| {
            if let Some((name, _)) = &mut fit.theirs {
                *name = format!("{kind}.0 and so on, {n} in all");
            }
            fit
        }));
        fits.extend(missing.into_iter().map(|(name, wanted)| Fit {
            theirs: None,
            ours: Some((format!("{} ({name})", wanted.ours.0), wanted.ours.1)),
            what: MISSING,
        }));
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
        } = sizes;
        let row_len = (d + 1) * d;
        let mut edges = zeros(rows * row_len)?;
        let mut positions = zeros(mix)?;
        let mut node_bias = zeros(nodes * d)?;
        self.fill("positions", &mut positions, Stride::NONE)?;
        let mut table = |file: &mut Self, matrices: &str, biases: &str, first: usize| {
            let table = &mut edges[first * row_len..];
            let at = |start, len| Stride {
                row_len,
                start,
                len,
            };
            file.fill(matrices, table, at(0, d * d))?;
            file.fill(biases, table, at(d * d, d))
        };
        match release {
            Release::Rows(_) => {
                table(self, "weights", "biases", 0)?;
                self.fill("node_bias", &mut node_bias, Stride::NONE)?;
            }
            Release::Sources => {
                for source in 0..nodes {
                    let [matrices, biases] = of_source(source);
                    table(self, &matrices, &biases, 1 + source * nodes)?;
                }
            }
        }
        Ok(TensorMap::from([
            (
                "edges".to_string(),
                HostTensor::new(vec![rows, d + 1, d], edges),
            ),
            ("mix".to_string(), HostTensor::new(vec![mix], positions)),
            (
                "node_bias".to_string(),
                HostTensor::new(vec![nodes, d], node_bias),
            ),
        ]))
    }

    /// Reads a tensor into its places.
    fn fill(&mut self, name: &str, to: &mut [f32], stride: Stride) -> Result<(), Error> {
        let (_, file) = self.tensors[name];
        let (path, source) = &mut self.files[file];
        let mut at = 0;
        let mut finite = true;
        source.read(name, &mut |piece| {
            finite &= piece.iter().all(|value| value.is_finite());
            stride.scatter(piece, at, to);
            at += piece.len();
        })?;
        match finite {
            true => Ok(()),
            false => {
                let (place, found) = (format!("tensor {name}"), "a number that is not finite");
                let problem = Problem::new(path, place, found, "weights of a trained model");
                Err(Error::Invalid(problem))
            }
        }
    }
}

/// A tensor that a release has.
struct Wanted {
    shape: Vec<usize>,
    /// Where it goes.
    ours: (String, Vec<usize>),
}

fn wanted(release: Release, sizes: Sizes) -> BTreeMap<String, Wanted> {
    let Sizes {
        nodes,
        rows,
        d,
        mix,
    } = sizes;
    let tensor = |name: String, shape: Vec<usize>, ours: &str, our_shape: Vec<usize>| {
        let ours = (ours.to_string(), our_shape);
        (name, Wanted { shape, ours })
    };
    let edges = vec![rows, d + 1, d];
    let mut all = BTreeMap::from([tensor(
        "positions".to_string(),
        vec![1, mix, 1],
        "mix",
        vec![mix],
    )]);
    match release {
        Release::Rows(_) => all.extend([
            tensor(
                "weights".to_string(),
                vec![rows, d, d],
                "edges",
                edges.clone(),
            ),
            tensor("biases".to_string(), vec![rows, 1, d], "edges", edges),
            tensor(
                "node_bias".to_string(),
                vec![nodes, 1, d],
                "node_bias",
                vec![nodes, d],
            ),
        ]),
        Release::Sources => all.extend((0..nodes).flat_map(|source| {
            let [matrices, biases] = of_source(source);
            [
                tensor(matrices, vec![nodes, d, d], "edges", edges.clone()),
                tensor(biases, vec![nodes, 1, d], "edges", edges.clone()),
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
struct Stride {
    row_len: usize,
    start: usize,
    len: usize,
}

impl Stride {
    /// One row of any length.
    const NONE: Self = Self {
        row_len: 0,
        start: 0,
        len: usize::MAX,
    };

    /// Puts values, the first of which is number `at` of its tensor, in their places.
    fn scatter(self, mut piece: &[f32], mut at: usize, to: &mut [f32]) {
        while !piece.is_empty() {
            let (row, within) = (at / self.len, at % self.len);
            let n = piece.len().min(self.len - within);
            let place = row * self.row_len + self.start + within;
            to[place..][..n].copy_from_slice(&piece[..n]);
            piece = &piece[n..];
            at += n;
        }
    }
}

fn zeros(n: usize) -> Result<Vec<f32>, Error> {
    let mut values = Vec::new();
    let full = |_| {
        let cause = io::Error::from(io::ErrorKind::OutOfMemory);
        Error::resource("memory", format!("hold {n} weights"), cause)
    };
    values.try_reserve_exact(n).map_err(full)?;
    values.resize(n, 0.0);
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_land_in_their_places() {
        let stride = Stride {
            row_len: 5,
            start: 2,
            len: 3,
        };
        let values: Vec<f32> = (1..=9).map(|value| value as f32).collect();
        let expected = [0., 0., 1., 2., 3., 0., 0., 4., 5., 6., 0., 0., 7., 8., 9.];
        for size in 1..=9 {
            let mut to = [0.0; 15];
            let mut at = 0;
            for piece in values.chunks(size) {
                stride.scatter(piece, at, &mut to);
                at += piece.len();
            }
            assert_eq!(to, expected, "pieces of {size}");
        }
    }
}
