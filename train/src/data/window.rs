//! Fixed windows over a split: `window` inputs and, one position later, as many targets.

use std::sync::Arc;

use super::DocumentsRule;
use super::shard::Split;
use crate::error::{Error, Problem};

/// Inputs and targets of one sequence; all three lists have the window's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// What the model reads.
    pub inputs: Vec<u32>,
    /// What comes next at each position; the padding id where there is nothing to predict.
    pub targets: Vec<u32>,
    /// `true` where there is something to predict.
    pub valid: Vec<bool>,
    /// The document that all of it belongs to, if it is one.
    pub document: Option<usize>,
    /// How hard the document of its first input is, if that is known.
    pub difficulty: Option<u8>,
}

/// The windows of a split, in stream order.
#[derive(Clone, Debug)]
pub struct Windows {
    split: Arc<Split>,
    window: usize,
    cut: Cut,
    difficulty: Option<Arc<Vec<Option<u8>>>>,
}

#[derive(Clone, Debug)]
enum Cut {
    /// Every `window` tokens; what is left at the end is not read.
    Stream { n_windows: u64 },
    /// Per document; `first[i]` is the number of windows before document `i`, and the last entry that of all.
    Documents { first: Vec<u64> },
}

impl Windows {
    /// Cuts a split into windows of `window` inputs.
    ///
    /// # Errors
    /// `Invalid` if there is not even one window.
    ///
    /// # Panics
    /// If `window` is zero.
    pub fn new(split: Arc<Split>, window: usize, rule: DocumentsRule) -> Result<Self, Error> {
        assert!(window > 0, "a window needs at least one input");
        let cut = match rule {
            DocumentsRule::RunOn => Cut::Stream {
                n_windows: ((split.len() - 1) / window) as u64,
            },
            DocumentsRule::Separate => {
                let n_windows = |tokens: u64| (tokens - 1).div_ceil(window as u64);
                let sum = |before: &mut u64, n: u64| {
                    *before += n;
                    Some(*before)
                };
                let counts = split
                    .documents()
                    .iter()
                    .map(|document| n_windows(document.tokens));
                let first = std::iter::once(0).chain(counts.scan(0, sum)).collect();
                Cut::Documents { first }
            }
        };
        let windows = Self {
            split,
            window,
            cut,
            difficulty: None,
        };
        if windows.is_empty() {
            let (found, expected) = match rule {
                DocumentsRule::RunOn => (
                    format!("{} tokens", windows.split.len()),
                    format!("at least {}", window + 1),
                ),
                DocumentsRule::Separate => {
                    ("documents of one token".into(), "one of at least 2".into())
                }
            };
            let problem = Problem::new(windows.split.path(), "", found, expected);
            return Err(Error::Invalid(
                problem.advise("prepare more text or shorten data.window"),
            ));
        }
        Ok(windows)
    }

    /// The same windows, told how hard each document is.
    pub fn graded(self, difficulty: Option<Vec<Option<u8>>>) -> Self {
        Self {
            difficulty: difficulty.map(Arc::new),
            ..self
        }
    }

    /// How many windows there are.
    pub fn len(&self) -> u64 {
        match &self.cut {
            Cut::Stream { n_windows } => *n_windows,
            Cut::Documents { first } => first.last().copied().unwrap_or(0),
        }
    }

    /// Whether there is none; never true for windows that were made.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Inputs per window.
    pub fn window(&self) -> usize {
        self.window
    }

    /// The split behind.
    pub fn split(&self) -> &Arc<Split> {
        &self.split
    }

    /// A window.
    ///
    /// # Panics
    /// If `index` is not below `len`.
    pub fn get(&self, index: u64) -> Window {
        assert!(
            index < self.len(),
            "window {index} is not below {}",
            self.len()
        );
        match &self.cut {
            Cut::Stream { .. } => {
                let start = index as usize * self.window;
                let end = start + self.window + 1;
                let document = self.split.document_at(start);
                let is_one = self.split.document_at(end - 1) == document;
                self.between(start, end, document, is_one)
            }
            Cut::Documents { first } => {
                let document = first.partition_point(|before| *before <= index) - 1;
                let entry = &self.split.documents()[document];
                let start = entry.start as usize + (index - first[document]) as usize * self.window;
                let end = (start + self.window + 1).min((entry.start + entry.tokens) as usize);
                self.between(start, end, document, true)
            }
        }
    }

    /// The window over the tokens of `start..end`, padded to the full length; it begins in `document`, and lies in it if that
    /// `is_one`.
    fn between(&self, start: usize, end: usize, document: usize, is_one: bool) -> Window {
        let tokens = self.split.tokens(start..end);
        // Nobody looks at it.
        let pad = self.split.specials().pad.unwrap_or(0);
        let padded = |tokens: &[u32]| {
            let mut tokens = tokens.to_vec();
            tokens.resize(self.window, pad);
            tokens
        };
        let n_valid = tokens.len() - 1;
        Window {
            inputs: padded(&tokens[..n_valid]),
            targets: padded(&tokens[1..]),
            valid: (0..self.window)
                .map(|position| position < n_valid)
                .collect(),
            document: is_one.then_some(document),
            difficulty: self.difficulty.as_ref().and_then(|known| known[document]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shard::tests::split_of_lines;
    use super::*;

    fn windows(lines: &[&str], window: usize, rule: DocumentsRule) -> Result<Windows, Error> {
        let split = Split::open(split_of_lines(lines)).unwrap();
        Windows::new(Arc::new(split), window, rule)
    }

    #[test]
    fn running_on_every_window_continues_the_one_before() {
        let windows = windows(&["abcdef", "gh", "ijklm"], 4, DocumentsRule::RunOn).unwrap();
        assert_eq!(windows.len(), 3);
        let stream: Vec<u32> = (0..3).flat_map(|i| windows.get(i).inputs).collect();
        assert_eq!(stream, windows.split().tokens(0..12));
        for i in 0..3 {
            let Window {
                inputs,
                targets,
                valid,
                ..
            } = windows.get(i);
            assert_eq!(inputs[1..], targets[..3]);
            assert!(valid.iter().all(|valid| *valid));
        }
        assert_eq!(
            [0, 1, 2].map(|i| windows.get(i).document),
            [Some(0), None, None]
        );
    }

    #[test]
    fn apart_every_token_but_the_first_of_a_document_is_predicted_once() {
        let windows = windows(&["abcdef", "g", "ijklm"], 4, DocumentsRule::Separate).unwrap();
        let mut predicted = Vec::new();
        for i in 0..windows.len() {
            let Window {
                targets,
                valid,
                document,
                inputs,
                ..
            } = windows.get(i);
            assert_eq!(inputs.len(), 4);
            for (target, valid) in targets.into_iter().zip(valid) {
                match valid {
                    true => predicted.push((document.unwrap(), target)),
                    false => assert_eq!(target, 258),
                }
            }
        }
        let documents = windows.split().documents().iter().enumerate();
        let expected: Vec<(usize, u32)> = documents
            .flat_map(|(i, entry)| {
                let (start, end) = (entry.start as usize, (entry.start + entry.tokens) as usize);
                windows
                    .split()
                    .tokens(start + 1..end)
                    .into_iter()
                    .map(move |id| (i, id))
            })
            .collect();
        assert_eq!(predicted, expected);
    }

    #[test]
    fn too_few_tokens_say_the_minimum() {
        let error = windows(&["abc"], 4, DocumentsRule::RunOn)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("train.bin: found 4 tokens, expected at least 5"),
            "{error}"
        );
        assert!(windows(&["abc"], 3, DocumentsRule::RunOn).is_ok());
        assert_eq!(
            windows(&["abc"], 4, DocumentsRule::Separate).unwrap().len(),
            1
        );
    }
}
