//! Opens regular files to read or write, and reads them up to a limit; refuses FIFOs, which block, and endless devices.
//!
//! `open_stream` and `read_stream` accept pipes too.

use crate::error::{Error, Problem};
use rustix::fs::OFlags;
use std::fs::{self, File, FileType, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Opens a file for reading; links to a file are followed.
///
/// # Errors
/// `Invalid` if there is none, or what is there is a directory, FIFO, socket or device: at once, without a wait.
/// `Resource` if it cannot be opened.
pub fn open_regular(path: &Path, expected: &str) -> Result<File, Error> {
    open(path, expected, |found| require_file(path, expected, found))
}

/// Opens what is of the required kind, without waiting for it.
fn open(
    path: &Path,
    expected: &str,
    require: impl Fn(FileType) -> Result<(), Error>,
) -> Result<File, Error> {
    let unreadable = |cause| Error::unreadable(path, expected, cause);
    // Asked before it is opened, because opening alone moves some devices; and after, because it may be another by then.
    require(fs::metadata(path).map_err(unreadable)?.file_type())?;
    let file = without_waiting(OpenOptions::new().read(true), OFlags::empty())
        .open(path)
        .map_err(unreadable)?;
    require(file.metadata().map_err(unreadable)?.file_type())?;
    Ok(file)
}

/// Reads a whole file of at most `limit` bytes; links to a file are followed.
///
/// # Errors
/// Those of [`open_regular`]; `Invalid` if it is longer; `Resource` if it cannot be read.
pub fn read_regular(path: &Path, expected: &str, limit: u64) -> Result<Vec<u8>, Error> {
    let file = open_regular(path, expected)?;
    let unreadable = |cause| Error::unreadable(path, expected, cause);
    let length = file.metadata().map_err(unreadable)?.len();
    let too_long = |found: String| {
        let expected = format!("{expected} of at most {limit} bytes");
        Err(Error::Invalid(Problem::new(path, "", found, expected)))
    };
    if length > limit {
        return too_long(format!("{length} bytes"));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    // It may grow while it is read.
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    match bytes.len() as u64 > limit {
        true => too_long(format!("more than {limit} bytes")),
        false => Ok(bytes),
    }
}

/// Reads a whole file as text, see [`read_regular`].
///
/// # Errors
/// Those of [`read_regular`]; `Invalid` with the place of the first byte that is no UTF-8.
pub fn read_text(path: &Path, expected: &str, limit: u64) -> Result<String, Error> {
    text(path, read_regular(path, expected, limit)?)
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let found = format!("the byte 0x{:02x}", error.as_bytes()[at]);
        Error::Invalid(Problem::new(path, format!("byte {at}"), found, "UTF-8"))
    })
}

/// Opens a file, or a pipe that somebody writes into (`<(…)`); a pipe without a writer is empty.
///
/// # Errors
/// `Invalid` if there is none, or what is there is a directory, socket or device; `Resource` if it cannot be opened.
pub fn open_stream(path: &Path, expected: &str) -> Result<File, Error> {
    let file = open(path, expected, |found| match found.is_fifo() {
        true => Ok(()),
        false => require_file(path, expected, found),
    })?;
    // Opening did not wait; reading waits for what the writer has to say.
    rustix::fs::fcntl_setfl(&file, OFlags::empty())
        .map_err(|cause| Error::unreadable(path, expected, cause.into()))?;
    Ok(file)
}

/// Reads all of a text of at most `limit` bytes from a file or a pipe.
///
/// # Errors
/// Those of [`open_stream`]; `Invalid` if it is longer or no UTF-8; `Resource` if it cannot be read.
pub fn read_stream(path: &Path, expected: &str, limit: u64) -> Result<String, Error> {
    let mut bytes = Vec::new();
    open_stream(path, expected)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|cause| Error::unreadable(path, expected, cause))?;
    if bytes.len() as u64 > limit {
        let expected = format!("{expected} of at most {limit} bytes");
        let found = format!("more than {limit} bytes");
        return Err(Error::Invalid(Problem::new(path, "", found, expected)));
    }
    text(path, bytes)
}

/// Opens a file of a run for writing, and creates it if absent. Links are not followed: their targets are not the run's.
///
/// # Errors
/// `Invalid` if what is there is no file; `Resource` if it cannot be opened.
pub fn open_own(path: &Path) -> Result<File, Error> {
    let expected = "a file of the run";
    if let Ok(metadata) = fs::symlink_metadata(path) {
        require_file(path, expected, metadata.file_type())?;
    }
    let failed = |cause| Error::resource(path, "open", cause);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = without_waiting(&mut options, OFlags::NOFOLLOW)
        .open(path)
        .map_err(failed)?;
    require_file(path, expected, file.metadata().map_err(failed)?.file_type())?;
    Ok(file)
}

fn without_waiting(options: &mut OpenOptions, more: OFlags) -> &mut OpenOptions {
    options.custom_flags((OFlags::NONBLOCK | more).bits() as i32)
}

fn require_file(path: &Path, expected: &str, found: FileType) -> Result<(), Error> {
    let problem = Problem::new(path, "", kind(found), expected);
    match found.is_file() {
        true => Ok(()),
        false => Err(Error::Invalid(problem)),
    }
}

/// The name of a file type that is not a regular file, for messages.
pub fn kind(found: FileType) -> &'static str {
    match found {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_symlink() => "a symbolic link",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "no file",
    }
}

/// An error as a problem, for callers that collect problems.
pub fn problem(error: Error, path: &Path, expected: &str) -> Problem {
    match error {
        Error::Invalid(problem) => problem,
        Error::Resource { source, .. } => Problem::new(path, "", source.to_string(), expected),
        other => Problem::new(path, "", other.to_string(), expected),
    }
}

/// Makes the directories above a file that will be written.
///
/// # Errors
/// `Resource` if one cannot be made.
pub fn create_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(parent).map_err(|e| Error::resource(parent, "create the directory", e))
}

/// Writes beside the file and renames, so that a file of this name is always whole.
///
/// # Errors
/// `Resource` if it cannot be written; what was written of it is removed.
pub fn write_file(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), Error> {
    create_parent(path)?;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    // A number that no other process has: in containers many have the same id.
    let number = RandomState::new().hash_one(std::process::id());
    name.push(format!(".tmp-{number:016x}"));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut output = BufWriter::new(File::create_new(&temporary)?);
        content(&mut output)?;
        output.flush()?;
        output.get_ref().sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|e| {
        // What is left of it helps nobody; the error that is reported is the first one.
        let _ = fs::remove_file(&temporary);
        Error::resource(path, "write", e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_is_no_file_is_named_at_once() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir(at("directory")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        symlink(at("pipe"), at("link")).unwrap();
        let cases = [
            (at("directory"), "a directory"),
            (at("pipe"), "a pipe"),
            (at("link"), "a pipe"),
            (at("socket"), "a socket"),
            ("/dev/zero".into(), "a device"),
            (at("none"), "no such file"),
        ];
        for (path, found) in cases {
            let error = read_regular(&path, "a list", 9).unwrap_err();
            assert_eq!(error.exit_code(), 3);
            let text = format!("{}: found {found}, expected a list", path.display());
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn a_file_beyond_the_limit_is_not_read() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("list");
        fs::write(&path, "0123456789").unwrap();
        assert_eq!(read_text(&path, "a list", 10).unwrap(), "0123456789");
        let error = read_regular(&path, "a list", 9).unwrap_err().to_string();
        assert!(
            error.ends_with("found 10 bytes, expected a list of at most 9 bytes"),
            "{error}"
        );
        fs::write(&path, b"ab\xff").unwrap();
        let error = read_text(&path, "a list", 9).unwrap_err().to_string();
        assert!(
            error.ends_with("byte 2: found the byte 0xff, expected UTF-8"),
            "{error}"
        );
    }

    #[test]
    fn what_a_run_writes_follows_no_link() {
        let place = tempfile::tempdir().unwrap();
        let (other, link) = (place.path().join("other"), place.path().join("link"));
        fs::write(&other, "theirs").unwrap();
        symlink(&other, &link).unwrap();
        let error = open_own(&link).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let found = "found a symbolic link, expected a file of the run";
        assert!(error.to_string().ends_with(found), "{error}");
        open_own(&place.path().join("fresh")).unwrap();
    }

    #[test]
    fn a_stream_of_just_the_limit_is_read_and_one_byte_more_is_not() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("text");
        fs::write(&path, "0123456789").unwrap();
        assert_eq!(read_stream(&path, "a text", 10).unwrap(), "0123456789");
        let error = read_stream(&path, "a text", 9).unwrap_err().to_string();
        let found = "found more than 9 bytes, expected a text of at most 9 bytes";
        assert!(error.ends_with(found), "{error}");
        // The same file to write in: what it holds stays.
        let mut own = open_own(&path).unwrap();
        io::Write::write_all(&mut own, b"ab").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "ab23456789");
    }
}
