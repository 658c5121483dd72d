//! `Collective`, the ranks of a job, and `Alone`, a job of one; `Ranks`, which all who exchange something share.

use crate::error::Error;
use crate::say::say_own;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::sync::Arc;

/// The ranks of a job.
pub trait Collective: Send + Sync {
    /// The number of this one, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Sends `to[r]` to each rank `r` and fills `from[r]` with what it sends here, of the length that it has there. All ranks
    /// call it together; if one does not come in time, the job ends.
    fn exchange(&self, to: &[&[u8]], from: &mut [&mut [u8]]);

    /// Ends the processes of all ranks at once, with this exit code.
    fn abort(&self, code: u8) -> !;

    /// Remembers where the training is, to say it if a rank does not come.
    fn is_at(&self, _place: String) {}
}

/// The exit code of a job that ended because of one of its ranks.
pub const OF_RANK: u8 = 7;

/// A job of one process.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn exchange(&self, to: &[&[u8]], from: &mut [&mut [u8]]) {
        from[0].copy_from_slice(to[0]);
    }

    fn abort(&self, code: u8) -> ! {
        std::process::exit(code.into())
    }
}

/// The ranks of a job, shared by all who exchange something.
#[derive(Clone)]
pub struct Ranks(Arc<dyn Collective>);

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.size())
    }
}

impl Ranks {
    /// These ranks.
    pub fn new(collective: impl Collective + 'static) -> Self {
        Self(Arc::new(collective))
    }

    /// A job of one process.
    pub fn alone() -> Self {
        Self::new(Alone)
    }

    /// See [`Collective::abort`].
    pub fn abort(&self, code: u8) -> ! {
        self.0.abort(code)
    }

    /// The number of this rank, from 0.
    pub fn rank(&self) -> usize {
        self.0.rank()
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.0.size()
    }

    /// Whether there is no other.
    pub fn is_alone(&self) -> bool {
        self.size() == 1
    }

    /// Whether this is the rank that writes and speaks.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// See [`Collective::exchange`].
    pub fn exchange(&self, to: &[&[u8]], from: &mut [&mut [u8]]) {
        self.0.exchange(to, from);
    }

    /// See [`Collective::is_at`].
    pub fn is_at(&self, place: String) {
        self.0.is_at(place);
    }

    /// What every rank has, in the order of ranks, on all of them. All ranks call it together.
    pub fn gather<T: Serialize + DeserializeOwned>(&self, own: &T) -> Vec<T> {
        let own = rmp_serde::to_vec_named(own).expect("numbers and texts");
        let length = (own.len() as u64).to_le_bytes();
        let mut lengths = vec![[0; 8]; self.size()];
        let mut from: Vec<&mut [u8]> = lengths.iter_mut().map(|length| &mut length[..]).collect();
        self.exchange(&vec![&length[..]; self.size()], &mut from);
        let bytes = |length: &[u8; 8]| vec![0; u64::from_le_bytes(*length) as usize];
        let mut all: Vec<Vec<u8>> = lengths.iter().map(bytes).collect();
        let mut from: Vec<&mut [u8]> = all.iter_mut().map(Vec::as_mut_slice).collect();
        self.exchange(&vec![&own[..]; self.size()], &mut from);
        let read = |bytes: &Vec<u8>| rmp_serde::from_slice(bytes).expect("what another rank wrote");
        all.iter().map(read).collect()
    }

    /// The outcome on this rank, unless another failed: then [`Error::OtherRank`], and only the lowest rank that failed keeps its
    /// own error, so that it is said once. All ranks call it together.
    ///
    /// # Errors
    /// The error of this rank; `OtherRank`.
    pub fn agree<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if self.is_alone() {
            return outcome;
        }
        let code = outcome.as_ref().err().map(Error::exit_code);
        let codes = self.gather(&code);
        let failed = codes
            .iter()
            .enumerate()
            .find_map(|(rank, code)| Some((rank, (*code)?)));
        match failed {
            None => outcome,
            Some((rank, _)) if rank == self.rank() => {
                outcome.map_err(|error| Error::Agreed(error.into()))
            }
            Some((rank, code)) => Err(Error::OtherRank { rank, code }),
        }
    }

    /// What the first rank does while the others wait; nothing on these. All ranks call it together.
    ///
    /// # Errors
    /// As [`Self::agree`].
    pub fn by_first<T>(&self, act: impl FnOnce() -> Result<T, Error>) -> Result<Option<T>, Error> {
        self.agree(self.is_first().then(act).transpose())
    }

    /// An error that all ranks met is said by the first alone.
    pub fn said_once<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        outcome.map_err(|error| match error {
            Error::Agreed(_) => error,
            error if self.is_first() => error,
            error => Error::OtherRank {
                rank: 0,
                code: error.exit_code(),
            },
        })
    }

    /// Ends all ranks at once if this one met an error that the others do not know of.
    pub fn end_unless_shared<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        match outcome {
            Err(error) if !self.is_alone() && !error.is_shared() => {
                let lines = error.lines();
                say_own(&format!("error: {}", lines.join("\n")));
                let code = match error {
                    Error::Numerical(_) => error.exit_code(),
                    _ => OF_RANK,
                };
                self.abort(code)
            }
            outcome => outcome,
        }
    }
}
