//! The lock of a run: one process may train in it. The kernel drops the lock with the process, so a kill leaves none behind.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::thread;
use std::time::Duration;

use super::directory::RunDirectory;
use super::time::{now_s, utc_text};
use crate::error::Error;
use crate::file::{open_own, open_regular};

/// `runs list` holds the lock for an instant to see whether it is free, and a new holder has yet to write its name.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// The right to train in a run directory, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a run and writes the holder into it.
    ///
    /// # Errors
    /// `Locked` with the holder's process, host and start time; `Invalid` for no file; `Resource` if writing or locking fails.
    pub fn acquire(run: &RunDirectory) -> Result<Self, Error> {
        let path = run.lock();
        let mut file = open_own(&path)?;
        for _ in 0..ATTEMPTS {
            match file.try_lock() {
                Ok(()) => {
                    sign(&mut file).map_err(|source| Error::resource(&path, "write", source))?;
                    return Ok(Self { _file: file });
                }
                Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
                Err(TryLockError::Error(source)) => {
                    return Err(Error::resource(&path, "lock", source));
                }
            }
        }
        let holder = holder(&mut file);
        Err(Error::Locked { path, holder })
    }

    /// Whether a process trains in the run right now.
    pub fn is_held(run: &RunDirectory) -> bool {
        let locked = |file: File| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
        open_regular(&run.lock(), "the lock of a run").is_ok_and(locked)
    }
}

fn sign(file: &mut File) -> std::io::Result<()> {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    let (pid, since) = (std::process::id(), utc_text(now_s()));
    file.set_len(0)?;
    file.write_all(format!("pid {pid} on {host} since {since}\n").as_bytes())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    // The text is a courtesy; that the lock is held is known without it.
    let _ = file
        .rewind()
        .and_then(|()| file.take(200).read_to_string(&mut text));
    let line: String = text
        .trim()
        .chars()
        .filter(|character| !character.is_control())
        .collect();
    match line.is_empty() {
        true => "another process".to_string(),
        false => line,
    }
}

#[cfg(test)]
mod tests {
    use super::super::info::RunInfo;
    use super::*;
    use std::path::Path;
    use std::process::{Command, Stdio};

    fn run(root: &Path) -> RunDirectory {
        RunDirectory::create(root, "run", "", RunInfo::new("x")).unwrap()
    }

    #[test]
    fn the_second_holder_is_refused_with_the_first_one_named() {
        let root = tempfile::tempdir().unwrap();
        let run = run(root.path());
        assert!(!Lock::is_held(&run));
        let first = Lock::acquire(&run).unwrap();
        assert!(Lock::is_held(&run));
        let refused = Lock::acquire(&run).unwrap_err();
        assert_eq!(refused.exit_code(), 5);
        let text = refused.to_string();
        assert!(
            text.contains(&format!("locked by pid {} on ", std::process::id())),
            "{text}"
        );
        drop(first);
        assert!(!Lock::is_held(&run));
        Lock::acquire(&run).unwrap();
    }

    #[test]
    fn of_many_who_try_at_once_one_wins() {
        let root = tempfile::tempdir().unwrap();
        let run = run(root.path());
        for _ in 0..5 {
            let held: Vec<_> = thread::scope(|scope| {
                let racers: Vec<_> = (0..8)
                    .map(|_| scope.spawn(|| Lock::acquire(&run)))
                    .collect();
                racers
                    .into_iter()
                    .map(|racer| racer.join().unwrap())
                    .collect()
            });
            assert_eq!(held.iter().filter(|lock| lock.is_ok()).count(), 1);
        }
    }

    #[test]
    fn a_killed_holder_leaves_no_lock() {
        let root = tempfile::tempdir().unwrap();
        let run = run(root.path());
        let lock = Lock::acquire(&run).unwrap();
        // The child inherits the locked file as its input, and is then its only holder.
        let input = Stdio::from(lock._file);
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(input)
            .spawn()
            .unwrap();
        assert!(Lock::is_held(&run));
        child.kill().unwrap();
        child.wait().unwrap();
        Lock::acquire(&run).unwrap();
    }
}
