//! A table whose rows the ranks of a job share out: `SharedOut` exchanges bytes for its passes, and `RowsOfRanks` are its numbers as
//! the first rank reads them to write a checkpoint, while [`give_rows`] runs on the others.

use crate::collective::Ranks;
use crate::error::Problem;
use crate::run::{Elsewhere, HostTensor, TensorMap, Values};
use brillm::graph::Graph;
use brillm::shard::Peers;
use half::bf16;
use safetensors::tensor::Dtype;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The tensors whose rows are shared out.
pub const TABLES: [&str; 4] = ["edges", "edges.moment_1", "edges.moment_2", "edges.touched"];

/// The ranks among which a table is shared out, and the time they spent with exchanges.
#[derive(Debug)]
pub struct SharedOut {
    ranks: Ranks,
    spent: Mutex<Duration>,
}

impl SharedOut {
    pub fn new(ranks: &Ranks) -> Self {
        Self {
            ranks: ranks.clone(),
            spent: Mutex::default(),
        }
    }

    /// The time that this rank spent with exchanges, waiting for others included, since this was asked for.
    pub fn take_spent(&self) -> Duration {
        std::mem::take(&mut self.spent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What all ranks but the first wait for while it writes: `None` when it is done.
    fn asked(&self, own: Option<Asked>) -> Option<Asked> {
        let n = self.ranks.size();
        let own: Vec<u8> = own.map_or(Vec::new(), |Asked(numbers)| {
            numbers
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect()
        });
        let mut all = vec![Vec::new(); n];
        all[0] = vec![0; size_of::<Asked>()];
        let mut from: Vec<&mut [u8]> = all.iter_mut().map(Vec::as_mut_slice).collect();
        self.ranks.exchange(&vec![&own[..]; n], &mut from);
        let (numbers, _) = all[0].as_chunks::<8>();
        let asked = Asked([0, 1, 2].map(|place| u64::from_le_bytes(numbers[place])));
        (asked != Asked::NOTHING).then_some(asked)
    }

    /// Says that nothing more is asked for.
    pub fn dismiss(&self) {
        self.asked(Some(Asked::NOTHING));
    }

    /// The bytes that a rank sends to the first one; what each sends, there.
    fn to_the_first(&self, own: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
        let n = self.ranks.size();
        let mut to = vec![&[][..]; n];
        to[0] = own;
        let mut all: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![0; length]).collect();
        all.resize(n, Vec::new());
        let mut from: Vec<&mut [u8]> = all.iter_mut().map(Vec::as_mut_slice).collect();
        self.ranks.exchange(&to, &mut from);
        all
    }
}

impl Peers for SharedOut {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn size(&self) -> usize {
        self.ranks.size()
    }

    fn exchange(&self, to: &[&[u8]], from: &mut [&mut [u8]]) {
        let begun = Instant::now();
        self.ranks.exchange(to, from);
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner) += begun.elapsed();
    }
}

/// Which of [`TABLES`] the first rank asks for, from which row, up to which one.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
struct Asked([u64; 3]);

impl Asked {
    /// No rows are asked for like that.
    const NOTHING: Self = Self([0, 0, 0]);
}

/// One of [`TABLES`], whole: the first rank asks the others for their rows.
#[derive(Debug)]
pub struct RowsOfRanks {
    pub shared_out: Arc<SharedOut>,
    pub graph: Arc<Graph>,
    /// Which of [`TABLES`].
    pub table: usize,
    /// The rows of this rank.
    pub own: Arc<Values>,
    pub row_len: usize,
}

impl Elsewhere for RowsOfRanks {
    fn dtype(&self) -> Dtype {
        match &*self.own {
            Values::Bf16(_) => Dtype::BF16,
            _ => Dtype::F32,
        }
    }

    fn len(&self) -> usize {
        self.graph.rows() * self.row_len
    }

    fn read(&self, places: Range<usize>) -> Result<Values, Problem> {
        let rows = places.start / self.row_len..places.end.div_ceil(self.row_len);
        let asked = [self.table, rows.start, rows.end].map(|number| number as u64);
        self.shared_out.asked(Some(Asked(asked)));
        let row_bytes = self.row_len * self.dtype().bitsize() / 8;
        let pieces = |rank| self.graph.pieces_of(rank, rows.clone());
        let ranks = 0..self.shared_out.size();
        let length = |rank| {
            pieces(rank)
                .iter()
                .map(|(_, piece)| piece.len())
                .sum::<usize>()
        };
        let lengths: Vec<usize> = ranks.map(|rank| length(rank) * row_bytes).collect();
        let own = bytes_of(&self.graph, 0, rows.clone(), &self.own, self.row_len);
        let said = self.shared_out.to_the_first(&own, &lengths);
        let mut bytes = vec![0; rows.len() * row_bytes];
        for (rank, said) in said.iter().enumerate() {
            let mut said = &said[..];
            for (_, piece) in pieces(rank) {
                let (here, rest) = said.split_at(piece.len() * row_bytes);
                bytes[(piece.start - rows.start) * row_bytes..][..here.len()].copy_from_slice(here);
                said = rest;
            }
        }
        let size = self.dtype().bitsize() / 8;
        let first = (places.start - rows.start * self.row_len) * size;
        let bytes = &bytes[first..][..places.len() * size];
        Ok(Values::of_bytes(self.dtype(), bytes))
    }
}

/// Gives the first rank the rows that it asks for, until it asks for no more.
pub fn give_rows(shared_out: &SharedOut, graph: &Graph, lent: &TensorMap) {
    let rows_here = graph.rows_here();
    while let Some(Asked([table, start, end])) = shared_out.asked(None) {
        let HostTensor { values, .. } = &lent[TABLES[table as usize]];
        let row_len = lent[TABLES[table as usize]].len() / rows_here;
        let rows = start as usize..end as usize;
        let own = bytes_of(graph, shared_out.rank(), rows, values, row_len);
        shared_out.to_the_first(&own, &[]);
    }
}

/// What a rank holds of some rows of the whole table.
fn bytes_of(
    graph: &Graph,
    rank: usize,
    rows: Range<usize>,
    own: &Values,
    row_len: usize,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (source, piece) in graph.pieces_of(rank, rows) {
        let places = graph.place_of_piece(source, &piece);
        let places = places.start * row_len..places.end * row_len;
        bytes.extend_from_slice(match own {
            Values::F32(values) => bytemuck::cast_slice(&values[places]),
            Values::Bf16(values) => {
                let halves: &[bf16] = &values[places];
                bytemuck::cast_slice(halves)
            }
            Values::Elsewhere(_) => unreachable!("the rows of a rank lie in its memory"),
        });
    }
    bytes
}

/// The rows of a whole tensor that lie in this process, of a tensor that may lie elsewhere.
///
/// # Errors
/// Where the tensor lies, if it cannot be read.
pub fn rows_here(graph: &Graph, tensor: HostTensor) -> Result<Values, Problem> {
    let row_len = tensor.len() / graph.rows().max(1);
    let rank = match graph.shard() {
        Some(shard) => shard.rank(),
        None => return whole(tensor),
    };
    let mut here = Values::with_room(tensor.dtype(), graph.rows_here() * row_len);
    let mut add = |rows: Range<usize>| {
        let places = rows.start * row_len..rows.end * row_len;
        match &*tensor.values {
            Values::Elsewhere(elsewhere) => here.extend(&elsewhere.read(places)?),
            Values::F32(values) => here.extend(&Values::F32(values[places].to_vec())),
            Values::Bf16(values) => here.extend(&Values::Bf16(values[places].to_vec())),
        }
        Ok(())
    };
    if rank > 0 {
        add(0..graph.back_off_rows())?;
    }
    for (_, rows) in graph.pieces_of(rank, 0..graph.rows()) {
        add(rows)?;
    }
    Ok(here)
}

/// All numbers of a tensor, in memory.
fn whole(tensor: HostTensor) -> Result<Values, Problem> {
    match &*tensor.values {
        Values::Elsewhere(elsewhere) => elsewhere.read(0..elsewhere.len()),
        _ => Ok(Arc::unwrap_or_clone(tensor.values)),
    }
}
