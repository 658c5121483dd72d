//! Reads a frequency file of the reference, `source → target → count`, which decides which token pair owns which row.
//!
//! A pair whose count is 0 shares row 0. All others own a row, in the order of the vocabulary, and so
//! do pairs that the file does not mention: the reference only looks for zeros. The file may hold millions of numbers,
//! zeros included. Only pairs that own a row are kept, and no more of them than the weights have rows.

use super::json::{self, Entries, Fault, Object, Whole, shown};
use super::vocabulary::Vocabulary;
use crate::error::{Error, Problem};
use brillm::counts::PairCounts;
use serde::de::MapAccess;
use std::path::Path;

/// What is expected of such a file.
const EXPECTED: &str = "an object of sources, each an object of targets and their counts";

/// The content of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Frequencies {
    /// The pairs that own a row. One that the file does not mention stands here with a count of 0.
    pub counts: PairCounts,
    /// How many pairs that own a row are not mentioned in the file.
    pub unmentioned: u64,
    /// How many entries name a token that the vocabulary does not have; the reference never looks at them.
    pub foreign: u64,
    /// SHA-256 of the file.
    pub sha256: String,
}

impl Frequencies {
    /// Reads a file whose pairs must own all but the first of `rows` rows.
    ///
    /// # Errors
    /// `Invalid` with line and column if it is missing or broken, if a source is missing, or with both numbers if more or
    /// fewer pairs own a row.
    pub fn load(path: &Path, vocabulary: &Vocabulary, rows: usize) -> Result<Self, Error> {
        let fault = Fault::default();
        let reading = Reading::new(vocabulary, rows, &fault);
        let (reading, sha256) = json::read(path, &fault, reading)?;
        let owned = reading.owned + 1;
        if let Some(missing) = reading.sources.iter().position(Option::is_none) {
            let token = shown(&vocabulary.tokens()[missing]);
            let found = format!("no source {token}");
            let expected = format!("all {} tokens of the vocabulary", vocabulary.tokens().len());
            return Err(Error::Invalid(Problem::new(path, "", found, expected)));
        }
        if owned != rows as u64 {
            let found = format!("{} pairs that own a row, so {owned} rows", owned - 1);
            let expected = format!("{rows} rows, as the weights have");
            let problem = Problem::new(path, "", found, expected);
            let advice = "vocabulary, counts and weights must be of one release: rows are never padded or trimmed";
            return Err(Error::Invalid(problem.advise(advice)));
        }
        let (unmentioned, foreign) = (reading.unmentioned, reading.foreign);
        Ok(Self {
            counts: reading.counts(),
            unmentioned,
            foreign,
            sha256,
        })
    }
}

/// Targets and counts of one source.
type Row = (Vec<u32>, Vec<u32>);

struct Reading<'a> {
    vocabulary: &'a Vocabulary,
    fault: &'a Fault,
    /// The most pairs that can own a row; more are counted and not kept.
    most: u64,
    owned: u64,
    unmentioned: u64,
    foreign: u64,
    sources: Vec<Option<Row>>,
    tokens: Vec<u64>,
    /// The counts of the source that is being read; nothing between two sources.
    cells: Vec<Option<u32>>,
    /// Which of them are there, in the order of the file.
    mentioned: Vec<u32>,
}

impl<'a> Reading<'a> {
    fn new(vocabulary: &'a Vocabulary, rows: usize, fault: &'a Fault) -> Self {
        let nodes = vocabulary.tokens().len();
        Self {
            vocabulary,
            fault,
            most: (rows as u64).saturating_sub(1),
            owned: 0,
            unmentioned: 0,
            foreign: 0,
            sources: vec![None; nodes],
            tokens: vec![0; nodes],
            cells: vec![None; nodes],
            mentioned: Vec::new(),
        }
    }

    /// Takes over the cells of a source, which costs what is mentioned and what is kept, however many tokens there are.
    fn finish(&mut self, source: u32, zeros: u64) {
        let nodes = self.cells.len() as u64;
        self.unmentioned += nodes - self.mentioned.len() as u64;
        self.owned += nodes - zeros;
        let mut row = Row::default();
        if self.owned <= self.most {
            let owning = self.cells.iter().zip(0..);
            for (cell, target) in owning.filter(|(cell, _)| **cell != Some(0)) {
                row.0.push(target);
                row.1.push(cell.unwrap_or(0));
            }
        }
        let seen = self.mentioned.iter();
        let counts = seen.filter_map(|&target| self.cells[target as usize]);
        self.tokens[source as usize] = counts.map(u64::from).sum();
        self.sources[source as usize] = Some(row);
    }

    fn counts(self) -> PairCounts {
        let mut first = vec![0];
        let (mut targets, mut counts) = (Vec::new(), Vec::new());
        for (row_targets, row_counts) in self.sources.into_iter().flatten() {
            targets.extend(row_targets);
            counts.extend(row_counts);
            first.push(targets.len() as u64);
        }
        PairCounts {
            first,
            targets,
            counts,
            tokens: self.tokens,
        }
    }
}

impl Entries for Reading<'_> {
    const EXPECTED: &'static str = EXPECTED;

    fn entry<'de, A: MapAccess<'de>>(&mut self, name: String, map: &mut A) -> Result<(), A::Error> {
        let source = self.vocabulary.id(&name);
        if source.is_some_and(|source| self.sources[source as usize].is_some()) {
            let found = format!("the source {} a second time", shown(&name));
            return Err(self.fault.stop(found, "every source once"));
        }
        for target in self.mentioned.drain(..) {
            self.cells[target as usize] = None;
        }
        let targets = Targets {
            reading: self,
            source,
            zeros: 0,
        };
        let Targets { zeros, .. } = map.next_value_seed(Object(targets))?;
        if let Some(source) = source {
            self.finish(source, zeros);
        }
        Ok(())
    }
}

/// An inner object.
struct Targets<'r, 'a> {
    reading: &'r mut Reading<'a>,
    /// Nothing for a token that the vocabulary does not have.
    source: Option<u32>,
    /// How many counts are 0.
    zeros: u64,
}

impl Entries for Targets<'_, '_> {
    const EXPECTED: &'static str = "an object of targets and their counts";

    fn entry<'de, A: MapAccess<'de>>(&mut self, name: String, map: &mut A) -> Result<(), A::Error> {
        let reading = &mut *self.reading;
        let (what, fault) = ("a count", reading.fault);
        let count = map.next_value_seed(Whole { what, fault })?;
        let Ok(count) = u32::try_from(count) else {
            let expected = format!("a count of at most {}", u32::MAX);
            return Err(fault.stop(count.to_string(), expected));
        };
        let target = self.source.and_then(|_| reading.vocabulary.id(&name));
        let Some(target) = target else {
            reading.foreign += 1;
            return Ok(());
        };
        if reading.cells[target as usize].replace(count).is_some() {
            let found = format!("the target {} a second time", shown(&name));
            return Err(fault.stop(found, "every target of a source once"));
        }
        reading.mentioned.push(target);
        self.zeros += u64::from(count == 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::vocabulary::tests::vocabulary;
    use super::*;
    use brillm::graph::BackOff;

    const VOCABULARY: &str = r#"{"<unk>": 0, "b": 1, "a": 2}"#;

    /// Sources and targets in other orders than the vocabulary's; `b → <unk>` is not mentioned.
    const COUNTS: &str = "{\"a\": {\"a\": 0, \"b\": 7, \"<unk>\": 1},\n\
                          \"<unk>\": {\"a\": 4, \"b\": 0, \"<unk>\": 0},\n\
                          \"b\": {\"b\": 0, \"a\": 9, \"z\": 3}, \"z\": {\"b\": 2}}";

    fn load(text: &[u8], rows: usize) -> Result<Frequencies, Error> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("counts.json");
        std::fs::write(&path, text).unwrap();
        Frequencies::load(&path, &vocabulary(VOCABULARY).unwrap(), rows)
    }

    fn refusal(text: &str, rows: usize) -> String {
        let error = load(text.as_bytes(), rows).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let text = error.to_string();
        assert_eq!(text.lines().count(), 1);
        text.split_once("counts.json: ").unwrap().1.to_string()
    }

    #[test]
    fn rows_follow_the_vocabulary_and_pairs_without_a_count_own_one() {
        let found = load(COUNTS.as_bytes(), 6).unwrap();
        assert_eq!((found.unmentioned, found.foreign), (1, 2));
        let counts = &found.counts;
        assert_eq!(counts.check(), Ok(()));
        assert_eq!(counts.tokens, [4, 9, 8]);
        let graph = counts.graph(0, BackOff::SharedRow);
        assert_eq!(graph.rows(), 6);
        let rows = [(0, 2), (1, 0), (1, 2), (2, 0), (2, 1)];
        for (row, (source, target)) in (1..).zip(rows) {
            assert_eq!(graph.row(source, target), row);
        }
        assert_eq!((graph.row(0, 1), graph.row(1, 1)), (0, 0));
        // Without the pair that is not mentioned.
        assert_eq!(counts.graph(1, BackOff::SharedRow).rows(), 5);
    }

    #[test]
    fn another_number_of_rows_is_refused_with_both_numbers_and_bounded_memory() {
        for rows in [0, 1, 5, 7, 999_999] {
            let refusal = refusal(COUNTS, rows);
            let numbers = format!("found 5 pairs that own a row, so 6 rows, expected {rows} rows");
            assert!(refusal.contains(&numbers), "{refusal}");
            assert!(refusal.contains("never padded or trimmed"), "{refusal}");
        }
    }

    #[test]
    fn each_fault_is_named_with_its_place() {
        let cases = [
            (
                "\"a\": 9",
                "\"a\": 9.5",
                "line 3, column 23: found 9.5, expected a count",
            ),
            (
                "\"a\": 9",
                "\"a\": -9",
                "found -9, expected a count, a whole number of at least 0",
            ),
            (
                "\"a\": 9",
                "\"a\": \"9\"",
                "found the text \"9\", expected a count",
            ),
            ("\"a\": 9", "\"a\": [9]", "found a list, expected a count"),
            (
                "\"a\": 9",
                "\"a\": 4294967296",
                "found 4294967296, expected a count of at most 4294967295",
            ),
            ("\"a\": 9", "\"a\": NaN", "found no JSON"),
            (
                "\"a\": 9",
                "\"a\": 1e999",
                "found no JSON (number out of range)",
            ),
            (
                "\"a\": 9",
                "\"b\": 9",
                "found the target \"b\" a second time",
            ),
            (
                "\"z\": {",
                "\"b\": {",
                "found the source \"b\" a second time",
            ),
            (
                "\"<unk>\": {",
                "\"x\": {",
                "found no source \"<unk>\", expected all 3 tokens",
            ),
            (
                "{\"b\": 2}",
                "2",
                "found invalid type: integer `2`, expected an object of targets",
            ),
            ("}}", "}", "found no JSON (EOF while parsing"),
        ];
        for (truth, fault, expected) in cases {
            let refusal = refusal(&COUNTS.replacen(truth, fault, 1), 6);
            assert!(refusal.contains(expected), "{fault}: {refusal}");
        }
    }

    #[test]
    fn no_cut_and_no_changed_byte_is_a_panic() {
        let whole = COUNTS.as_bytes();
        for length in 0..whole.len() {
            assert_eq!(load(&whole[..length], 6).unwrap_err().exit_code(), 3);
        }
        for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut flipped = whole.to_vec();
            flipped[at] ^= 1 << bit;
            match load(&flipped, 6) {
                // One count for another is a file like any other, as long as the rows are as many.
                Ok(found) => assert_eq!(found.counts.check(), Ok(())),
                Err(error) => {
                    assert_eq!(error.exit_code(), 3);
                    assert_eq!(error.to_string().lines().count(), 1);
                }
            }
        }
    }
}
