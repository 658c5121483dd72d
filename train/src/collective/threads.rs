//! Ranks as threads of one process, for tests.

use super::ranks::{Collective, Ranks};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

struct Thread {
    rank: usize,
    to: Vec<Mutex<Sender<Vec<u8>>>>,
    from: Vec<Mutex<Receiver<Vec<u8>>>>,
}

impl Collective for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn exchange(&self, to: &[&[u8]], from: &mut [&mut [u8]]) {
        for (sender, bytes) in self.to.iter().zip(to) {
            sender.lock().unwrap().send(bytes.to_vec()).unwrap();
        }
        for (receiver, bytes) in self.from.iter().zip(from) {
            bytes.copy_from_slice(&receiver.lock().unwrap().recv().unwrap());
        }
    }

    fn abort(&self, code: u8) -> ! {
        panic!("rank {} ends with code {code}", self.rank)
    }
}

/// Runs the same on `size` ranks; their results, in order.
pub fn on_ranks<T: Send>(size: usize, run: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
    let mut receivers: Vec<Vec<_>> = (0..size).map(|_| Vec::new()).collect();
    let mut from_one = || {
        let to_each = receivers.iter_mut().map(|of| {
            let (sender, receiver) = channel();
            of.push(Mutex::new(receiver));
            Mutex::new(sender)
        });
        to_each.collect::<Vec<_>>()
    };
    let senders: Vec<Vec<_>> = (0..size).map(|_| from_one()).collect();
    let channels = senders.into_iter().zip(receivers).enumerate();
    let ranks = channels.map(|(rank, (to, from))| Ranks::new(Thread { rank, to, from }));
    let ranks: Vec<Ranks> = ranks.collect();
    thread::scope(|scope| {
        let run = &run;
        let handles: Vec<_> = ranks
            .into_iter()
            .map(|rank| scope.spawn(move || run(rank)))
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap())
            .collect()
    })
}
