//! `Windows`: cuts a split into windows of inputs, next-token targets, mask and byte count, by rules for documents and stride.
//!
//! With the start symbol ([`Beginning::Symbol`]) every token of every document is a target exactly once, whatever the
//! window: the symbol stands before each document as context and is never a target.

use std::ops::Range;
use std::sync::Arc;

use super::packing::Packing;
use super::shard::Split;
use super::{DataConfig, DocumentsRule, StartRule, Tokenizer};
use crate::error::{Error, Problem};

/// Inputs and targets of one sequence; the lists have the window's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Input tokens.
    pub inputs: Vec<u32>,
    /// Target tokens: the next token at each position; the padding id behind the last one.
    pub targets: Vec<u32>,
    /// `true` where the target counts.
    pub valid: Vec<bool>,
    /// Bytes of the source that the counted targets stand for.
    pub bytes: u64,
    /// The document that the whole window belongs to, if it is a single one.
    pub document: Option<usize>,
    /// The lengths of its parts, which know nothing of each other; padding belongs to the last. One, unless documents are packed.
    pub parts: Vec<usize>,
    /// For each part, the difficulty of the document of its first input, if known.
    pub difficulty: Vec<Option<u8>>,
}

/// What comes before the first token of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// This start symbol, as context: it is never predicted, but the first token is.
    Symbol(u32),
    /// Nothing, because the tokenizer has no such symbol: the first token is context only.
    Unmarked,
    /// The rule of older runs: the first token is context only, but where documents run on it is predicted from the
    /// previous document.
    FirstToken,
}

impl Beginning {
    /// The beginning that a recipe's rule gives with a tokenizer.
    pub fn of(rule: StartRule, tokenizer: &Tokenizer) -> Self {
        match (rule, tokenizer.start_symbol()) {
            (StartRule::FirstToken, _) => Self::FirstToken,
            (StartRule::Symbol, Some(symbol)) => Self::Symbol(symbol),
            (StartRule::Symbol, None) => Self::Unmarked,
        }
    }
}

/// How a split is cut into windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The largest number of inputs per window.
    pub window: usize,
    /// Whether windows run across the ends of documents.
    pub documents: DocumentsRule,
    /// What comes before the first token of a document.
    pub beginning: Beginning,
    /// Each window begins this many targets after the one before. In all but the first, only the last so many targets
    /// count, so that each has the longest context. `None`: windows do not overlap.
    pub stride: Option<usize>,
    /// Whether an incomplete last window is left out, as in older training runs where documents run on
    /// ([`Beginning::FirstToken`]).
    pub full_only: bool,
}

impl Cut {
    /// How a recipe cuts its training splits.
    pub fn training(config: &DataConfig, tokenizer: &Tokenizer) -> Self {
        let beginning = Beginning::of(config.start, tokenizer);
        Self {
            window: config.window,
            documents: config.documents,
            beginning,
            stride: None,
            full_only: beginning == Beginning::FirstToken
                && config.documents == DocumentsRule::RunOn,
        }
    }

    /// How a recipe cuts splits for evaluation: nothing is left out.
    pub fn measuring(config: &DataConfig, tokenizer: &Tokenizer) -> Self {
        Self {
            full_only: false,
            ..Self::training(config, tokenizer)
        }
    }
}

/// The windows of a split, in stream order.
#[derive(Clone, Debug)]
pub struct Windows {
    split: Arc<Split>,
    cut: Cut,
    /// The number of pieces before each stretch (a document, or the whole split where documents run on), and that of all. A piece is a
    /// window, unless pieces are packed.
    first: Vec<u64>,
    packing: Option<Packing>,
    /// How many tokens and symbols lie before each document, and how many there are in all.
    begins: Vec<u64>,
    token_bytes: Arc<Vec<u32>>,
    difficulty: Option<Arc<Vec<Option<u8>>>>,
}

/// One position of a stretch: a token of the split, or a start symbol.
#[derive(Clone, Copy, Debug)]
struct TargetPlace {
    id: u32,
    /// Its position in the split; none for a symbol that was put in.
    position: Option<usize>,
    document: usize,
    is_target: bool,
}

impl Windows {
    /// Cuts a split. `token_bytes`: how many bytes each id usually stands for.
    ///
    /// # Errors
    /// `Invalid` if there is nothing to predict, or, with `full_only`, not even one window.
    ///
    /// # Panics
    /// If the window or the stride is zero, or the stride beyond the window.
    pub fn new(split: Arc<Split>, cut: Cut, token_bytes: Arc<Vec<u32>>) -> Result<Self, Error> {
        assert!(cut.window > 0, "a window needs at least one input");
        let is_within = |stride| (1..=cut.window).contains(&stride);
        let expected = "a stride is at least one target, and leaves none of a window out";
        assert!(cut.stride.is_none_or(is_within), "{expected}");
        let mut windows = Self {
            begins: begins(&split, &cut),
            split,
            cut,
            first: vec![0],
            packing: None,
            token_bytes,
            difficulty: None,
        };
        let stretches = match cut.documents {
            DocumentsRule::RunOn => 1,
            DocumentsRule::Separate | DocumentsRule::Packed => windows.split.documents().len(),
        };
        for stretch in 0..stretches {
            let Range { start, end } = windows.stretch(stretch);
            let before = windows.n_pieces();
            windows.first.push(before + windows.n_windows(end - start));
        }
        if cut.documents == DocumentsRule::Packed {
            let n_inputs = |piece| {
                let (places, _) = windows.bounds(piece);
                (places.end - places.start) as usize - 1
            };
            let lengths = (0..windows.n_pieces()).map(n_inputs);
            windows.packing = Some(Packing::best_fit(lengths, cut.window));
        }
        match windows.has_target() {
            true => Ok(windows),
            false => Err(windows.nothing()),
        }
    }

    /// The same windows, with the difficulty of each document.
    pub fn graded(self, difficulty: Option<Vec<Option<u8>>>) -> Self {
        Self {
            difficulty: difficulty.map(Arc::new),
            ..self
        }
    }

    /// How many windows there are.
    pub fn len(&self) -> u64 {
        let packing = self.packing.as_ref();
        packing.map_or_else(|| self.n_pieces(), Packing::n_windows)
    }

    /// Whether there are no windows; never true, because [`Windows::new`] refuses that.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most inputs per window.
    pub fn window(&self) -> usize {
        self.cut.window
    }

    /// The share of all inputs that is padding, where windows do not overlap.
    pub fn padding(&self) -> f64 {
        let stretches = 0..self.first.len() - 1;
        let inputs = stretches.map(|stretch| {
            let Range { start, end } = self.stretch(stretch);
            (end - start).saturating_sub(1)
        });
        let (inputs, room) = (inputs.sum::<u64>(), self.len() * self.cut.window as u64);
        1.0 - inputs.min(room) as f64 / room as f64
    }

    /// The split that the windows are cut from.
    pub fn split(&self) -> &Arc<Split> {
        &self.split
    }

    /// The window at an index.
    ///
    /// # Panics
    /// If `index` is not below `len`.
    pub fn get(&self, index: u64) -> Window {
        let parts = self.parts(index);
        let document = parts[0][0].document;
        let is_one = parts.iter().flatten().all(|at| at.document == document);
        let mut window = Window {
            inputs: Vec::with_capacity(self.cut.window),
            targets: Vec::with_capacity(self.cut.window),
            valid: Vec::with_capacity(self.cut.window),
            bytes: 0,
            document: is_one.then_some(document),
            parts: Vec::with_capacity(parts.len()),
            difficulty: Vec::with_capacity(parts.len()),
        };
        for places in &parts {
            let targets = &places[1..];
            let inputs = places[..targets.len()].iter();
            window.inputs.extend(inputs.map(|input| input.id));
            window
                .targets
                .extend(targets.iter().map(|target| target.id));
            let valid = targets.iter().map(|target| target.is_target);
            window.valid.extend(valid);
            window.bytes += self.bytes(targets);
            window.parts.push(targets.len());
            let known = self.difficulty.as_ref();
            let difficulty = known.and_then(|known| known[places[0].document]);
            window.difficulty.push(difficulty);
        }
        // Nobody looks at it.
        let pad = self.split.specials().pad.unwrap_or(0);
        let missing = self.cut.window - window.inputs.len();
        *window.parts.last_mut().expect("no window is empty") += missing;
        window.inputs.resize(self.cut.window, pad);
        window.targets.resize(self.cut.window, pad);
        window.valid.resize(self.cut.window, false);
        window
    }

    /// The documents of a window's counted targets, in their order.
    ///
    /// # Panics
    /// If `index` is not below `len`.
    pub fn documents_of_targets(&self, index: u64) -> Vec<usize> {
        let parts = self.parts(index);
        let targets = parts.iter().flat_map(|places| &places[1..]);
        let counted = targets.filter(|place| place.is_target);
        counted.map(|place| place.document).collect()
    }

    /// How many windows, from the first on, hold at least `targets` counted targets; all windows if there are fewer.
    pub fn enough_for(&self, targets: u64) -> u64 {
        let mut counted = 0;
        let is_enough = |index: &u64| {
            counted += self.documents_of_targets(*index).len() as u64;
            counted >= targets
        };
        (0..self.len())
            .find(is_enough)
            .map_or(self.len(), |last| last + 1)
    }

    /// The number of counted targets in all windows.
    pub fn n_targets(&self) -> u64 {
        let tokens = self.split.len() as u64;
        let documents = self.split.documents().len() as u64;
        match (self.cut.beginning, self.cut.documents) {
            (Beginning::Symbol(_), _) => tokens,
            (Beginning::FirstToken, DocumentsRule::RunOn) if self.cut.full_only => {
                self.len() * self.cut.window as u64
            }
            (Beginning::FirstToken, DocumentsRule::RunOn) => tokens - 1,
            (Beginning::Unmarked | Beginning::FirstToken, _) => tokens - documents,
        }
    }

    /// The positions of a stretch among those of all, symbols included.
    fn stretch(&self, stretch: usize) -> Range<u64> {
        match self.cut.documents {
            DocumentsRule::Separate | DocumentsRule::Packed => {
                self.begins[stretch]..self.begins[stretch + 1]
            }
            DocumentsRule::RunOn => 0..self.begins[self.split.documents().len()],
        }
    }

    fn n_windows(&self, length: u64) -> u64 {
        let (targets, window) = (length.saturating_sub(1), self.cut.window as u64);
        match self.cut.stride {
            None if self.cut.full_only => targets / window,
            None => targets.div_ceil(window),
            Some(_) if targets <= window => targets.min(1),
            Some(stride) => 1 + (targets - window).div_ceil(stride as u64),
        }
    }

    fn n_pieces(&self) -> u64 {
        self.first.last().copied().unwrap_or(0)
    }

    /// The pieces of a window.
    fn parts(&self, index: u64) -> Vec<Vec<TargetPlace>> {
        let len = self.len();
        assert!(index < len, "window {index} is not below {len}");
        let pieces = match &self.packing {
            Some(packing) => packing.pieces(index),
            None => &[index],
        };
        pieces.iter().map(|&piece| self.piece(piece)).collect()
    }

    /// The inputs of a piece and its last target.
    fn piece(&self, piece: u64) -> Vec<TargetPlace> {
        let (range, n_seen) = self.bounds(piece);
        let mut places = self.between(range);
        // Targets of the window before serve as context only.
        let seen = &mut places[..=n_seen];
        seen.iter_mut().for_each(|place| place.is_target = false);
        places
    }

    /// Where a piece lies among the positions of all stretches, and how many of its targets serve as context only.
    fn bounds(&self, piece: u64) -> (Range<u64>, usize) {
        let stretch = self.first.partition_point(|before| *before <= piece) - 1;
        let (nth, window) = (piece - self.first[stretch], self.cut.window as u64);
        let begin = self.stretch(stretch).start;
        let last = self.stretch(stretch).end - begin - 1;
        let (counted, end) = match self.cut.stride {
            Some(stride) if nth > 0 => {
                let counted = window + (nth - 1) * stride as u64;
                (counted, (counted + stride as u64).min(last))
            }
            _ => (nth * window, ((nth + 1) * window).min(last)),
        };
        let start = match self.cut.stride {
            Some(_) => end.saturating_sub(window),
            None => counted,
        };
        (begin + start..begin + end + 1, (counted - start) as usize)
    }

    fn between(&self, range: Range<u64>) -> Vec<TargetPlace> {
        let wanted = (range.end - range.start) as usize;
        let mut places = Vec::with_capacity(wanted);
        let mut document = self.begins.partition_point(|begin| *begin <= range.start) - 1;
        let mut at = range.start - self.begins[document];
        while places.len() < wanted {
            let entry = &self.split.documents()[document];
            let has_symbol = self.begins[document + 1] - self.begins[document] > entry.tokens;
            let symbol = match self.cut.beginning {
                Beginning::Symbol(symbol) if has_symbol => Some(symbol),
                _ => None,
            };
            if let (Some(id), 0) = (symbol, at) {
                places.push(TargetPlace {
                    id,
                    position: None,
                    document,
                    is_target: false,
                });
                at = 1;
                continue;
            }
            let offset = at - u64::from(symbol.is_some());
            let start = (entry.start + offset) as usize;
            let left = (entry.tokens - offset) as usize;
            let end = start + left.min(wanted - places.len());
            let ids = self.split.tokens(start..end);
            let all_count = self.cut.beginning != Beginning::Unmarked;
            let place = |(id, position)| TargetPlace {
                id,
                position: Some(position),
                document,
                is_target: position as u64 > entry.start || all_count,
            };
            places.extend(ids.into_iter().zip(start..).map(place));
            (document, at) = (document + 1, 0);
        }
        places
    }

    /// Bytes of the counted targets: of runs of neighbours, for a whole document may know more than its tokens.
    fn bytes(&self, targets: &[TargetPlace]) -> u64 {
        let counted = targets.iter().filter(|target| target.is_target);
        let mut positions = counted.filter_map(|target| target.position).peekable();
        let mut bytes = 0;
        while let Some(start) = positions.next() {
            let mut end = start + 1;
            while positions.next_if_eq(&end).is_some() {
                end += 1;
            }
            bytes += self.split.span_bytes(start..end, &self.token_bytes);
        }
        bytes
    }

    fn has_target(&self) -> bool {
        !self.is_empty() && self.n_targets() > 0
    }

    fn nothing(&self) -> Error {
        let (found, expected) = match self.cut.documents {
            DocumentsRule::RunOn if self.cut.full_only => (
                format!("{} tokens", self.split.len()),
                format!("at least {}", self.cut.window + 1),
            ),
            _ => (
                "documents of one token, and no symbol that begins them".into(),
                "one of at least 2".into(),
            ),
        };
        let problem = Problem::new(self.split.path(), "", found, expected);
        Error::Invalid(problem.advise("prepare more text, or shorten data.window"))
    }
}

/// How many tokens and symbols lie before each document, and how many there are in all.
fn begins(split: &Split, cut: &Cut) -> Vec<u64> {
    let run_on = cut.documents == DocumentsRule::RunOn;
    let mut begins = vec![0];
    let mut end = 0;
    for document in split.documents() {
        let start = document.start as usize;
        // Where documents run on, a symbol that is there already, as the end of the document before, serves for both.
        let is_there = |symbol| run_on && start > 0 && split.tokens(start - 1..start)[0] == symbol;
        let has_symbol = match cut.beginning {
            Beginning::Symbol(symbol) => !is_there(symbol),
            Beginning::Unmarked | Beginning::FirstToken => false,
        };
        end += u64::from(has_symbol) + document.tokens;
        begins.push(end);
    }
    begins
}

#[cfg(test)]
mod tests {
    use super::super::shard::tests::{split_of_lines, split_with};
    use super::super::{DifficultySource, Kind};
    use super::*;
    use brian::random;

    const LINES: [&str; 4] = ["abcdef", "g", "ijklm", "n"];
    /// `<s>` and `</s>` of the byte tokenizer.
    const BEGIN: u32 = 256;
    const END: u32 = 257;

    fn cut(window: usize, documents: DocumentsRule, beginning: Beginning) -> Cut {
        Cut {
            window,
            documents,
            beginning,
            stride: None,
            full_only: false,
        }
    }

    fn windows(lines: &[&str], cut: Cut) -> Result<Windows, Error> {
        let split = Split::open(split_of_lines(lines)).unwrap();
        let bytes = (0..260).map(|id| u32::from(id < 256)).collect();
        Windows::new(Arc::new(split), cut, Arc::new(bytes))
    }

    /// Each counted target with its document and what precedes it.
    fn predicted(windows: &Windows) -> Vec<(usize, u32, Vec<u32>)> {
        let mut predicted = Vec::new();
        for index in 0..windows.len() {
            let window = windows.get(index);
            assert_eq!(window.inputs.len(), windows.window());
            let counted = (0..windows.window()).filter(|&place| window.valid[place]);
            let documents = windows.documents_of_targets(index);
            for (place, document) in counted.zip(documents) {
                let context = window.inputs[..=place].to_vec();
                predicted.push((document, window.targets[place], context));
            }
        }
        predicted
    }

    fn everything(windows: &Windows) -> Vec<(usize, u32)> {
        let split = windows.split();
        let ids = split.tokens(0..split.len()).into_iter();
        ids.enumerate()
            .map(|(place, id)| (split.document_at(place), id))
            .collect()
    }

    #[test]
    fn behind_the_symbol_every_token_is_predicted_once_whatever_the_window() {
        for symbol in [BEGIN, END] {
            for documents in [DocumentsRule::Separate, DocumentsRule::RunOn] {
                for window in 1..=20 {
                    for stride in [None, Some(1), Some(3.min(window)), Some(window)] {
                        let cut = Cut {
                            stride,
                            ..cut(window, documents, Beginning::Symbol(symbol))
                        };
                        let windows = windows(&LINES, cut).unwrap();
                        let predicted = predicted(&windows);
                        let targets: Vec<_> =
                            predicted.iter().map(|(d, id, _)| (*d, *id)).collect();
                        assert_eq!(targets, everything(&windows), "{cut:?}");
                        assert_eq!(windows.n_targets(), 17);
                        let bytes = (0..windows.len()).map(|i| windows.get(i).bytes);
                        assert_eq!(bytes.sum::<u64>(), 13, "{cut:?}");
                    }
                }
            }
        }
    }

    /// Each counted target with its document and the tokens before it that its part holds, in order; and how many parts there are.
    fn contexts(windows: &Windows) -> (Vec<(usize, u32, Vec<u32>)>, usize) {
        let (mut all, mut n_parts) = (Vec::new(), 0);
        for index in 0..windows.len() {
            let window = windows.get(index);
            assert_eq!(window.parts.iter().sum::<usize>(), windows.window());
            assert_eq!(window.difficulty.len(), window.parts.len());
            let mut documents = windows.documents_of_targets(index).into_iter();
            let mut begin = 0;
            for part in &window.parts {
                for place in (begin..begin + part).filter(|&place| window.valid[place]) {
                    let context = window.inputs[begin..=place].to_vec();
                    let document = documents.next().unwrap();
                    all.push((document, window.targets[place], context));
                }
                begin += part;
            }
            assert_eq!(documents.next(), None);
            n_parts += window.parts.len();
        }
        all.sort();
        (all, n_parts)
    }

    /// Of documents of any length.
    #[test]
    fn packed_documents_have_the_targets_and_contexts_that_they_have_apart() {
        for seed in 0..20 {
            let draw = |place, n: u64| random::bits(random::key(seed, "lines", 0), place) % n;
            let line = |line: u64| "abcdefgh".repeat(3)[..1 + draw(1 + line, 23) as usize].into();
            let lines: Vec<String> = (0..1 + draw(0, 12)).map(line).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let beginnings = [BEGIN, END].map(Beginning::Symbol);
            let unmarked = [Beginning::Unmarked, Beginning::FirstToken];
            for beginning in beginnings.into_iter().chain(unmarked) {
                for (window, stride) in [(1, None), (5, None), (9, None), (30, None), (9, Some(4))]
                {
                    let of = |documents| {
                        let stride = Cut {
                            stride,
                            ..cut(window, documents, beginning)
                        };
                        windows(&lines, stride).unwrap()
                    };
                    let [packed, apart] = [DocumentsRule::Packed, DocumentsRule::Separate].map(of);
                    let [found, expected] = [&packed, &apart].map(contexts);
                    // As many parts: what is whole apart is whole here.
                    assert_eq!(found, expected, "{window} {stride:?} {beginning:?}");
                    assert_eq!(expected.1 as u64, apart.len());
                    assert_eq!(packed.n_targets(), apart.n_targets());
                    assert!(packed.len() <= apart.len());
                    let bytes = |of: &Windows| (0..of.len()).map(|i| of.get(i).bytes).sum::<u64>();
                    assert_eq!(bytes(&packed), bytes(&apart));
                    let again = of(DocumentsRule::Packed);
                    assert!((0..packed.len()).all(|i| packed.get(i) == again.get(i)));
                }
            }
        }
    }

    #[test]
    fn packed_windows_say_where_documents_lie_and_how_much_is_padding() {
        // With their ends 7, 2, 6 and 2 tokens, in windows of nine.
        let cut = cut(9, DocumentsRule::Packed, Beginning::Symbol(BEGIN));
        let windows = windows(&LINES, cut).unwrap();
        let grades = windows
            .clone()
            .graded(Some(vec![Some(0), None, Some(1), Some(2)]));
        let parts = |index| {
            let window = grades.get(index);
            (window.parts, window.difficulty, window.document)
        };
        assert_eq!(windows.len(), 2);
        assert_eq!(parts(0), (vec![7, 2], vec![Some(0), None], None));
        assert_eq!(parts(1), (vec![6, 3], vec![Some(1), Some(2)], None));
        assert_eq!(windows.get(1).inputs[6..8], [BEGIN, u32::from(b'n')]);
        let apart = Cut {
            documents: DocumentsRule::Separate,
            ..cut
        };
        let apart = super::tests::windows(&LINES, apart).unwrap();
        for (windows, expected) in [(windows, 1.0 / 18.0), (apart, 19.0 / 36.0)] {
            assert!((windows.padding() - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn a_document_begins_behind_the_symbol() {
        let first = |documents, symbol| {
            let cut = cut(5, documents, Beginning::Symbol(symbol));
            let all = predicted(&windows(&LINES, cut).unwrap());
            all.into_iter().find(|(d, _, _)| *d == 1).unwrap()
        };
        let (a, g) = (u32::from(b'a'), u32::from(b'g'));
        assert_eq!(first(DocumentsRule::Separate, BEGIN), (1, g, vec![BEGIN]));
        // <s> a b c d | e f </s> <s> g
        let (_, id, context) = first(DocumentsRule::RunOn, BEGIN);
        assert_eq!((id, &context[context.len() - 2..]), (g, &[END, BEGIN][..]));
        // </s> a b c d | e f </s> g: the end of one document is the beginning of the next.
        let (_, id, context) = first(DocumentsRule::RunOn, END);
        assert_eq!((id, context), (g, vec![a + 4, a + 5, END]));
    }

    #[test]
    fn with_a_stride_each_target_has_the_longest_context() {
        let cut = Cut {
            stride: Some(2),
            ..cut(4, DocumentsRule::Separate, Beginning::Symbol(BEGIN))
        };
        let windows = windows(&["abcdefgh"], cut).unwrap();
        let lengths: Vec<usize> = predicted(&windows)
            .iter()
            .map(|(_, _, c)| c.len())
            .collect();
        // Nine targets with the end: the first four, then two by two, then the last with all four.
        assert_eq!(lengths, [1, 2, 3, 4, 3, 4, 3, 4, 4]);
    }

    #[test]
    fn without_a_symbol_the_first_token_of_a_document_is_context_only() {
        for documents in [DocumentsRule::Separate, DocumentsRule::RunOn] {
            let windows = windows(&LINES, cut(4, documents, Beginning::Unmarked)).unwrap();
            let split = windows.split().clone();
            let is_first =
                |place: usize| split.documents()[split.document_at(place)].start == place as u64;
            let all = everything(&windows).into_iter().enumerate();
            let expected: Vec<_> = all.filter(|(place, _)| !is_first(*place)).collect();
            let found: Vec<_> = predicted(&windows)
                .iter()
                .map(|(d, id, _)| (*d, *id))
                .collect();
            assert_eq!(found, expected.iter().map(|(_, e)| *e).collect::<Vec<_>>());
            assert_eq!(windows.n_targets(), 13);
            let bytes = (0..windows.len()).map(|i| windows.get(i).bytes);
            assert_eq!(bytes.sum::<u64>(), 9);
        }
    }

    #[test]
    fn what_runs_did_before_is_what_they_do() {
        let old = Cut {
            full_only: true,
            ..cut(4, DocumentsRule::RunOn, Beginning::FirstToken)
        };
        let windows_of = |cut| windows(&["abcdef", "gh", "ijklm"], cut);
        let cut_off = windows_of(old).unwrap();
        assert_eq!((cut_off.len(), cut_off.n_targets()), (3, 12));
        let stream: Vec<u32> = (0..3).flat_map(|i| cut_off.get(i).inputs).collect();
        assert_eq!(stream, cut_off.split().tokens(0..12));
        assert!((0..3).all(|i| cut_off.get(i).valid == [true; 4]));
        assert_eq!(
            [0, 1, 2].map(|i| cut_off.get(i).document),
            [Some(0), None, None]
        );
        // Measured, the rest is there too.
        let whole = windows_of(Cut {
            full_only: false,
            ..old
        });
        let targets: Vec<u32> = predicted(&whole.unwrap()).iter().map(|p| p.1).collect();
        assert_eq!(targets, cut_off.split().tokens(1..16));
        let separate = cut(4, DocumentsRule::Separate, Beginning::FirstToken);
        assert_eq!(windows_of(separate).unwrap().n_targets(), 13);
    }

    #[test]
    fn so_many_windows_hold_so_many_targets() {
        let windows = windows(
            &LINES,
            cut(4, DocumentsRule::Separate, Beginning::Symbol(BEGIN)),
        )
        .unwrap();
        // Targets per window: 4, 3, 2, 4, 2, 2.
        assert_eq!(
            [1, 4, 5, 9, 10, 17, 99].map(|n| windows.enough_for(n)),
            [1, 1, 2, 3, 4, 6, 6]
        );
    }

    #[test]
    fn nothing_to_predict_is_an_error() {
        let old = Cut {
            full_only: true,
            ..cut(4, DocumentsRule::RunOn, Beginning::FirstToken)
        };
        let error = windows(&["abc"], old).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let error = error.to_string();
        assert!(
            error.contains("train.bin: found 4 tokens, expected at least 5"),
            "{error}"
        );
        assert!(windows(&["abc"], Cut { window: 3, ..old }).is_ok());
    }

    /// A split of one-character tokens of which some are unknown, and its bytes per id.
    fn split_of_characters(lines: &[&str]) -> (Arc<Split>, Arc<Vec<u32>>) {
        let known = std::iter::once(Ok("abcdefgh".to_string()));
        let tokenizer = Tokenizer::train(Kind::Character, known, None).unwrap();
        let split = Split::open(split_with(&tokenizer, lines)).unwrap();
        (Arc::new(split), Arc::new(tokenizer.token_bytes()))
    }

    /// All places of each stretch, straight from the words of [`Beginning`] and [`DocumentsRule`].
    fn stretches(split: &Split, cut: Cut) -> Vec<Vec<TargetPlace>> {
        let mut stretches: Vec<Vec<TargetPlace>> = Vec::new();
        for (document, entry) in split.documents().iter().enumerate() {
            if cut.documents == DocumentsRule::Separate || document == 0 {
                stretches.push(Vec::new());
            }
            let stretch = stretches.last_mut().unwrap();
            if let Beginning::Symbol(id) = cut.beginning
                && stretch.last().is_none_or(|before| before.id != id)
            {
                stretch.push(TargetPlace {
                    id,
                    position: None,
                    document,
                    is_target: false,
                });
            }
            for position in entry.start as usize..(entry.start + entry.tokens) as usize {
                let is_first = position as u64 == entry.start;
                stretch.push(TargetPlace {
                    id: split.tokens(position..position + 1)[0],
                    position: Some(position),
                    document,
                    is_target: !is_first || cut.beginning != Beginning::Unmarked,
                });
            }
        }
        stretches
    }

    /// Of each window its stretch, the first and the last target in it, and the first that counts.
    fn ranges(stretches: &[Vec<TargetPlace>], cut: Cut) -> Vec<(usize, usize, usize, usize)> {
        let mut ranges = Vec::new();
        for (stretch, places) in stretches.iter().enumerate() {
            let last = places.len() - 1;
            let mut counted = 1;
            while counted <= last {
                let more = match cut.stride {
                    Some(stride) if counted > 1 => stride,
                    _ => cut.window,
                };
                let end = last.min(counted + more - 1);
                let first = match cut.stride {
                    Some(_) => end.saturating_sub(cut.window - 1).max(1),
                    None => counted,
                };
                if !cut.full_only || end + 1 - counted == cut.window {
                    ranges.push((stretch, first, end, counted));
                }
                counted = end + 1;
            }
        }
        ranges
    }

    /// The window of such a range.
    fn window_by_hand(
        split: &Split,
        bytes: &[u32],
        window: usize,
        places: &[TargetPlace],
        (_, first, last, counted): (usize, usize, usize, usize),
    ) -> Window {
        let pad = split.specials().pad.unwrap();
        let mut by_hand = Window {
            inputs: vec![pad; window],
            targets: vec![pad; window],
            valid: vec![false; window],
            bytes: 0,
            document: Some(places[first - 1].document),
            parts: vec![window],
            difficulty: vec![Some(places[first - 1].document as u8)],
        };
        for (column, target) in (first..=last).enumerate() {
            by_hand.inputs[column] = places[target - 1].id;
            by_hand.targets[column] = places[target].id;
            by_hand.valid[column] = target >= counted && places[target].is_target;
            if by_hand.valid[column] {
                let position = places[target].position.unwrap();
                by_hand.bytes += split.span_bytes(position..position + 1, bytes);
            }
            if places[target].document != places[first - 1].document {
                by_hand.document = None;
            }
        }
        by_hand
    }

    #[test]
    fn every_window_is_the_one_cut_by_hand() {
        let texts: [&[&str]; 4] = [
            &["abcdef", "g", "\u{8a9e}bcd\u{e9}", "h"],
            &["a"],
            &["\u{e9}", "ab", "b", "cabbage"],
            &["abcdefghabcdefgh"],
        ];
        for lines in texts {
            let (split, bytes) = split_of_characters(lines);
            let specials = split.specials();
            let [begin, end] = [specials.begin, specials.end].map(Option::unwrap);
            let beginnings = [
                Beginning::Symbol(begin),
                Beginning::Symbol(end),
                Beginning::Unmarked,
                Beginning::FirstToken,
            ];
            for (window, beginning) in (1..9).flat_map(|w| beginnings.map(|b| (w, b))) {
                let strides = std::iter::once(None).chain((1..=window).map(Some));
                for stride in strides {
                    for documents in [DocumentsRule::Separate, DocumentsRule::RunOn] {
                        let full_only = beginning == Beginning::FirstToken
                            && documents == DocumentsRule::RunOn
                            && stride.is_none();
                        let cut = Cut {
                            window,
                            documents,
                            beginning,
                            stride,
                            full_only,
                        };
                        assert_cut_as_by_hand(&split, &bytes, cut);
                        assert_cut_as_by_hand(
                            &split,
                            &bytes,
                            Cut {
                                full_only: false,
                                ..cut
                            },
                        );
                    }
                }
            }
        }
    }

    fn assert_cut_as_by_hand(split: &Arc<Split>, bytes: &Arc<Vec<u32>>, cut: Cut) {
        let stretches = stretches(split, cut);
        let ranges = ranges(&stretches, cut);
        let by_hand: Vec<Window> = ranges
            .iter()
            .map(|range| window_by_hand(split, bytes, cut.window, &stretches[range.0], *range))
            .collect();
        let counts: Vec<u64> = by_hand
            .iter()
            .map(|window| window.valid.iter().filter(|valid| **valid).count() as u64)
            .collect();
        let targets: u64 = counts.iter().sum();
        let Ok(windows) = Windows::new(split.clone(), cut, bytes.clone()) else {
            assert_eq!(targets, 0, "{cut:?}");
            return;
        };
        let grades = (0..split.documents().len()).map(|document| Some(document as u8));
        let windows = windows.graded(Some(grades.collect()));
        assert_eq!(windows.len(), by_hand.len() as u64, "{cut:?}");
        assert_eq!(windows.n_targets(), targets, "{cut:?}");
        for (index, expected) in (0..).zip(&by_hand) {
            assert_eq!(windows.get(index), *expected, "window {index} of {cut:?}");
        }
        let mut seen = 0;
        for (index, count) in (1..).zip(counts).filter(|(_, count)| *count > 0) {
            assert_eq!(windows.enough_for(seen + 1), index, "{cut:?}");
            seen += count;
            assert_eq!(windows.enough_for(seen), index, "{cut:?}");
        }
    }

    #[test]
    fn a_recipe_is_trained_and_measured_by_its_own_rules() {
        let tokenizer = Tokenizer::train(Kind::Byte, std::iter::empty(), None).unwrap();
        let config = |start, documents| DataConfig {
            window: 7,
            documents,
            start,
            order_seed: 1,
            difficulty: DifficultySource::None,
            train: Vec::new(),
            valid: Vec::new(),
        };
        let cases = [
            (
                StartRule::Symbol,
                DocumentsRule::RunOn,
                Beginning::Symbol(BEGIN),
                false,
            ),
            (
                StartRule::Symbol,
                DocumentsRule::Separate,
                Beginning::Symbol(BEGIN),
                false,
            ),
            (
                StartRule::FirstToken,
                DocumentsRule::Separate,
                Beginning::FirstToken,
                false,
            ),
            // What recipes of format 1 mean.
            (
                StartRule::FirstToken,
                DocumentsRule::RunOn,
                Beginning::FirstToken,
                true,
            ),
        ];
        let packed = DocumentsRule::Packed;
        let old = (StartRule::FirstToken, packed, Beginning::FirstToken, false);
        for (start, documents, beginning, full_only) in cases.into_iter().chain([old]) {
            let config = config(start, documents);
            let expected = Cut {
                full_only,
                ..cut(7, documents, beginning)
            };
            assert_eq!(Cut::training(&config, &tokenizer), expected);
            assert_eq!(
                Cut::measuring(&config, &tokenizer),
                cut(7, documents, beginning)
            );
        }
    }
}
