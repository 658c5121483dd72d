//! Counts ordered token pairs of a split, in bounded memory and on several ranks, writes them to `bigrams.safetensors`, in compressed
//! sparse rows, and loads them.
//!
//! The file says which tokenizer and which split it was made from, and holds a hash of its own values.

use super::count::{Room, Sorted, Sorter};
use crate::collective::Ranks;
use crate::data::shard::Split;
use crate::error::{Error, Problem};
use crate::file::{read_regular, write_file};
use crate::hash::hexadecimal;
use crate::keys::require_distinct_tensors;
use brillm::counts::PairCounts;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo, TensorView};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The version of the file.
const FORMAT: u32 = 1;
/// The key of the header under which the origin is kept.
const ORIGIN: &str = "nerve.bigrams";

/// Counts of token pairs, with the tokenizer and the split they were made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Bigrams {
    /// The counts.
    pub counts: PairCounts,
    /// Hash of the tokenizer whose ids are counted.
    pub tokenizer_sha256: String,
    /// Hash of the split that was counted.
    pub split_sha256: String,
    /// The start symbol that was put before each document; `None` in files older than this choice.
    pub start: Option<u32>,
}

impl Bigrams {
    /// Counts a split in memory: what [`CountedPairs`] is compared with.
    #[cfg(test)]
    pub fn count(split: &Split, start: Option<u32>) -> Self {
        let documents = split.documents().iter();
        let documents = documents.map(|document| split.tokens(document.range()));
        Self {
            counts: PairCounts::behind(start, split.vocabulary_size(), documents),
            tokenizer_sha256: split.tokenizer_sha256().to_string(),
            split_sha256: split.sha256().to_string(),
            start,
        }
    }

    /// The content of the file; equal counts give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let PairCounts {
            first,
            targets,
            counts,
            tokens,
        } = &self.counts;
        let values = [
            to_bytes(first, u64::to_le_bytes),
            to_bytes(targets, u32::to_le_bytes),
            to_bytes(counts, u32::to_le_bytes),
            to_bytes(tokens, u64::to_le_bytes),
        ];
        let lengths = [first.len(), targets.len(), counts.len(), tokens.len()];
        let lists = NAMES.into_iter().zip(&values).zip(lengths);
        let views = lists.map(|(((name, dtype), values), length)| {
            let view = TensorView::new(dtype, vec![length], values);
            (name, view.expect("as many bytes as the values take"))
        });
        let made_from = [&self.split_sha256, &self.tokenizer_sha256].map(String::as_str);
        let origin = origin(made_from, self.start, &hash(&values));
        // One key: a map of several would be written in another order each time.
        let metadata = HashMap::from([(ORIGIN.to_string(), origin)]);
        safetensors::serialize(views, Some(metadata)).expect("four plain tensors")
    }

    /// Reads the file and checks all of it.
    ///
    /// # Errors
    /// `Invalid`, naming what is wrong; `Resource` if it cannot be read.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = read_regular(path, "the counts of `nerve data bigrams`", u64::MAX)?;
        Self::parse(path, &bytes).map_err(|problem| {
            Error::Invalid(problem.advise("make it again with `nerve data bigrams`"))
        })
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Problem> {
        let wrong = |place: &str, found: String, expected: &str| {
            Problem::new(path, place.to_string(), found, expected)
        };
        let parsed = SafeTensors::read_metadata(bytes)
            .and_then(|(_, metadata)| Ok((metadata, SafeTensors::deserialize(bytes)?)));
        let (metadata, file) =
            parsed.map_err(|error| wrong("", error.to_string(), "a safetensors file"))?;
        require_distinct_tensors(path, bytes)?;
        let origin = metadata
            .metadata()
            .as_ref()
            .and_then(|facts| facts.get(ORIGIN));
        let origin: Value = origin
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let fact = |name: &str| origin[name].as_str().unwrap_or_default().to_string();
        if origin["format"] != FORMAT {
            return Err(wrong("format", origin["format"].to_string(), "1"));
        }
        let mut lists = Vec::new();
        for (name, dtype) in NAMES {
            let view = file
                .tensor(name)
                .map_err(|error| wrong(name, error.to_string(), "a list of numbers"))?;
            if view.dtype() != dtype || view.shape().len() != 1 {
                let found = format!("{:?} {:?}", view.dtype(), view.shape());
                return Err(wrong(name, found, "a list of whole numbers"));
            }
            lists.push(view.data());
        }
        if hash(&lists) != fact("values_sha256") {
            let found = "values of another hash".to_string();
            return Err(wrong("", found, "those that were written"));
        }
        let counts = PairCounts {
            first: from_bytes(lists[0], u64::from_le_bytes),
            targets: from_bytes(lists[1], u32::from_le_bytes),
            counts: from_bytes(lists[2], u32::from_le_bytes),
            tokens: from_bytes(lists[3], u64::from_le_bytes),
        };
        counts
            .check()
            .map_err(|found| wrong("", found, "rows of rising targets"))?;
        Ok(Self {
            counts,
            tokenizer_sha256: fact("tokenizer_sha256"),
            split_sha256: fact("split_sha256"),
            start: origin["start"].as_u64().and_then(|id| id.try_into().ok()),
        })
    }

    /// Hash of the counts, the tokenizer, the split and the start symbol.
    pub fn sha256(&self) -> String {
        let mut sha256 = Sha256::new();
        let made_from = [&self.split_sha256, &self.tokenizer_sha256].map(String::as_str);
        hash_origin(&mut sha256, made_from, self.start);
        let counts = &self.counts;
        let long = counts.first.iter().chain(&counts.tokens);
        long.for_each(|value| sha256.update(value.to_le_bytes()));
        let short = counts.targets.iter().chain(&counts.counts);
        short.for_each(|value| sha256.update(value.to_le_bytes()));
        hexadecimal(&sha256.finalize())
    }
}

/// How often each pair stands in a split that is measured.
pub struct HeldOut {
    pairs: HashMap<[u32; 2], u64>,
    /// How many pairs there are, and how many of them were counted often enough.
    all: u64,
    seen: u64,
}

impl HeldOut {
    /// The pairs of a split, each document of which begins with the start symbol, if any.
    pub fn new(split: &Split, start: Option<u32>) -> Self {
        let mut pairs = HashMap::new();
        for document in split.documents() {
            let tokens = split.tokens(document.range());
            let tokens: Vec<u32> = start.into_iter().chain(tokens).collect();
            for pair in tokens.windows(2) {
                *pairs.entry([pair[0], pair[1]]).or_insert(0) += 1;
            }
        }
        Self {
            all: pairs.values().sum(),
            pairs,
            seen: 0,
        }
    }

    /// The share of its pairs that were counted often enough.
    pub fn coverage(&self) -> f64 {
        self.seen as f64 / self.all.max(1) as f64
    }
}

/// The pairs of a split, those of the sources of this rank sorted.
pub struct CountedPairs<'a> {
    ranks: &'a Ranks,
    split: &'a Split,
    start: Option<u32>,
    /// How often each token was seen.
    tokens: Vec<u64>,
    sorted: Sorted<2>,
}

/// The figures of a file of counts.
pub struct PairFigures {
    /// Distinct pairs.
    pub pairs: u64,
    /// Those that were counted often enough.
    pub edges: u64,
    /// See [`Bigrams::sha256`].
    pub sha256: String,
}

impl<'a> CountedPairs<'a> {
    /// Counts a split. Each document begins with the start symbol, if any; pairs across two documents are not counted. All ranks call it
    /// together.
    ///
    /// # Errors
    /// `Resource` if the split cannot be read, or what does not fit into memory not be written.
    pub fn count(
        ranks: &'a Ranks,
        split: &'a Split,
        start: Option<u32>,
        room: &Room,
    ) -> Result<Self, Error> {
        let count = || {
            let mut tokens = vec![0u64; split.vocabulary_size()];
            for document in split.documents() {
                for piece in split.pieces(document) {
                    piece?
                        .into_iter()
                        .for_each(|token| tokens[token as usize] += 1);
                }
            }
            let own = sources_of(&tokens, ranks.rank(), ranks.size());
            let mut sorter = Sorter::new(room);
            for document in split.documents() {
                let mut last = start;
                for piece in split.pieces(document) {
                    for token in piece? {
                        let source = last.replace(token).filter(|source| own.contains(source));
                        source.map_or(Ok(()), |source| sorter.push([source, token]))?;
                    }
                }
            }
            Ok((tokens, sorter.finish()?))
        };
        let (tokens, sorted) = ranks.agree(count())?;
        Ok(Self {
            ranks,
            split,
            start,
            tokens,
            sorted,
        })
    }

    /// In how many files pairs lie that did not fit into memory.
    pub fn runs(&self) -> usize {
        self.sorted.runs()
    }

    /// Writes the file that [`Bigrams::load`] reads, and looks up the pairs of other splits; equal counts give equal bytes. All ranks call
    /// it together, and the first one writes.
    ///
    /// # Errors
    /// `Resource` if `output` or the files beside it cannot be written.
    pub fn write(
        &self,
        output: &Path,
        min_count: u32,
        held_out: &mut [HeldOut],
        folder: &Path,
    ) -> Result<PairFigures, Error> {
        let refused = |error| Error::resource(folder, "write counts", error);
        let lists = || {
            Ok([
                tempfile::tempfile_in(folder)?,
                tempfile::tempfile_in(folder)?,
            ])
        };
        let lists: [File; 2] = self.ranks.agree(lists().map_err(refused))?;
        let [mut targets, mut counts] = lists.each_ref().map(BufWriter::new);
        let mut first = vec![0u64; self.tokens.len() + 1];
        let (mut pairs, mut edges) = (0, 0);
        self.each(&mut |[source, target], count| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            first[source as usize + 1] += 1;
            let written = targets
                .write_all(&target.to_le_bytes())
                .and_then(|()| counts.write_all(&count.to_le_bytes()));
            written.map_err(refused)?;
            pairs += 1;
            if count >= min_count {
                edges += 1;
                for held_out in &mut *held_out {
                    held_out.seen += held_out.pairs.get(&[source, target]).copied().unwrap_or(0);
                }
            }
            Ok(())
        })?;
        for node in 1..first.len() {
            first[node] += first[node - 1];
        }
        let written = targets.flush().and_then(|()| counts.flush());
        drop((targets, counts));
        let written = written.map_err(refused).and_then(|()| {
            self.ranks
                .is_first()
                .then(|| self.write_lists(output, pairs, &first, &lists))
                .transpose()
        });
        let sha256 = self.ranks.agree(written)?.unwrap_or_default();
        Ok(PairFigures {
            pairs,
            edges,
            sha256,
        })
    }

    /// Puts the lists into one file, and says what [`Bigrams::sha256`] does.
    fn write_lists(
        &self,
        output: &Path,
        pairs: u64,
        first: &[u64],
        [targets, counts]: &[File; 2],
    ) -> Result<String, Error> {
        let unreadable = |error| Error::resource(output, "read what is to be written", error);
        let first = to_bytes(first, u64::to_le_bytes);
        let tokens = to_bytes(&self.tokens, u64::to_le_bytes);
        let (mut values, mut all) = (Sha256::new(), Sha256::new());
        let made_from = [self.split.sha256(), self.split.tokenizer_sha256()];
        hash_origin(&mut all, made_from, self.start);
        values.update(&first);
        all.update(&first);
        all.update(&tokens);
        for list in [targets, counts] {
            let mut take = |piece: &[u8]| {
                values.update(piece);
                all.update(piece);
                Ok(())
            };
            in_pieces(list, &mut take).map_err(unreadable)?;
        }
        values.update(&tokens);
        let origin = origin(made_from, self.start, &hexadecimal(&values.finalize()));
        let pairs = pairs as usize;
        let lengths = [self.tokens.len() + 1, pairs, pairs, self.tokens.len()];
        write_file(output, |output| {
            output.write_all(&header(lengths, origin))?;
            output.write_all(&first)?;
            output.write_all(&tokens)?;
            in_pieces(counts, &mut |piece| output.write_all(piece))?;
            in_pieces(targets, &mut |piece| output.write_all(piece))
        })?;
        Ok(hexadecimal(&all.finalize()))
    }

    /// Shows the first rank every pair of all ranks, rising.
    fn each(&self, each: &mut dyn FnMut([u32; 2], u64) -> Result<(), Error>) -> Result<(), Error> {
        if self.ranks.is_alone() {
            return self.sorted.each(&mut |pair, count| each(*pair, count));
        }
        let mut outcome = Ok(());
        for sender in 0..self.ranks.size() {
            let mut take = |said: &[[u64; 3]]| {
                for [source, target, count] in said {
                    let pair = [*source, *target].map(|token| token as u32);
                    if outcome.is_ok() && self.ranks.is_first() {
                        outcome = each(pair, *count);
                    }
                }
            };
            if self.ranks.rank() != sender {
                while let said @ [_, ..] = &self.said(sender, &[])[..] {
                    take(said);
                }
                continue;
            }
            let mut held = Vec::new();
            let read = self.sorted.each(&mut |&[source, target], count| {
                held.push([u64::from(source), u64::from(target), count]);
                if held.len() == 1 << 15 {
                    take(&self.said(sender, &std::mem::take(&mut held)));
                }
                Ok(())
            });
            if !held.is_empty() {
                take(&self.said(sender, &held));
            }
            self.said(sender, &[]);
            outcome = outcome.and(read);
        }
        self.ranks.agree(outcome)
    }

    /// What one rank says to the first and to itself; the others learn how much it is.
    fn said(&self, sender: usize, own: &[[u64; 3]]) -> Vec<[u64; 3]> {
        let (n, rank) = (self.ranks.size(), self.ranks.rank());
        let length = (own.len() as u64).to_le_bytes();
        let mut lengths = vec![Vec::new(); n];
        lengths[sender] = vec![0; 8];
        let to: &[u8] = if rank == sender { &length } else { &[] };
        let mut from: Vec<&mut [u8]> = lengths.iter_mut().map(Vec::as_mut_slice).collect();
        self.ranks.exchange(&vec![to; n], &mut from);
        let n_said = bytemuck::pod_read_unaligned::<u64>(&lengths[sender]) as usize;
        let mut said = vec![
            [0u64; 3];
            if rank == 0 || rank == sender {
                n_said
            } else {
                0
            }
        ];
        let mut to = vec![&[][..]; n];
        if rank == sender {
            to[0] = bytemuck::cast_slice(own);
            to[rank] = bytemuck::cast_slice(own);
        }
        let mut nothing: Vec<Vec<u8>> = vec![Vec::new(); n];
        let mut from: Vec<&mut [u8]> = nothing.iter_mut().map(Vec::as_mut_slice).collect();
        from[sender] = bytemuck::cast_slice_mut(&mut said);
        self.ranks.exchange(&to, &mut from);
        match said.is_empty() && n_said > 0 {
            // Not for this rank; it only has to know that there was something.
            true => vec![[0; 3]; 1],
            false => said,
        }
    }
}

/// The sources of a rank: a range, so that parts lie one behind the other, in which about as many pairs begin as in every other.
fn sources_of(tokens: &[u64], rank: usize, size: usize) -> Range<u32> {
    let all: u64 = tokens.iter().sum();
    let mut sums = vec![0];
    for n in tokens {
        sums.push(sums[sums.len() - 1] + n);
    }
    let border = |rank: usize| match rank {
        0 => 0,
        rank if rank == size => tokens.len(),
        rank => sums.partition_point(|&sum| sum * (size as u64) < all * rank as u64),
    };
    border(rank) as u32..border(rank + 1) as u32
}

fn in_pieces(
    list: &File,
    each: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let (mut piece, mut offset) = (vec![0; 1 << 20], 0);
    loop {
        match list.read_at(&mut piece, offset)? {
            0 => return Ok(()),
            read => each(&piece[..read])?,
        }
        offset += 1 << 20;
    }
}

/// The header of a file with lists of these lengths, as [`NAMES`] has them.
fn header(lengths: [usize; 4], origin: String) -> Vec<u8> {
    let mut start = 0;
    // Wider numbers come first, and then names in their order.
    let lists = [0, 3, 2, 1].map(|list: usize| {
        let (name, dtype) = NAMES[list];
        let end = start + lengths[list] * dtype.bitsize() / 8;
        let data_offsets = (start, end);
        start = end;
        let shape = vec![lengths[list]];
        let info = TensorInfo {
            dtype,
            shape,
            data_offsets,
        };
        (name.to_string(), info)
    });
    let metadata = HashMap::from([(ORIGIN.to_string(), origin)]);
    let metadata = Metadata::new(Some(metadata), lists.to_vec());
    let metadata = metadata.expect("offsets follow from the lengths");
    let mut text = serde_json::to_vec(&metadata).expect("names and numbers are JSON");
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend(text);
    header
}

/// What the header says of the counts: the hashes of the split and of the tokenizer, the start symbol, and the hash of the values.
fn origin([split, tokenizer]: [&str; 2], start: Option<u32>, values: &str) -> String {
    let origin = json!({
        "format": FORMAT,
        "split_sha256": split,
        "start": start,
        "tokenizer_sha256": tokenizer,
        "values_sha256": values,
    });
    origin.to_string()
}

fn hash_origin(sha256: &mut Sha256, [split, tokenizer]: [&str; 2], start: Option<u32>) {
    sha256.update(tokenizer);
    sha256.update(split);
    // Files of before keep the hash that runs know.
    if let Some(start) = start {
        sha256.update(start.to_le_bytes());
    }
}

const NAMES: [(&str, Dtype); 4] = [
    ("first", Dtype::U64),
    ("targets", Dtype::U32),
    ("counts", Dtype::U32),
    ("tokens", Dtype::U64),
];

fn to_bytes<T: Copy, const N: usize>(values: &[T], of: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|value| of(*value)).collect()
}

fn from_bytes<T, const N: usize>(bytes: &[u8], of: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|bytes| of(*bytes)).collect()
}

fn hash(values: &[impl AsRef<[u8]>]) -> String {
    let mut hash = Sha256::new();
    values.iter().for_each(|values| hash.update(values));
    hexadecimal(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::super::shard::tests::split_of_lines;
    use super::*;
    use crate::collective::threads::on_ranks;
    use std::fs;

    #[test]
    fn what_is_written_is_read_and_no_changed_byte_is() {
        let split = Split::open(split_of_lines(&["abracadabra", "cab", "dab"])).unwrap();
        let bigrams = Bigrams::count(&split, Some(256));
        assert_eq!(bigrams.counts.count(256, u32::from(b'c')), 1);
        assert!(bigrams.counts.pairs() > 5);
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("bigrams.safetensors");
        fs::write(&path, bigrams.to_bytes()).unwrap();
        assert_eq!(Bigrams::load(&path).unwrap(), bigrams);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes, bigrams.to_bytes());
        for at in (0..bytes.len()).step_by(3) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 16;
            let read = Bigrams::parse(&path, &damaged);
            // A changed hash of the origin reads as such, and is refused by whoever compares it.
            assert!(read.is_err() || read.unwrap() != bigrams, "byte {at}");
        }
        for length in 0..bytes.len() {
            assert!(
                Bigrams::parse(&path, &bytes[..length]).is_err(),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn pairs_are_counted_within_documents_and_behind_the_symbol_only() {
        let lines = ["abab", "b", "bba"];
        let split = Split::open(split_of_lines(&lines)).unwrap();
        let end = split.specials().end.unwrap();
        for start in [None, split.specials().begin, Some(end)] {
            let bigrams = Bigrams::count(&split, start);
            let mut by_hand: std::collections::BTreeMap<(u32, u32), u32> = Default::default();
            for line in lines {
                let text = line.bytes().map(u32::from).chain([end]);
                let all: Vec<u32> = start.into_iter().chain(text).collect();
                all.windows(2)
                    .for_each(|pair| *by_hand.entry((pair[0], pair[1])).or_default() += 1);
            }
            assert_eq!(bigrams.counts.pairs(), by_hand.len());
            for (&(from, to), &count) in &by_hand {
                assert_eq!(bigrams.counts.count(from, to), count, "{from} {to}");
            }
            // The symbol in front is context, and not seen.
            assert_eq!(bigrams.counts.tokens[end as usize], 3);
            assert_eq!(bigrams.counts.tokens[256], 0);
        }
        let hashes =
            [None, Some(256), Some(257)].map(|start| Bigrams::count(&split, start).sha256());
        assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2]);
    }

    #[test]
    fn coverage_is_the_share_of_pairs_that_were_seen_often_enough() {
        let counted = Split::open(split_of_lines(&["abab", "ab"])).unwrap();
        // a b, b c, c </s>; a b, b a, a b, b </s>: of seven, a b was seen three times, b a and b </s> once and twice.
        let other = Split::open(split_of_lines(&["abc", "abab"])).unwrap();
        let of = |start, min_count| {
            let (_, coverage) = written(&Ranks::alone(), &counted, start, min_count, &other);
            coverage
        };
        let expected = [5.0, 4.0, 3.0, 0.0].map(|seen: f64| seen / 7.0);
        assert_eq!([1, 2, 3, 4].map(|min_count| of(None, min_count)), expected);
        // Behind the symbol each document has one pair more, and <s> a was seen twice.
        assert_eq!(of(Some(256), 1), 7.0 / 9.0);
        assert_eq!(of(Some(256), 3), 3.0 / 9.0);
    }

    /// The bytes of the file, and the coverage of another split.
    fn written(
        ranks: &Ranks,
        split: &Split,
        start: Option<u32>,
        min_count: u32,
        other: &Split,
    ) -> (Vec<u8>, f64) {
        let place = tempfile::tempdir().unwrap();
        let room = Room {
            // Four pairs at a time.
            bytes: 32,
            folder: place.path().to_path_buf(),
        };
        let counted = CountedPairs::count(ranks, split, start, &room).unwrap();
        let path = place.path().join("bigrams.safetensors");
        let mut held_out = [HeldOut::new(other, start)];
        let figures = counted
            .write(&path, min_count, &mut held_out, place.path())
            .unwrap();
        if !ranks.is_first() {
            return (Vec::new(), 0.0);
        }
        let read = Bigrams::load(&path).unwrap();
        assert_eq!(
            (figures.pairs, figures.sha256),
            (read.counts.pairs() as u64, read.sha256())
        );
        let often = read
            .counts
            .counts
            .iter()
            .filter(|&&count| min_count <= count);
        assert_eq!(figures.edges, often.count() as u64);
        (fs::read(&path).unwrap(), held_out[0].coverage())
    }

    #[test]
    fn pairs_counted_in_little_memory_and_by_any_number_of_ranks_are_the_same_bytes() {
        let lines = [
            "abracadabra",
            "cab",
            "dab",
            "",
            "x",
            "abracadabra, abracadabra",
        ];
        let split = Split::open(split_of_lines(&lines)).unwrap();
        let on_disk = Split::open_on_disk(split.path()).unwrap();
        for start in [None, Some(256)] {
            let expected = Bigrams::count(&split, start).to_bytes();
            for size in 1..=4 {
                let found = on_ranks(size, |ranks| written(&ranks, &on_disk, start, 2, &split));
                assert!(found[0].0 == expected, "{size} ranks");
                assert!(found[0].1 > 0.5 && found[0].1 < 1.0);
            }
        }
    }

    #[test]
    fn every_source_belongs_to_one_rank() {
        for tokens in [vec![0, 0, 0], vec![5, 0, 90, 1, 2, 2], vec![1; 50], vec![7]] {
            for size in 1..=6 {
                let ranges = (0..size).map(|rank| sources_of(&tokens, rank, size));
                let all: Vec<u32> = ranges.flatten().collect();
                assert_eq!(all, (0..tokens.len() as u32).collect::<Vec<_>>());
            }
        }
        assert_eq!(sources_of(&[1; 50], 1, 5), 10..20);
    }
}
