//! Reads the log of a run: the lines of its `metrics.jsonl`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use serde_json::Value;

use crate::file::open_regular;
use crate::run::RunDirectory;

/// Lines are first looked for in this much of the end of the file.
const TAIL_BYTES: u64 = 1 << 18;

/// A line longer than that is none of ours.
const LINE_BYTES: u64 = 1 << 20;

/// A line of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Optimizer steps, over all stages.
    pub step: u64,
    /// The stage's name.
    pub stage: String,
    /// `train`, `valid`, `valid.NAME`.
    pub split: String,
    /// Targets seen in training so far.
    pub tokens: u64,
    /// Seconds of training so far.
    pub wall_s: f64,
    /// Its other numbers, by name.
    pub numbers: BTreeMap<String, f64>,
}

impl Line {
    /// The line of a text, unless it is torn or something else.
    fn parse(text: &str) -> Option<Self> {
        let Value::Object(object) = serde_json::from_str(text).ok()? else {
            return None;
        };
        let named = |name: &str| object.get(name);
        let stage = named("stage").and_then(Value::as_str).unwrap_or("");
        let numbers = object
            .iter()
            .filter(|(name, _)| !NOT_MEASURED.contains(&name.as_str()))
            .filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)));
        Some(Self {
            step: named("step")?.as_u64()?,
            stage: stage.to_string(),
            split: named("split")?.as_str()?.to_string(),
            tokens: named("tokens").and_then(Value::as_u64).unwrap_or(0),
            wall_s: named("wall_s").and_then(Value::as_f64).unwrap_or(0.0),
            numbers: numbers.collect(),
        })
    }

    /// One of its numbers.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.numbers.get(name).copied()
    }
}

/// They say which line it is.
const NOT_MEASURED: [&str; 6] = ["schema", "step", "stage", "split", "tokens", "wall_s"];

/// The last line of each split.
pub type Last = BTreeMap<String, Line>;

/// The last line of every split in the log; an incomplete line, as a kill may leave it, is ignored.
///
/// Only the end of the file is read if it has lines of training and of a validation.
pub fn last(run: &RunDirectory) -> Last {
    let of = |bytes| {
        let mut last = Last::new();
        read(run, bytes, |line| {
            drop(last.insert(line.split.clone(), line))
        });
        last
    };
    let tail = of(TAIL_BYTES);
    let whole = tail.contains_key("train") && tail.contains_key("valid");
    if whole { tail } else { of(u64::MAX) }
}

/// All lines in file order, without their numbers to save memory: a long training has written many.
pub fn places(run: &RunDirectory) -> Vec<Line> {
    let mut places = Vec::new();
    read(run, u64::MAX, |mut line| {
        line.numbers.clear();
        places.push(line);
    });
    places
}

/// Reads the numbers of some lines, found by step, split and stage; a line that is gone by now has none.
pub fn fill<'a>(run: &RunDirectory, lines: impl Iterator<Item = &'a mut Line>) {
    let mut lines: Vec<&mut Line> = lines.collect();
    let place = |line: &Line| (line.step, line.split.clone(), line.stage.clone());
    read(run, u64::MAX, |read| {
        let wanted = lines.iter_mut().filter(|line| place(line) == place(&read));
        wanted.for_each(|line| line.numbers.clone_from(&read.numbers));
    });
}

/// Hands over the lines in the last so many bytes; none if there is no such file or it is something else.
fn read(run: &RunDirectory, last_bytes: u64, mut with: impl FnMut(Line)) {
    let Ok(mut file) = open_regular(&run.metrics(), "the log of a run") else {
        return;
    };
    let Ok(metadata) = file.metadata() else {
        return;
    };
    let start = metadata.len().saturating_sub(last_bytes);
    if file.seek(SeekFrom::Start(start)).is_err() {
        return;
    }
    // Lines that a training appends meanwhile are not waited for.
    let mut reader = BufReader::new(file.take(metadata.len() - start));
    let mut bytes = Vec::new();
    let mut next = |bytes: &mut Vec<u8>| {
        bytes.clear();
        reader.by_ref().take(LINE_BYTES).read_until(b'\n', bytes)
    };
    while let Ok(1..) = next(&mut bytes) {
        let line = Line::parse(&String::from_utf8_lossy(&bytes));
        line.into_iter().for_each(&mut with);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::RunInfo;
    use std::fs;

    #[test]
    fn the_last_line_of_every_split_is_found_before_a_torn_one() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(root.path(), "run", "", RunInfo::new("test")).unwrap();
        assert_eq!(last(&run), Last::new());
        let mut text = r#"{"step":1,"stage":"a","split":"valid","tokens":5,"loss/lm":3.75}"#
            .to_string()
            + "\n";
        for step in 1..6000 {
            text += &format!(
                "{{\"step\":{step},\"stage\":\"a\",\"split\":\"train\",\"loss/lm\":3.25,\"wall_s\":2.5}}\n"
            );
        }
        text += r#"{"step":6000,"split":"tra"#;
        assert!(text.len() as u64 > TAIL_BYTES);
        fs::write(run.metrics(), text).unwrap();
        let last = last(&run);
        let train = &last["train"];
        assert_eq!(
            (train.step, train.number("loss/lm"), train.wall_s),
            (5999, Some(3.25), 2.5)
        );
        let valid = &last["valid"];
        assert_eq!(
            (valid.step, valid.tokens, valid.number("loss/lm")),
            (1, 5, Some(3.75))
        );
        assert_eq!(valid.numbers.len(), 1);
        let mut places = places(&run);
        assert_eq!(places.len(), 6000);
        fill(&run, places.iter_mut().take(2));
        let losses: Vec<_> = places[..3]
            .iter()
            .map(|line| line.number("loss/lm"))
            .collect();
        assert_eq!(losses, [Some(3.75), Some(3.25), None]);
    }
}
