//! `Sorter`: counts equal keys of any number in bounded memory. What does not fit is sorted, written to a file as a run, and merged when
//! it is read; the files have no name, so nothing is left of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::Error;

/// So many runs are merged at once.
const RUNS: usize = 64;
/// Bytes that are read of each at a time.
const READ_AHEAD: usize = 1 << 16;

/// What keys may take while they are sorted.
#[derive(Clone, Debug)]
pub struct Room {
    /// Memory.
    pub bytes: usize,
    /// Where runs are written that do not fit into it.
    pub folder: PathBuf,
}

/// Takes keys of `N` numbers in any order.
pub struct Sorter<const N: usize> {
    fresh: Vec<[u32; N]>,
    runs: Vec<File>,
    folder: PathBuf,
}

impl<const N: usize> Sorter<N> {
    /// No keys yet.
    pub fn new(room: &Room) -> Self {
        let at_once = room.bytes / size_of::<[u32; N]>();
        Self {
            // Pages that nobody writes take no memory.
            fresh: Vec::with_capacity(at_once.max(1)),
            runs: Vec::new(),
            folder: room.folder.clone(),
        }
    }

    /// Adds a key.
    ///
    /// # Errors
    /// `Resource` if a run cannot be written.
    pub fn push(&mut self, key: [u32; N]) -> Result<(), Error> {
        self.fresh.push(key);
        match self.fresh.len() == self.fresh.capacity() {
            true => self.spill(),
            false => Ok(()),
        }
    }

    fn spill(&mut self) -> Result<(), Error> {
        self.fresh.par_sort_unstable();
        let run = write_run(&self.folder, |run| {
            let same = self.fresh.chunk_by(|a, b| a == b);
            let mut same = same.map(|same| (same[0], same.len() as u64));
            same.try_for_each(|(key, count)| run.add(&key, count))
        })?;
        self.fresh.clear();
        self.runs.push(run);
        if self.runs.len() == RUNS {
            let runs = std::mem::take(&mut self.runs);
            let merged = write_run(&self.folder, |merged| {
                let mut runs = Merge::<N>::of(&runs)?;
                while let Some((key, count)) = runs.next()? {
                    merged.add(&key, count)?;
                }
                Ok(())
            })?;
            self.runs.push(merged);
        }
        Ok(())
    }

    /// All keys, sorted.
    ///
    /// # Errors
    /// `Resource` if a run cannot be written.
    pub fn finish(mut self) -> Result<Sorted<N>, Error> {
        if !self.runs.is_empty() && !self.fresh.is_empty() {
            self.spill()?;
        }
        self.fresh.par_sort_unstable();
        if self.fresh.is_empty() {
            self.fresh = Vec::new();
        }
        Ok(Sorted {
            fresh: self.fresh,
            runs: self.runs,
            folder: self.folder,
        })
    }
}

/// Receives a key and how often it came.
pub type Each<'a, const N: usize> = &'a mut dyn FnMut(&[u32; N], u64) -> Result<(), Error>;

/// Sorted keys, in memory or in runs.
pub struct Sorted<const N: usize> {
    fresh: Vec<[u32; N]>,
    runs: Vec<File>,
    folder: PathBuf,
}

impl<const N: usize> Sorted<N> {
    /// How many runs were written, which is none where memory was enough.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Shows each different key once, rising, with how often it came.
    ///
    /// # Errors
    /// The first of `each`; `Resource` if a run cannot be read.
    pub fn each(&self, each: Each<'_, N>) -> Result<(), Error> {
        let mut same = self.fresh.chunk_by(|a, b| a == b);
        same.try_for_each(|same| each(&same[0], same.len() as u64))?;
        let unreadable = |error| Error::resource(&self.folder, "read what was sorted", error);
        let mut runs = Merge::<N>::of(&self.runs).map_err(unreadable)?;
        while let Some((key, count)) = runs.next().map_err(unreadable)? {
            each(&key, count)?;
        }
        Ok(())
    }
}

fn write_run(folder: &Path, write: impl FnOnce(&mut Run) -> io::Result<()>) -> Result<File, Error> {
    let written = tempfile::tempfile_in(folder).and_then(|file| {
        let mut run = Run {
            file: BufWriter::with_capacity(1 << 20, file),
            last: Vec::new(),
        };
        write(&mut run)?;
        run.file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
    });
    written.map_err(|error| Error::resource(folder, "write what does not fit into --memory", error))
}

/// A file of rising keys: of each how many numbers it begins with like the one before, the others, and its count in groups of seven
/// bits.
struct Run {
    file: BufWriter<File>,
    last: Vec<u32>,
}

impl Run {
    fn add(&mut self, key: &[u32], count: u64) -> io::Result<()> {
        let both = self.last.iter().zip(key);
        let common = both.take_while(|(a, b)| a == b).count();
        self.file.write_all(&[common as u8])?;
        self.file.write_all(bytemuck::cast_slice(&key[common..]))?;
        self.last.clear();
        self.last.extend_from_slice(key);
        let mut left = count;
        while left >= 0x80 {
            self.file.write_all(&[left as u8 | 0x80])?;
            left >>= 7;
        }
        self.file.write_all(&[left as u8])
    }
}

/// A run that is read from its beginning, whoever else reads it.
struct Reader<'a, const N: usize> {
    bytes: BufReader<At<'a>>,
    end: u64,
    key: [u32; N],
}

struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

impl<'a, const N: usize> Reader<'a, N> {
    fn new(file: &'a File) -> io::Result<Self> {
        Ok(Self {
            bytes: BufReader::with_capacity(READ_AHEAD, At { file, offset: 0 }),
            end: file.metadata()?.len(),
            key: [0; N],
        })
    }

    fn next(&mut self) -> io::Result<Option<([u32; N], u64)>> {
        let ahead = self.bytes.buffer().len() as u64;
        if self.bytes.get_ref().offset - ahead == self.end {
            return Ok(None);
        }
        let mut common = [0];
        self.bytes.read_exact(&mut common)?;
        let rest = &mut self.key[usize::from(common[0])..];
        self.bytes.read_exact(bytemuck::cast_slice_mut(rest))?;
        let (mut count, mut shift, mut byte) = (0, 0, [0x80]);
        while byte[0] & 0x80 != 0 {
            self.bytes.read_exact(&mut byte)?;
            count |= u64::from(byte[0] & 0x7f) << shift;
            shift += 7;
        }
        Ok(Some((self.key, count)))
    }
}

/// Several runs as one.
struct Merge<'a, const N: usize> {
    runs: Vec<Reader<'a, N>>,
    /// The next key of each run, with the run and the count.
    next: BinaryHeap<Reverse<([u32; N], usize, u64)>>,
}

impl<'a, const N: usize> Merge<'a, N> {
    fn of(runs: &'a [File]) -> io::Result<Self> {
        let runs: io::Result<Vec<Reader<'a, N>>> = runs.iter().map(Reader::new).collect();
        let (mut runs, mut next) = (runs?, BinaryHeap::new());
        for (number, run) in runs.iter_mut().enumerate() {
            let first = run.next()?;
            next.extend(first.map(|(key, count)| Reverse((key, number, count))));
        }
        Ok(Self { runs, next })
    }

    fn next(&mut self) -> io::Result<Option<([u32; N], u64)>> {
        let mut found: Option<([u32; N], u64)> = None;
        while let Some(mut least) = self.next.peek_mut() {
            let Reverse((key, number, count)) = *least;
            match &mut found {
                Some((found, _)) if *found != key => break,
                Some((_, sum)) => *sum += count,
                None => found = Some((key, count)),
            }
            match self.runs[number].next()? {
                Some((key, count)) => *least = Reverse((key, number, count)),
                None => drop(PeekMut::pop(least)),
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn counted<const N: usize>(keys: &[[u32; N]], bytes: usize) -> (Vec<([u32; N], u64)>, usize) {
        let folder = std::env::temp_dir();
        let mut sorter = Sorter::new(&Room { bytes, folder });
        keys.iter().for_each(|key| sorter.push(*key).unwrap());
        let sorted = sorter.finish().unwrap();
        let mut all = [Vec::new(), Vec::new()];
        for all in &mut all {
            // Twice: what is sorted can be read again.
            let each = &mut |key: &[u32; N], count| {
                all.push((*key, count));
                Ok(())
            };
            sorted.each(each).unwrap();
        }
        assert_eq!(all[0], all[1]);
        let [all, _] = all;
        (all, sorted.runs())
    }

    #[test]
    fn keys_are_counted_the_same_whatever_memory_there_is() {
        let key = |at: u32| {
            let mixed = at.wrapping_mul(2_654_435_761) >> 7;
            [mixed % 5, mixed / 5 % 7, mixed % 3 * 0x4000_0000]
        };
        let keys: Vec<[u32; 3]> = (0..20_000).map(key).collect();
        let mut expected = BTreeMap::new();
        keys.iter()
            .for_each(|key| *expected.entry(*key).or_insert(0) += 1);
        let expected: Vec<_> = expected.into_iter().collect();
        // All at once; a few runs; runs that are merged on the way, once and several times over; a key at a time.
        for (bytes, runs) in [
            (1 << 20, 0..=0),
            (60_000, 2..=5),
            (1200, 2..=63),
            (12, 1..=63),
        ] {
            let (found, n_runs) = counted(&keys, bytes);
            assert_eq!(found, expected, "{bytes} bytes");
            assert!(runs.contains(&n_runs), "{bytes} bytes: {n_runs} runs");
        }
        assert_eq!(counted::<3>(&[], 12), (vec![], 0));
        // Counts of more than seven bits go through runs.
        let (found, _) = counted(&vec![[7]; 100_000], 4 * 30_000);
        assert_eq!(found, [([7], 100_000)]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = PathBuf::from("/nowhere/at/all");
        let mut sorter = Sorter::new(&Room { bytes: 16, folder });
        let pushed = (0..9).try_for_each(|key| sorter.push([key]));
        let error = pushed.unwrap_err();
        assert_eq!(error.exit_code(), 4);
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
}
