//! `Shard`: which rows of an edge table lie in this process, where several share a table that is larger than one machine's memory;
//! `Peers`, how these processes exchange bytes.
//!
//! The rows of all edges out of a source lie in one process, back-off rows in every one. A process walks some sequences of a batch and
//! scores the candidates of its own sources; signals, losses and their gradients go round, rows only to whoever walks over them. What
//! is summed is summed in the order in which one process sums it, so the bits do not depend on how many there are
//! (`docs/distributed.md`).

use std::fmt;
use std::sync::Arc;

/// Processes that hold a table together.
pub trait Peers: Send + Sync {
    /// The number of this one, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Sends `to[r]` to each process `r` and fills `from[r]` with what it sends here, of the length that it has there. All call it
    /// together.
    fn exchange(&self, to: &[&[u8]], from: &mut [&mut [u8]]);
}

/// The rows that lie in this process.
#[derive(Clone)]
pub struct Shard {
    peers: Arc<dyn Peers>,
    /// The process of each source's own rows.
    owners: Vec<u32>,
    /// Per source of this process, where its own rows begin here.
    first: Vec<u64>,
    rows: usize,
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rank, size) = (self.rank(), self.size());
        write!(f, "{} rows, shard {rank} of {size}", self.rows)
    }
}

impl PartialEq for Shard {
    fn eq(&self, other: &Self) -> bool {
        let place = |shard: &Self| (shard.rank(), shard.size());
        place(self) == place(other) && self.owners == other.owners
    }
}

impl Shard {
    /// This process's part of a table: sources with the most rows are dealt first, each to the process that has the fewest rows so far.
    ///
    /// `own_rows` has the number of each source's own rows.
    pub fn new(back_off_rows: usize, own_rows: &[usize], peers: Arc<dyn Peers>) -> Self {
        let mut sources: Vec<usize> = (0..own_rows.len()).collect();
        sources.sort_by_key(|&source| std::cmp::Reverse(own_rows[source]));
        let mut held = vec![0; peers.size()];
        let mut owners = vec![0; own_rows.len()];
        for source in sources {
            let least = (0..held.len()).min_by_key(|&rank| held[rank]);
            let least = least.expect("there is this process");
            held[least] += own_rows[source];
            owners[source] = least as u32;
        }
        let mut rows = back_off_rows;
        let mut first = vec![0; own_rows.len()];
        let here = peers.rank() as u32;
        for source in (0..own_rows.len()).filter(|&source| owners[source] == here) {
            first[source] = rows as u64;
            rows += own_rows[source];
        }
        Self {
            peers,
            owners,
            first,
            rows,
        }
    }

    /// The number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.peers.rank()
    }

    /// How many processes share the table.
    pub fn size(&self) -> usize {
        self.peers.size()
    }

    /// The process in which the own rows of a source lie.
    pub fn owner(&self, source: u32) -> usize {
        self.owners[source as usize] as usize
    }

    /// Whether the own rows of a source lie here.
    pub fn is_here(&self, source: u32) -> bool {
        self.owner(source) == self.rank()
    }

    /// Whether this process walks a sequence of a batch.
    pub fn walks(&self, sequence: usize) -> bool {
        self.walker(sequence) == self.rank()
    }

    /// The process that walks a sequence of a batch.
    pub fn walker(&self, sequence: usize) -> usize {
        sequence % self.size()
    }

    /// How many rows lie here, back-off rows included.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Where the own rows of a source of this process begin here.
    pub fn first(&self, source: u32) -> usize {
        self.first[source as usize] as usize
    }

    /// See [`Peers::exchange`], with lengths that both sides know.
    pub fn exchange(&self, to: &[Vec<u8>], lengths: &[usize]) -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![0; length]).collect();
        let to: Vec<&[u8]> = to.iter().map(Vec::as_slice).collect();
        let mut from: Vec<&mut [u8]> = all.iter_mut().map(Vec::as_mut_slice).collect();
        self.peers.exchange(&to, &mut from);
        all
    }

    /// What every process has to say, in their order. All call it together.
    pub fn gather(&self, own: Message) -> Vec<Said> {
        let n = self.size();
        let length = (own.0.len() as u64).to_le_bytes().to_vec();
        let lengths = self.exchange(&vec![length; n], &vec![8; n]);
        let length = |bytes: Vec<u8>| bytemuck::pod_read_unaligned::<u64>(&bytes) as usize;
        let lengths: Vec<usize> = lengths.into_iter().map(length).collect();
        let all = self.exchange(&vec![own.0; n], &lengths);
        all.into_iter().map(|bytes| Said { bytes, at: 0 }).collect()
    }

    /// What the process of a source computes, in all of them. All call it together.
    pub fn of_owner(&self, source: u32, compute: impl FnOnce() -> Vec<f32>) -> Vec<f32> {
        let mut own = Message::default();
        if self.is_here(source) {
            own.put(&compute());
        }
        let mut all = self.gather(own);
        all[self.owner(source)].take()
    }
}

/// Lists of numbers on the way to other processes of the same program.
#[derive(Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// Adds a list.
    pub fn put<T: bytemuck::NoUninit>(&mut self, list: &[T]) {
        self.0.extend((list.len() as u64).to_le_bytes());
        self.0.extend_from_slice(bytemuck::cast_slice(list));
    }
}

/// What another process said.
pub struct Said {
    bytes: Vec<u8>,
    at: usize,
}

impl Said {
    /// The next list.
    pub fn take<T: bytemuck::AnyBitPattern>(&mut self) -> Vec<T> {
        let n = bytemuck::pod_read_unaligned::<u64>(self.next(8)) as usize;
        let bytes = self.next(n * size_of::<T>());
        let numbers = bytes.chunks_exact(size_of::<T>());
        numbers.map(bytemuck::pod_read_unaligned).collect()
    }

    fn next(&mut self, n: usize) -> &[u8] {
        let from = self.at;
        self.at += n;
        &self.bytes[from..self.at]
    }
}
