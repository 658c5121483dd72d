//! `Disk`: the file system operations of a checkpoint as a trait, so that tests can fail or stop at the n-th operation; on top
//! of it durable writes with SHA-256 (`HashedFile`), atomic replacement of a file, and unique temporary names.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::hash::hexadecimal;

/// The file system operations that a checkpoint needs.
pub trait Disk {
    /// Makes one directory that does not exist yet.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// Makes and opens one file that does not exist yet.
    fn create(&self, path: &Path) -> io::Result<File>;
    /// Writes some of the bytes and says how many.
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<usize>;
    /// Makes a file's bytes, or a directory's entries, survive a power loss.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Moves a file or directory; a file in the way is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Deletes a file, or a directory with what is in it.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// How many bytes this user may still write there.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// The real file system.
pub struct System;

impl Disk for System {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).open(path)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(file, bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path)?.is_dir() {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        }
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let figures = rustix::fs::statvfs(path)?;
        // A file system without a size, as some that lie elsewhere have, does not know what is free.
        match figures.f_blocks {
            0 => Ok(u64::MAX),
            _ => Ok(figures.f_bavail.saturating_mul(figures.f_frsize)),
        }
    }
}

/// A new file that is hashed while it is written.
pub struct HashedFile<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl<'a> HashedFile<'a> {
    /// Creates the file.
    pub fn create(disk: &'a dyn Disk, path: PathBuf) -> Result<Self, Error> {
        let file = disk
            .create(&path)
            .map_err(|source| Error::resource(&path, "create", source))?;
        Ok(Self {
            disk,
            path,
            file,
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    /// Writes all the bytes; an interrupted or short write is continued.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.disk.write(&mut self.file, rest) {
                Ok(0) => return Err(self.failed("write", io::ErrorKind::WriteZero.into())),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("write", error)),
            }
        }
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes the file durable; returns its size in bytes and its SHA-256.
    pub fn finish(self) -> Result<(u64, String), Error> {
        self.disk
            .sync(&self.file)
            .map_err(|source| self.failed("sync", source))?;
        Ok((self.bytes, hexadecimal(&self.hash.finalize())))
    }

    fn failed(&self, doing: &str, source: io::Error) -> Error {
        Error::resource(&self.path, doing, source)
    }
}

/// Writes a file that does not exist yet and makes it durable; returns its size in bytes and its SHA-256.
pub fn write_file(disk: &dyn Disk, path: PathBuf, content: &[u8]) -> Result<(u64, String), Error> {
    let mut file = HashedFile::create(disk, path)?;
    file.write(content)?;
    file.finish()
}

/// SHA-256 of a file in hexadecimal, without keeping it in memory.
pub fn sha256(mut file: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hexadecimal(&hash.finalize())),
            read => hash.update(&piece[..read]),
        }
    }
}

/// Makes the entries of a directory durable.
pub fn sync_directory(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|directory| disk.sync(&directory))
        .map_err(|source| Error::resource(path, "sync", source))
}

/// Renames a file or directory; the error names the path that was to be moved.
pub fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), Error> {
    disk.rename(from, to)
        .map_err(|source| Error::resource(from, format!("rename to {}", to.display()), source))
}

/// Replaces a small file atomically: a reader sees the old content or the new one, also after a kill.
pub fn replace(disk: &dyn Disk, path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".tmp-{}", nonce()));
    let temporary = PathBuf::from(name);
    let written =
        write_file(disk, temporary.clone(), content).and_then(|_| rename(disk, &temporary, path));
    if written.is_err() {
        // The first error is the one to report; a leftover is removed at the next start.
        let _ = disk.remove(&temporary);
    }
    written?;
    path.parent()
        .map_or(Ok(()), |parent| sync_directory(disk, parent))
}

/// A suffix for temporary names that no earlier process and no earlier call has used.
pub fn nonce() -> String {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!("{:x}-{:x}", std::process::id(), elapsed.as_nanos())
}
