//! `AttentionSpans`: how many of its sequence's first keys each query sees, where sequences lie as rows one after another; pads
//! them to rectangles with a mask for attention composed of tensor operations.

use super::gather::rows;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};

/// A score this low gets probability exactly zero in the softmax and stays finite, unlike an infinity.
pub(crate) const MASKED: f32 = -1e30;

/// Lanes of a sum over keys: in whole lanes, hidden keys change no bit of a sum, however many there are.
const LANES: usize = 8;

/// The queries and keys of some sequences, one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttentionSpans {
    /// Per sequence.
    pub n_queries: Vec<usize>,
    /// Per sequence.
    pub n_keys: Vec<usize>,
    /// Per query, how many of its sequence's keys it sees, at least one.
    pub visible: Vec<usize>,
}

impl AttentionSpans {
    /// No sequence.
    pub fn none() -> Self {
        Self {
            n_queries: Vec::new(),
            n_keys: Vec::new(),
            visible: Vec::new(),
        }
    }

    /// Adds a sequence whose last tokens are the queries; every token sees those before it and itself.
    pub fn last(&mut self, n_queries: usize, n_keys: usize) {
        self.n_queries.push(n_queries);
        self.n_keys.push(n_keys);
        self.visible.extend(n_keys - n_queries + 1..=n_keys);
    }

    /// Sequences of these lengths, in which every token sees those before it and itself.
    pub fn each(lengths: Vec<usize>) -> Self {
        Self {
            visible: lengths.iter().flat_map(|&length| 1..=length).collect(),
            n_keys: lengths.clone(),
            n_queries: lengths,
        }
    }

    /// Runs attention on queries and keys that are padded to rectangles; `find` also gets the mask to be added to the scores,
    /// `[sequences, 1, n_queries, n_keys]`, `bias` among it.
    ///
    /// # Shapes
    /// - `queries`: `[n_queries, width]`, `keys_values`: `[n_keys, 2 * width]`, `bias`: `[n_keys, 1]`
    /// - `find`: of `[sequences, longest, …]` each
    /// - returns `[n_queries, width]`
    pub fn on_rectangles<B: Backend>(
        &self,
        queries: Tensor<B, 2>,
        keys_values: Tensor<B, 2>,
        bias: Option<Tensor<B, 2>>,
        find: impl FnOnce(Tensor<B, 3>, Tensor<B, 3>, Tensor<B, 4>) -> Tensor<B, 3>,
    ) -> Tensor<B, 2> {
        let (cells, key_cells) = (Cells::new(&self.n_queries), Cells::new(&self.n_keys));
        let device = queries.device();
        let dims = [self.n_queries.len(), 1, cells.longest, key_cells.longest];
        let visible = cells.row.iter().map(|&row| self.visible[row] as i64);
        let visible = TensorData::new(visible.collect::<Vec<_>>(), [dims[0], 1, dims[2], 1]);
        let visible = Tensor::<B, 4, Int>::from_data(visible, &device).expand(dims);
        let keys = Tensor::<B, 1, Int>::arange(0..dims[3] as i64, &device);
        let hidden: Tensor<B, 4, Bool> = keys.unsqueeze::<4>().expand(dims).greater_equal(visible);
        let scores = match bias {
            Some(bias) => {
                let bias = key_cells.pack(bias).reshape([dims[0], 1, 1, dims[3]]);
                bias.expand(dims)
            }
            None => Tensor::zeros(dims, &device),
        };
        let mask = scores.mask_fill(hidden, MASKED);
        let found = find(cells.pack(queries), key_cells.pack(keys_values), mask);
        cells.unpack(found)
    }
}

/// Rows of sequences, padded to one length: what attention composed of tensor operations needs.
struct Cells {
    /// At least as long as the longest sequence, in whole [`LANES`].
    longest: usize,
    /// Which row each cell holds; a cell behind the last one of its sequence repeats that one.
    row: Vec<usize>,
    /// The cell of each row.
    of_row: Vec<usize>,
}

impl Cells {
    fn new(sizes: &[usize]) -> Self {
        let longest = sizes.iter().copied().max().unwrap_or(0);
        let longest = longest.next_multiple_of(LANES);
        let mut cells = Self {
            longest,
            row: Vec::with_capacity(sizes.len() * longest),
            of_row: Vec::new(),
        };
        let mut first = 0;
        for &size in sizes {
            let start = cells.row.len();
            cells.of_row.extend(start..start + size);
            cells
                .row
                .extend((0..longest).map(|cell| first + cell.min(size - 1)));
            first += size;
        }
        cells
    }

    fn is_full(&self) -> bool {
        self.row.len() == self.of_row.len()
    }

    /// `[rows, width]` to `[sequences, longest, width]`.
    fn pack<B: Backend>(&self, x: Tensor<B, 2>) -> Tensor<B, 3> {
        let [_, width] = x.dims();
        let x = match self.is_full() {
            true => x,
            false => rows(x, &self.row),
        };
        x.reshape([self.row.len() / self.longest, self.longest, width])
    }

    /// The inverse.
    fn unpack<B: Backend>(&self, x: Tensor<B, 3>) -> Tensor<B, 2> {
        let [n_sequences, longest, width] = x.dims();
        let x = x.reshape([n_sequences * longest, width]);
        match self.is_full() {
            true => x,
            false => rows(x, &self.of_row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_packed_sequence_by_sequence() {
        let cells = Cells::new(&[2, 3, 1]);
        assert_eq!(cells.longest, LANES);
        let row = [[0, 1, 1, 1, 1, 1, 1, 1], [2, 3, 4, 4, 4, 4, 4, 4], [5; 8]];
        assert_eq!(cells.row, row.concat());
        assert_eq!(cells.of_row, [0, 1, 8, 9, 10, 16]);
        assert!(Cells::new(&[8, 8]).is_full());
    }
}
