//! The ranks of a job that an MPI launcher started (`mpirun`, `srun`): point-to-point messages only, none of which blocks.
//!
//! MPI's own waiting spins, which would take the cores of ranks that still compute, and its sums differ with the number of ranks.

use super::ranks::{Collective, OF_RANK};
use crate::say::say_own;
use mpi::Threading;
use mpi::environment::Universe;
use mpi::point_to_point::{Destination, Source};
use mpi::request::{self, LocalScope, Request};
use mpi::topology::{Communicator, SimpleCommunicator};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The longest message: MPI counts in 32-bit integers with a sign.
const LONGEST: usize = 1 << 30;
/// For so long a rank looks for messages without a pause: most exchanges are over by then.
const AWAKE: Duration = Duration::from_micros(200);
const PAUSE: Duration = Duration::from_micros(100);

/// All ranks of an MPI job.
pub struct Mpi {
    rank: usize,
    size: usize,
    longest_wait: Duration,
    place: Mutex<String>,
}

impl Mpi {
    /// Joins the job, which the process leaves when the universe is dropped; a rank that does not come to an exchange for so long ends
    /// it. `None` if MPI has been begun before or cannot be called from another thread than the first.
    pub fn join(longest_wait: Duration) -> Option<(Universe, Self)> {
        let (universe, threading) = mpi::initialize_with_threading(Threading::Serialized)?;
        if threading < Threading::Serialized {
            return None;
        }
        let world = universe.world();
        let joined = Self {
            rank: world.rank() as usize,
            size: world.size() as usize,
            longest_wait,
            place: Mutex::default(),
        };
        Some((universe, joined))
    }

    /// Ends the job because ranks did not come.
    fn end_late(&self, ranks: &[usize]) -> ! {
        let ranks: Vec<String> = ranks.iter().map(usize::to_string).collect();
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        say_own(&format!(
            "error: {place}: waited {} s for rank {}, expected it to come; the job ends, and the newest checkpoint is whole; look at \
             the machine of that rank, or allow more with --rank-timeout",
            self.longest_wait.as_secs(),
            ranks.join(", ")
        ));
        self.abort(OF_RANK)
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn exchange(&self, to: &[&[u8]], from: &mut [&mut [u8]]) {
        let world = SimpleCommunicator::world();
        from[self.rank].copy_from_slice(to[self.rank]);
        request::scope(|scope| {
            let (mut receives, mut sends) = (Vec::new(), Vec::new());
            for (rank, bytes) in from
                .iter_mut()
                .enumerate()
                .filter(|(rank, _)| *rank != self.rank)
            {
                let source = world.process_at_rank(rank as i32);
                for part in bytes.chunks_mut(LONGEST) {
                    receives.push((rank, source.immediate_receive_into(scope, part)));
                }
            }
            for (rank, bytes) in to.iter().enumerate().filter(|(rank, _)| *rank != self.rank) {
                let destination = world.process_at_rank(rank as i32);
                for part in bytes.chunks(LONGEST) {
                    sends.push((rank, destination.immediate_send(scope, part)));
                }
            }
            let begun = Instant::now();
            loop {
                receives = still_waiting(receives);
                sends = still_waiting(sends);
                if receives.is_empty() && sends.is_empty() {
                    return;
                }
                let waited = begun.elapsed();
                if waited > self.longest_wait {
                    let of_receives = receives.iter().map(|(rank, _)| *rank);
                    let mut late: Vec<usize> = of_receives
                        .chain(sends.iter().map(|(rank, _)| *rank))
                        .collect();
                    late.sort_unstable();
                    late.dedup();
                    self.end_late(&late);
                }
                match waited < AWAKE {
                    true => thread::yield_now(),
                    false => thread::sleep(PAUSE),
                }
            }
        });
    }

    fn abort(&self, code: u8) -> ! {
        SimpleCommunicator::world().abort(code.into())
    }

    fn is_at(&self, place: String) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }
}

type Message<'a, 's, D> = (usize, Request<'a, D, &'s LocalScope<'a>>);

fn still_waiting<'a, 's, D: ?Sized>(messages: Vec<Message<'a, 's, D>>) -> Vec<Message<'a, 's, D>> {
    let waits = |(rank, request): Message<'a, 's, D>| Some((rank, request.test().err()?));
    messages.into_iter().filter_map(waits).collect()
}
