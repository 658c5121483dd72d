//! Installs signal handlers: the first SIGINT, SIGTERM or SIGHUP asks the run to save and stop, the second stops it at once,
//! SIGUSR1 asks for a checkpoint, SIGXFSZ no longer kills; `Stop` holds the requests, which the loop asks for.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::flag;

use crate::error::Error;

/// The requests made by signals; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    signal: Arc<AtomicUsize>,
    checkpoint: Arc<AtomicBool>,
}

/// Installs the signal handlers. Call it once, before anything slow.
///
/// # Errors
/// `Resource` if the system refuses a handler.
pub fn install() -> Result<Stop, Error> {
    let refused = |source: io::Error| Error::resource("signals", "install the handlers", source);
    let stop = Stop::new();
    let asked_before = Arc::new(AtomicBool::new(false));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    // Under `nohup` the end of the terminal shall not end the run.
    let stopping = [SIGINT, SIGTERM, SIGHUP].into_iter();
    for signal in stopping.filter(|&signal| signal != SIGHUP || !is_ignored(&status, signal)) {
        // Order matters: handlers run as registered, so the first signal finds the flag still down.
        flag::register_conditional_shutdown(signal, 128 + signal, asked_before.clone())
            .and_then(|_| flag::register(signal, asked_before.clone()))
            .and_then(|_| flag::register_usize(signal, stop.signal.clone(), signal as usize))
            .map_err(refused)?;
    }
    flag::register(SIGUSR1, stop.checkpoint.clone()).map_err(refused)?;
    Ok(stop)
}

/// Makes a write beyond the limit on file sizes fail like one on a full disk, instead of ending the process.
///
/// # Errors
/// `Resource` if the system refuses a handler.
pub fn survive_file_limit() -> Result<(), Error> {
    let refused = |source| Error::resource("signals", "install the handlers", source);
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map_err(refused)?;
    Ok(())
}

impl Stop {
    /// A stop that no signal reaches, for tests and for commands that are not interrupted.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of the signal that asked to stop, if any; check it at every step boundary.
    pub fn requested(&self) -> Option<i32> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal as i32),
        }
    }

    /// Requests a stop, as the signal with that number would.
    pub fn request(&self, signal: i32) {
        self.signal.store(signal as usize, Ordering::SeqCst);
    }

    /// Whether a checkpoint was asked for since the last call.
    pub fn take_checkpoint_request(&self) -> bool {
        self.checkpoint.swap(false, Ordering::SeqCst)
    }
}

/// Whether a process ignores a signal, by the bit mask in its `/proc/…/status`.
fn is_ignored(status: &str, signal: i32) -> bool {
    let masks = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = masks.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or(0) >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::low_level::raise;

    /// One test, because signals belong to the whole process.
    #[test]
    fn signals_are_remembered_until_asked_for() {
        let stop = install().unwrap();
        assert_eq!(stop.requested(), None);
        assert!(!stop.take_checkpoint_request());
        raise(SIGUSR1).unwrap();
        assert!(stop.take_checkpoint_request());
        assert!(!stop.take_checkpoint_request());
        assert_eq!(stop.requested(), None);
        raise(SIGTERM).unwrap();
        assert_eq!(stop.requested(), Some(SIGTERM));
    }

    #[test]
    fn an_ignored_signal_is_recognised() {
        let status = "Name:\tnerve\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert!(is_ignored(status, SIGHUP));
        assert!(!is_ignored(status, SIGINT));
        assert!(!is_ignored("", SIGHUP));
    }
}
