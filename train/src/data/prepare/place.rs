//! The output directory of a preparation: built under a temporary name and renamed when it is complete.
//!
//! `NAME.tmp-RANDOM` is made beside `NAME.tmp-RANDOM.lock`, which its process keeps locked. An unlocked lock file was
//! left behind by a killed process; the next process removes it and its directory.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use serde_json::Value;

use crate::data::manifest::BYTES_MAX;
use crate::error::{Error, Problem};
use crate::file::read_regular;
use crate::signal::Stop;

/// What the lock file holds, so that nobody else's file is taken for one.
const SIGNATURE: &str = "nerve data prepare\n";

/// How often it is asked whether a signal came.
const PAUSE: Duration = Duration::from_millis(50);

/// The final path of a directory that may be made.
pub(super) struct OutputPlace {
    wanted: PathBuf,
}

/// A directory that is being made. When dropped, it is removed unless it is finished.
pub(super) struct Started {
    wanted: PathBuf,
    temporary: PathBuf,
    lock: PathBuf,
    /// Held until the lock file is removed.
    _file: File,
    stop: Stop,
    /// Held while the directory changes its name, when no signal may remove anything, and from a removal at a signal until
    /// the process ends, when nothing may be complained about.
    renaming: Arc<Mutex<()>>,
}

impl OutputPlace {
    /// Checks that the directory may be made. Touches nothing.
    pub fn new(output: &Path, force: bool) -> Result<Self, Error> {
        let refuse = |found: &str, expected: &str, advice: &str| {
            let problem = Problem::new(output, "", found, expected);
            Err(Error::config(problem.advise(advice)))
        };
        let another = "choose another --output";
        if output.file_name().is_none() {
            let expected = "the name of a directory to make";
            return refuse("no name", expected, "give --output one");
        }
        // Without a slash at the end, behind which a link is followed.
        let wanted: PathBuf = output.components().collect();
        let metadata = match fs::symlink_metadata(&wanted) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self { wanted }),
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                let found = "a file where a directory should lead to it";
                return refuse(found, "a directory or nothing", another);
            }
            Err(e) => return Err(Error::resource(output, "look at", e)),
        };
        if metadata.is_symlink() {
            let advice = "choose another --output, or name what the link leads to";
            return refuse("a symbolic link", "a directory or nothing", advice);
        }
        if !metadata.is_dir() {
            return refuse("something else there", "a directory or nothing", another);
        }
        if is_mount_point(&wanted, &metadata) {
            let advice = "name a directory in it as --output";
            let found = "a mount point, which cannot be replaced";
            return refuse(found, "a free name", advice);
        }
        let entries = fs::read_dir(&wanted).map_err(|e| Error::resource(output, "read", e))?;
        let is_free = entries.take(1).count() == 0;
        if let Some(name) = (!is_free).then(|| stranger(&wanted)).flatten() {
            let found = format!("a directory that holds other files, {name} for one");
            return refuse(&found, "a free name or a data directory", another);
        }
        if !is_free && !force {
            let advice = "choose another --output or add --force";
            return refuse("an existing data directory", "a free name", advice);
        }
        Ok(Self { wanted })
    }

    /// Removes what killed processes left under this name, and makes a new temporary directory. At a signal it is removed
    /// and the process ends, which may be waiting for a pipe.
    pub fn start(&self, stop: Stop) -> Result<Started, Error> {
        let parent = parent(&self.wanted);
        fs::create_dir_all(parent)
            .map_err(|e| Error::resource(parent, "create the directory", e))?;
        self.clear();
        loop {
            let number = RandomState::new().hash_one(std::process::id());
            let temporary = self.beside(&format!(".tmp-{number:016x}"));
            let lock = self.beside(&format!(".tmp-{number:016x}.lock"));
            let mut file = match File::create_new(&lock) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(Error::resource(&lock, "create", e)),
            };
            // Where a file system knows no locks, what a killed process leaves there stays.
            let _ = file.try_lock();
            let mut create = || -> io::Result<bool> {
                file.write_all(SIGNATURE.as_bytes())?;
                // Between its creation and its lock another process may have taken the file for a leftover.
                if file.metadata()?.nlink() == 0 {
                    return Ok(false);
                }
                fs::create_dir(&temporary).map(|()| true)
            };
            match create() {
                Ok(true) => {}
                Ok(false) => continue,
                Err(e) => {
                    let _ = fs::remove_file(&lock);
                    return Err(Error::resource(&temporary, "create the directory", e));
                }
            }
            let started = Started {
                wanted: self.wanted.clone(),
                temporary,
                lock,
                _file: file,
                stop,
                renaming: Arc::default(),
            };
            started.watch();
            return Ok(started);
        }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.wanted.file_name().unwrap_or_default().to_os_string();
        name.push(ending);
        self.wanted.with_file_name(name)
    }

    /// What cannot be read or removed is none of ours to complain about: the work itself does not need it.
    fn clear(&self) {
        let start = self.beside(".tmp-");
        let start = start.file_name().unwrap_or_default().as_encoded_bytes();
        let entries = fs::read_dir(parent(&self.wanted)).into_iter().flatten();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let rest = name.as_encoded_bytes().strip_prefix(start);
            let number = rest.and_then(|rest| rest.strip_suffix(b".lock"));
            if number.is_some_and(|n| n.len() == 16 && n.iter().all(u8::is_ascii_hexdigit)) {
                let _ = clear(&entry.path());
            }
        }
    }
}

/// Removes a lock file that nobody holds and the directory that belongs to it.
fn clear(lock: &Path) -> io::Result<()> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let mut options = File::options();
    let file = options.read(true).custom_flags(flags).open(lock)?;
    let length = file.metadata()?.len();
    // An empty one was killed before it signed, and before it made its directory.
    let is_ours = length == 0 || fs::read(lock)? == SIGNATURE.as_bytes();
    if !file.metadata()?.is_file() || length > SIGNATURE.len() as u64 || !is_ours {
        return Ok(());
    }
    file.try_lock()?;
    let directory = lock.with_extension("");
    if length > 0 && fs::symlink_metadata(&directory).is_ok_and(|metadata| metadata.is_dir()) {
        fs::remove_dir_all(&directory)?;
    }
    fs::remove_file(lock)
}

impl Started {
    /// The temporary directory to write in.
    pub fn directory(&self) -> &Path {
        &self.temporary
    }

    /// Waits for a signal on a thread of its own.
    fn watch(&self) {
        let (temporary, lock) = (self.temporary.clone(), self.lock.clone());
        let (stop, renaming) = (self.stop.clone(), Arc::downgrade(&self.renaming));
        thread::spawn(move || {
            // Without the other end the work is over.
            while let Some(renaming) = renaming.upgrade() {
                if let Some(signal) = stop.requested() {
                    end(signal, held(&renaming), &temporary, &lock);
                }
                drop(renaming);
                thread::sleep(PAUSE);
            }
        });
    }

    /// Writes the manifest and gives the directory its final name.
    pub fn finish(self, manifest: &str) -> Result<(), Error> {
        let path = self.temporary.join("manifest.json");
        let write = || -> io::Result<()> {
            let mut file = File::create_new(&path)?;
            file.write_all(manifest.as_bytes())?;
            file.sync_all()?;
            File::open(&self.temporary)?.sync_all()
        };
        write().map_err(|e| Error::resource(&path, "write", e))?;
        let held = held(&self.renaming);
        if let Some(signal) = self.stop.requested() {
            end(signal, held, &self.temporary, &self.lock);
        }
        rename(&self.temporary, &self.wanted)
            .map_err(|e| Error::resource(&self.wanted, "put the directory in place", e))
    }
}

/// Gives the new directory the name of the old one, which is never gone meanwhile: they change names.
fn rename(new: &Path, old: &Path) -> io::Result<()> {
    if !old.join("manifest.json").exists() {
        return fs::rename(new, old);
    }
    if renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE).is_ok() {
        return Ok(());
    }
    // A file system that cannot exchange names. The lock file names neither, so a kill in between loses nothing.
    let mut aside = new.as_os_str().to_os_string();
    aside.push(".old");
    let aside = PathBuf::from(aside);
    fs::rename(old, &aside)?;
    fs::rename(new, old).inspect_err(|_| {
        let _ = fs::rename(&aside, old);
    })?;
    fs::remove_dir_all(&aside)
}

impl Drop for Started {
    fn drop(&mut self) {
        let _held = held(&self.renaming);
        remove(&self.temporary, &self.lock);
    }
}

/// After `finish` the directory is gone or holds what was replaced; after an error nobody needs it. A failure to remove
/// it changes nothing.
fn remove(temporary: &Path, lock: &Path) {
    let is_gone = |path: &Path| !path.exists() || fs::remove_dir_all(path).is_ok();
    // A file that was being created makes the first try fail.
    if (0..3).any(|_| is_gone(temporary)) {
        let _ = fs::remove_file(lock);
    }
}

/// Ends the process at a signal; until then, nobody else does anything to the directory.
fn end(signal: i32, _held: MutexGuard<()>, temporary: &Path, lock: &Path) -> ! {
    remove(temporary, lock);
    crate::say::note(&Error::Interrupted { signal }.to_string());
    std::process::exit(128 + signal);
}

fn held(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parent(path: &Path) -> &Path {
    let parent = path.parent().unwrap_or(Path::new(""));
    match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    }
}

/// What a directory holds that `--force` must not remove, because no preparation put it there. The counts of the old data,
/// which `nerve data bigrams` puts beside it, go with it.
fn stranger(directory: &Path) -> Option<String> {
    let name = "manifest.json";
    let bytes = read_regular(&directory.join(name), "a manifest", BYTES_MAX).ok();
    let manifest = bytes.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let parts = ["nerve_version", "splits", "files"];
    let ours = manifest.filter(|manifest| parts.iter().all(|part| !manifest[part].is_null()));
    let Some(manifest) = ours else {
        return Some(name.to_string());
    };
    let is_ours = |entry: &fs::DirEntry| {
        let file = entry.file_name();
        let file = file.to_string_lossy();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let is_known = file == name || manifest["files"].get(&*file).is_some();
        is_file && (is_known || file.ends_with(".safetensors"))
    };
    let mut entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let found = entries.find(|entry| !is_ours(entry))?;
    Some(found.file_name().to_string_lossy().into_owned())
}

/// Whether a directory is where a file system begins; one within the same file system only the system's list knows.
fn is_mount_point(path: &Path, metadata: &fs::Metadata) -> bool {
    let is_other = |above: fs::Metadata| above.dev() != metadata.dev();
    if fs::metadata(parent(path)).is_ok_and(is_other) {
        return true;
    }
    let Ok(path) = fs::canonicalize(path) else {
        return false;
    };
    let list = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = list.lines().filter_map(|line| line.split(' ').nth(4));
    // Spaces and such are written as `\040`.
    let spell = |byte: &u8| match byte {
        b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
        byte => vec![*byte],
    };
    let bytes = path.as_os_str().as_encoded_bytes();
    let spelled: Vec<u8> = bytes.iter().flat_map(spell).collect();
    points.into_iter().any(|point| point.as_bytes() == spelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_process_left_is_cleared_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let place = OutputPlace::new(&root.join("x"), false).unwrap();
        let writing = place.start(Stop::new()).unwrap();
        let theirs = names(root);
        // Left by a kill: its directory and a lock file that nobody holds.
        fs::create_dir(root.join("x.tmp-0123456789abcdef")).unwrap();
        fs::write(root.join("x.tmp-0123456789abcdef/train.bin"), "half").unwrap();
        fs::write(root.join("x.tmp-0123456789abcdef.lock"), SIGNATURE).unwrap();
        // Somebody's own.
        let own = [
            "x.tmp-1",
            "x.tmp-keep",
            "x.tmp-1111111111111111",
            "y.tmp-2222222222222222",
        ];
        own.iter()
            .for_each(|name| fs::create_dir(root.join(name)).unwrap());
        fs::write(
            root.join("x.tmp-1111111111111111.lock"),
            "somebody's own file",
        )
        .unwrap();
        fs::write(root.join("y.tmp-2222222222222222.lock"), SIGNATURE).unwrap();

        let next = place.start(Stop::new()).unwrap();
        let left = names(root);
        assert!(
            !left.iter().any(|name| name.contains("0123456789abcdef")),
            "{left:?}"
        );
        assert!(
            theirs
                .iter()
                .chain(&own.map(String::from))
                .all(|name| left.contains(name))
        );
        drop((writing, next));
        assert_eq!(names(root).len(), own.len() + 2);
    }

    #[test]
    fn a_link_a_mount_and_other_things_are_refused_before_the_work() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("real")).unwrap();
        std::os::unix::fs::symlink(at("real"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("broken")).unwrap();
        fs::write(at("file"), "text").unwrap();
        let refusal = |path: PathBuf| {
            let error = OutputPlace::new(&path, true).err().unwrap();
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        };
        for link in ["link", "link/", "broken"] {
            assert!(refusal(at(link)).contains("found a symbolic link"));
        }
        assert!(refusal(at("file")).contains("found something else there"));
        assert!(refusal("/proc".into()).contains("found a mount point"));
        assert!(OutputPlace::new(&at("real"), false).is_ok());
        assert!(OutputPlace::new(&at("real/deeper/x"), false).is_ok());
    }

    #[test]
    fn the_new_directory_takes_the_name_of_the_old_one_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("x");
        for version in ["one", "two"] {
            let text = format!(r#"{{"nerve_version":"{version}","splits":{{}},"files":{{}}}}"#);
            let started = OutputPlace::new(&output, true)
                .unwrap()
                .start(Stop::new())
                .unwrap();
            started.finish(&text).unwrap();
            assert_eq!(
                fs::read_to_string(output.join("manifest.json")).unwrap(),
                text
            );
            assert_eq!(names(directory.path()), ["x"]);
        }
        let refusal = || OutputPlace::new(&output, true).err().unwrap().to_string();
        fs::write(output.join("mine.txt"), "work").unwrap();
        assert!(refusal().contains("other files, mine.txt for one"));
        fs::remove_file(output.join("mine.txt")).unwrap();
        fs::write(output.join("manifest.json"), r#"{"name":"an app"}"#).unwrap();
        assert!(refusal().contains("other files, manifest.json for one"));
    }
}
