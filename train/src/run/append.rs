//! Log files of JSON lines; a resume continues them exactly where the checkpoint left them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Problem};
use crate::file::open_own;

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
    /// A file that is shorter, or has no line end there, has lost lines for good. It is continued after its last whole
    /// line, and the problem is returned.
    ///
    /// # Errors
    /// `Invalid` if what is there is no file, but a link for instance; `Resource` if it cannot be opened or cut.
    pub fn open(path: &Path, position: u64) -> Result<(Self, Option<Problem>), Error> {
        Self::over(path, open_own(path)?, position)
    }

    fn over(path: &Path, mut file: File, position: u64) -> Result<(Self, Option<Problem>), Error> {
        let failed = |source| Error::resource(path, "open", source);
        let length = file.metadata().map_err(failed)?.len();
        let ends = whole_lines(&mut file, position).map_err(failed)?;
        let problem = (ends != position).then(|| {
            let found = match length < position {
                true => format!("{length} bytes"),
                false => format!("no end of a line at byte {position}"),
            };
            let advice = "lines are lost; the run goes on without them";
            Problem::new(path, "", found, format!("{position} bytes")).advise(advice)
        });
        let position = ends;
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

/// The end of the last whole line within the first `most` bytes.
fn whole_lines(file: &mut File, most: u64) -> std::io::Result<u64> {
    let mut end = file.metadata()?.len().min(most);
    let mut piece = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(piece.len() as u64);
        let piece = &mut piece[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(piece)?;
        if let Some(at) = piece.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
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
        let (mut log, problem) = AppendLog::open(&path, 15).unwrap();
        let found = "found no end of a line at byte 15, expected 15 bytes";
        assert!(problem.unwrap().to_string().contains(found));
        log.append(&object(3)).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\"step\":1}\n{\"step\":3}\n"
        );
    }

    #[test]
    fn a_full_disk_is_a_resource_error() {
        let full = Path::new("/dev/full");
        if full.exists() {
            let file = File::options().write(true).open(full).unwrap();
            let (mut log, _) = AppendLog::over(full, file, 0).unwrap();
            assert_eq!(log.append(&object(1)).unwrap_err().exit_code(), 4);
        }
    }
}
