//! Log files of JSON lines that a resume continues exactly where the checkpoint left them.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Problem};

/// A file of one JSON object per line, open for more.
#[derive(Debug)]
pub struct AppendLog {
    path: PathBuf,
    file: File,
    position: u64,
}

impl AppendLog {
    /// Opens a log, made if absent, and cuts it to `position` bytes: the lines beyond will be written again.
    ///
    /// A file shorter than that lost lines no training can bring back; it is continued, and the problem returned.
    ///
    /// # Errors
    /// `Resource` if it cannot be opened or cut.
    pub fn open(path: &Path, position: u64) -> Result<(Self, Option<Problem>), Error> {
        let failed = |source| Error::resource(path, "open", source);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let problem = (length < position).then(|| {
            let (found, expected) = (format!("{length} bytes"), format!("{position} bytes"));
            let advice = "lines are lost; the run goes on without them";
            Problem::new(path, "", found, expected).advise(advice)
        });
        let position = match problem {
            // What is left may end in the middle of a line.
            Some(_) => whole_lines(&mut file).map_err(failed)?,
            None => position,
        };
        let mut log = Self {
            path: path.to_path_buf(),
            file,
            position,
        };
        if length > position {
            log.cut().map_err(failed)?;
        }
        log.file.seek(SeekFrom::Start(position)).map_err(failed)?;
        Ok((log, problem))
    }

    /// Appends one line and hands it to the system, so that readers see it at once.
    ///
    /// # Errors
    /// `Resource` if the disk is full or says no; the file then ends with the line before.
    ///
    /// # Panics
    /// If a value is null: that is what a non-finite number has become, and the caller must leave it out.
    pub fn append(&mut self, object: &Map<String, Value>) -> Result<(), Error> {
        let null = object.iter().find(|(_, value)| value.is_null());
        assert!(null.is_none(), "{}: {null:?} is null", self.path.display());
        let mut line = serde_json::to_vec(object).expect("maps have text keys");
        line.push(b'\n');
        if let Err(source) = self.file.write_all(&line) {
            // If this fails too, the next open cuts the torn line.
            let _ = self.cut();
            return Err(Error::resource(&self.path, "write", source));
        }
        self.position += line.len() as u64;
        Ok(())
    }

    /// The length of the file in bytes: what a checkpoint remembers.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Makes all lines survive a power loss; call it before the checkpoint that remembers the position.
    ///
    /// # Errors
    /// `Resource` if the disk says no.
    pub fn sync(&self) -> Result<(), Error> {
        self.file
            .sync_data()
            .map_err(|source| Error::resource(&self.path, "sync", source))
    }

    fn cut(&mut self) -> std::io::Result<()> {
        self.file.set_len(self.position)?;
        self.file.seek(SeekFrom::Start(self.position)).map(|_| ())
    }
}

fn whole_lines(file: &mut File) -> std::io::Result<u64> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let end = bytes.iter().rposition(|&byte| byte == b'\n');
    Ok(end.map_or(0, |end| end as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn object(step: u64) -> Map<String, Value> {
        Map::from_iter([("step".to_string(), Value::from(step))])
    }

    #[test]
    fn a_resumed_log_is_the_uninterrupted_one_whatever_the_kill_left() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("metrics.jsonl");
        let (mut log, _) = AppendLog::open(&path, 0).unwrap();
        (0..4).for_each(|step| log.append(&object(step)).unwrap());
        let at_checkpoint = log.position();
        (4..9).for_each(|step| log.append(&object(step)).unwrap());
        let whole = fs::read(&path).unwrap();
        for length in at_checkpoint as usize..=whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let (mut log, problem) = AppendLog::open(&path, at_checkpoint).unwrap();
            assert_eq!(problem, None);
            (4..9).for_each(|step| log.append(&object(step)).unwrap());
            log.sync().unwrap();
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn a_log_that_lost_lines_is_reported_and_continued_after_its_last_whole_line() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("metrics.jsonl");
        fs::write(&path, "{\"step\":1}\n{\"st").unwrap();
        let (mut log, problem) = AppendLog::open(&path, 100).unwrap();
        assert!(
            problem
                .unwrap()
                .to_string()
                .contains("found 15 bytes, expected 100 bytes")
        );
        log.append(&object(2)).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\"step\":1}\n{\"step\":2}\n"
        );
    }

    #[test]
    fn a_full_disk_is_a_resource_error() {
        let full = Path::new("/dev/full");
        if full.exists() {
            let (mut log, _) = AppendLog::open(full, 0).unwrap();
            assert_eq!(log.append(&object(1)).unwrap_err().exit_code(), 4);
        }
    }
}
