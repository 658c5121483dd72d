//! `Job`: the processes that a launcher of MPI started together, which this one joins.

#[cfg(feature = "mpi")]
use super::mpi::Mpi;
use super::ranks::{OF_RANK, Ranks};
use crate::error::{Error, Problem};
use crate::say::as_rank;
use std::time::Duration;

/// This process in a job; it leaves the job when this is dropped, and ends it if it panics, for the others would wait.
pub struct Job {
    /// All processes of the job.
    pub ranks: Ranks,
    _member: Member,
}

impl Job {
    /// Joins the ranks that a launcher of MPI started together with this process; alone without one. A rank that does not come to an
    /// exchange for so long ends the job.
    ///
    /// # Errors
    /// `Config` if a launcher started this process and this program knows no MPI, or MPI does not let itself be used.
    pub fn join(longest_wait: Duration) -> Result<Self, Error> {
        let Some((variable, value)) = launched() else {
            return Ok(Self {
                ranks: Ranks::alone(),
                _member: None,
            });
        };
        let (member, ranks) = join(longest_wait).ok_or_else(|| {
            let found = format!("{value}, which an MPI launcher sets");
            let expected = match cfg!(feature = "mpi") {
                true => "an MPI that other threads than the first may call",
                false => "a program with the cargo feature mpi",
            };
            let problem = Problem::new("environment", variable, found, expected);
            Error::config(problem.advise("see docs/distributed.md"))
        })?;
        if !ranks.is_alone() {
            as_rank(ranks.rank());
        }
        Ok(Self {
            ranks,
            _member: Some(member),
        })
    }
}

/// What a verb does as one of the ranks of a job, which it joins and leaves; an error is said once.
///
/// # Errors
/// Those of joining a job, and those of `act`.
pub fn on_ranks(
    longest_wait: Duration,
    act: impl FnOnce(&Ranks) -> Result<(), Error>,
) -> Result<(), Error> {
    let Job { ranks, .. } = &Job::join(longest_wait)?;
    ranks.said_once(ranks.end_unless_shared(act(ranks)))
}

impl Drop for Job {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.ranks.is_alone() {
            self.ranks.abort(OF_RANK);
        }
    }
}

/// The variable by which a launcher of MPI tells a process that it is one of a job: a program that knows no MPI looks only whether
/// there are others.
fn launched() -> Option<(&'static str, String)> {
    let set = |name: &'static str| Some((name, std::env::var(name).ok()?));
    match cfg!(feature = "mpi") {
        true => ["PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"]
            .into_iter()
            .find_map(set),
        false => {
            let mut sizes = ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE"]
                .into_iter()
                .filter_map(set);
            sizes.find(|(_, size)| size.parse::<u32>().is_ok_and(|size| size > 1))
        }
    }
}

#[cfg(feature = "mpi")]
type Member = Option<::mpi::environment::Universe>;
#[cfg(not(feature = "mpi"))]
type Member = Option<()>;

#[cfg(feature = "mpi")]
fn join(longest_wait: Duration) -> Option<(::mpi::environment::Universe, Ranks)> {
    let (universe, ranks) = Mpi::join(longest_wait)?;
    Some((universe, Ranks::new(ranks)))
}

#[cfg(not(feature = "mpi"))]
fn join(_: Duration) -> Option<((), Ranks)> {
    None
}
