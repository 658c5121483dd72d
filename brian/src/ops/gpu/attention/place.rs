//! Addresses of one head's rows for the attention kernels: in the packed queries, keys and values, in the output, and in lists
//! of one number per row and head.

use burn_cubecl::cubecl::{self, prelude::*};

/// Two numbers side by side.
pub type Pair<F> = Vector<F, Const<2>>;

/// Where a matrix begins in memory, how far its rows lie apart, and how many there are; counted in pairs.
#[derive(CubeType, Clone, Copy)]
pub struct HeadRows {
    pub at: usize,
    pub stride: usize,
    pub rows: usize,
}

/// One head of one sequence.
#[derive(CubeType, Clone, Copy)]
pub struct Head {
    /// The sequence's first row in the batch.
    base: usize,
    seq: usize,
    n_heads: usize,
    head: usize,
    /// Pairs of a head.
    #[cube(comptime)]
    pairs: usize,
}

/// The head of this cube.
#[cube]
pub fn head(seq: usize, n_heads: usize, #[comptime] pairs: usize) -> Head {
    Head {
        base: CUBE_POS_Z as usize * seq,
        seq,
        n_heads,
        head: CUBE_POS_X as usize,
        pairs,
    }
}

#[cube]
impl Head {
    /// Rows of queries, keys or values (`part` 0, 1, 2), from one row of the sequence on.
    pub fn packed(&self, part: usize, row: usize) -> HeadRows {
        let width = self.n_heads * comptime!(self.pairs);
        HeadRows {
            at: (self.base + row) * 3 * width + part * width + self.head * comptime!(self.pairs),
            stride: 3 * width,
            rows: self.seq - min(row, self.seq),
        }
    }

    /// Rows of the attention output or of its gradient, from one row of the sequence on.
    pub fn found(&self, row: usize) -> HeadRows {
        let width = self.n_heads * comptime!(self.pairs);
        HeadRows {
            at: (self.base + row) * width + self.head * comptime!(self.pairs),
            stride: width,
            rows: self.seq - min(row, self.seq),
        }
    }

    /// Address of a row's number for this head, in lists of one number per row and head.
    pub fn number(&self, row: usize) -> usize {
        (self.base + row) * self.n_heads + self.head
    }
}
