//! Tests of saving on a disk that fails: for every operation of a save, one run with an error there and one that ends there.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::list::step_of;
use super::save::save_on;
use super::*;
use crate::error::Error;
use crate::run::disk::{Disk, System};
use crate::run::{HostTensor, Lock, RunDirectory, RunInfo, TensorMap};

/// What happens at the operation of that number, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The disk is full from there on; what is there can still be renamed and removed.
    Full,
    /// One operation fails, as on a bad sector.
    Once,
    /// The process is killed: this and all later operations do nothing, a write half of it.
    Kill,
    /// As a kill, and the machine forgets whatever was not synced.
    PowerLoss,
    /// Writes are interrupted, or short: legal, and to be continued.
    Short,
    /// There is next to no room to begin with.
    LittleRoom,
}

struct Faulty {
    fault: Fault,
    at: u64,
    count: Cell<u64>,
    /// Files and directories whose content is not on the disk yet.
    unsynced: RefCell<Vec<PathBuf>>,
}

impl Faulty {
    fn new(fault: Fault, at: u64) -> Self {
        let (count, unsynced) = (Cell::new(0), RefCell::default());
        Self {
            fault,
            at,
            count,
            unsynced,
        }
    }

    /// Counts the operation; an error if it is to fail.
    fn step(&self, takes_room: bool) -> io::Result<()> {
        self.count.set(self.count.get() + 1);
        let (count, at) = (self.count.get(), self.at);
        match self.fault {
            Fault::Once if count == at => Err(io::Error::from_raw_os_error(5)),
            Fault::Kill | Fault::PowerLoss if count >= at => Err(io::Error::from_raw_os_error(5)),
            Fault::Full if count >= at && takes_room => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    /// Forgets what a machine without power forgets: unsynced files are torn, unsynced directories empty.
    fn lose_power(&self) {
        let unsynced = self.unsynced.take().into_iter();
        for path in unsynced.filter(|path| path.exists()) {
            if path.is_dir() {
                fs::remove_dir_all(&path).unwrap();
                fs::create_dir(&path).unwrap();
            } else {
                let content = fs::read(&path).unwrap();
                fs::write(&path, &content[..content.len() / 2]).unwrap();
            }
        }
    }
}

impl Disk for Faulty {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.step(true)?;
        self.unsynced.borrow_mut().push(path.to_path_buf());
        System.create_directory(path)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        self.step(true)?;
        self.unsynced.borrow_mut().push(path.to_path_buf());
        System.create(path)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<usize> {
        let half = &bytes[..bytes.len().div_ceil(2)];
        if let Err(error) = self.step(true) {
            if self.count.get() == self.at {
                System.write(file, half)?;
            }
            return Err(error);
        }
        match (self.fault, self.count.get() % 3) {
            (Fault::Short, 0) => Err(io::ErrorKind::Interrupted.into()),
            (Fault::Short, _) => System.write(file, half),
            _ => System.write(file, bytes),
        }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.step(true)?;
        let synced = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        self.unsynced.borrow_mut().retain(|path| *path != synced);
        System.sync(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(false)?;
        for path in self.unsynced.borrow_mut().iter_mut() {
            if let Ok(rest) = path.strip_prefix(from) {
                *path = to.components().chain(rest.components()).collect();
            }
        }
        System.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let ended = self.step(false);
        if ended.is_err() && self.count.get() == self.at && path.is_dir() {
            // A directory is deleted file by file, and this is how far it came.
            let first = fs::read_dir(path)?.next().expect("it holds files")?;
            fs::remove_file(first.path())?;
        }
        ended?;
        System.remove(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.step(false)?;
        match self.fault {
            Fault::LittleRoom => Ok(1000),
            _ => System.free_bytes(path),
        }
    }
}

pub fn run_in(root: &Path) -> RunDirectory {
    RunDirectory::create(root, "run", "", RunInfo::new("test")).unwrap()
}

pub fn snapshot(step: u64) -> Snapshot {
    let tensor = |value: f32| HostTensor::new(vec![2, 2], vec![value; 4]);
    let tensors = |value: f32| -> TensorMap {
        ["a", "b"]
            .map(|name| (name.to_string(), tensor(value)))
            .into_iter()
            .collect()
    };
    let state = CheckpointState {
        format: STATE_FORMAT,
        step,
        stage: "fixed".to_string(),
        wall_s: 0.1 * step as f64,
        ..CheckpointState::default()
    };
    Snapshot {
        state,
        model: tensors(step as f32),
        optimizer: tensors(-(step as f32)),
        average: TensorMap::new(),
    }
}

fn latest_step(run: &RunDirectory) -> u64 {
    let loaded = latest(run).unwrap().unwrap();
    assert_eq!(loaded.snapshot, snapshot(loaded.snapshot.state.step));
    assert_eq!(loaded.skipped, []);
    loaded.snapshot.state.step
}

pub fn steps(run: &RunDirectory) -> Vec<u64> {
    list(run)
        .unwrap()
        .into_iter()
        .map(|(step, _)| step)
        .collect()
}

fn leftovers(run: &RunDirectory) -> Vec<String> {
    let entries = fs::read_dir(run.checkpoints()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let expected = |name: &String| name == "LATEST" || step_of(Path::new(name)).is_some();
    names.filter(|name| !expected(name)).collect()
}

/// Three checkpoints saved, the fourth meets the fault; returns whether it succeeded.
fn meet(fault: Fault, at: u64) -> bool {
    let root = tempfile::tempdir().unwrap();
    let run = run_in(root.path());
    (1..=3).for_each(|step| drop(save(&run, &snapshot(step), 2).unwrap()));
    let disk = Faulty::new(fault, at);
    let saved = save_on(&disk, &run, &snapshot(4), 2);
    if let Err(error) = &saved {
        assert!(
            matches!(error, Error::Resource { .. }),
            "{fault:?} at {at}: {error}"
        );
    }
    let done = saved.is_ok();
    if fault == Fault::PowerLoss {
        disk.lose_power();
    }
    // The new one counts from its rename on, and never half.
    let newest = latest_step(&run);
    assert!(
        newest == 4 || (newest == 3 && !done),
        "{fault:?} at {at}: step {newest}"
    );
    assert!(
        steps(&run).len() >= 2,
        "{fault:?} at {at}: {:?}",
        steps(&run)
    );
    if fault == Fault::Full {
        assert_eq!(leftovers(&run), [""; 0], "full disk at {at}");
    }
    // Whatever happened, the next process cleans up and saves the same step.
    remove_stale(&run, &Lock::acquire(&run).unwrap()).unwrap();
    assert_eq!(leftovers(&run), [""; 0], "{fault:?} at {at}");
    save(&run, &snapshot(4), 2).unwrap();
    assert_eq!(
        (latest_step(&run), steps(&run)),
        (4, vec![3, 4]),
        "{fault:?} at {at}"
    );
    let hint = fs::read_to_string(run.checkpoints().join("LATEST")).unwrap();
    assert_eq!(hint, "step-00000004\n");
    done
}

#[test]
fn an_error_or_a_kill_at_any_operation_leaves_the_previous_checkpoint_or_the_whole_new_one() {
    for fault in [Fault::Full, Fault::Once, Fault::Kill, Fault::PowerLoss] {
        let failures = (1..).take_while(|&at| !meet(fault, at)).count();
        assert!(failures > 25, "{fault:?}: {failures} operations only");
    }
}

#[test]
fn interrupted_and_short_writes_are_continued() {
    let root = tempfile::tempdir().unwrap();
    let run = run_in(root.path());
    save_on(&Faulty::new(Fault::Short, 0), &run, &snapshot(1), 2).unwrap();
    assert_eq!(latest_step(&run), 1);
}

#[test]
fn too_little_room_is_refused_before_anything_is_touched() {
    let root = tempfile::tempdir().unwrap();
    let run = run_in(root.path());
    let disk = Faulty::new(Fault::LittleRoom, 0);
    let error = save_on(&disk, &run, &snapshot(1), 2).unwrap_err();
    assert_eq!(disk.count.get(), 1, "only the question for room");
    assert_eq!(error.exit_code(), 4);
    let text = error.to_string();
    assert!(
        text.contains("/run/ckpt: cannot write a checkpoint (67654 bytes needed, 1000 free)"),
        "{text}"
    );
}
