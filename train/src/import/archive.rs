//! The zip container of a PyTorch checkpoint: entries stored without compression, found by name.
//!
//! An entry's name is a key and never a path on the disk. Every length is checked against the file before memory is
//! taken for it. The layout is PKWARE's `APPNOTE.TXT`, with the zip64 records that PyTorch always writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Problem};

const ENTRY_START: &[u8] = b"PK\x03\x04";
const DIRECTORY_RECORD: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const END_64_POINTER: &[u8] = b"PK\x06\x07";
const ENTRY_START_BYTES: usize = 30;
const DIRECTORY_RECORD_BYTES: usize = 46;
const END_BYTES: usize = 22;
const END_64_BYTES: usize = 56;
const END_64_POINTER_BYTES: usize = 20;
/// Says that the true number stands in a zip64 record.
const IN_ZIP64: u64 = u32::MAX as u64;
/// The end record may be followed by a comment of this length.
const COMMENT_BYTES: usize = u16::MAX as usize;
/// Room for a hundred thousand entries; PyTorch writes one per storage.
const DIRECTORY_BYTES: u64 = 16 << 20;
/// The first bytes of the format before PyTorch 1.6: a pickled magic number.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
const FORMAT: &str = "a zip file as torch.save writes it";

/// An open archive and the places of its entries.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    file: File,
    bytes: u64,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    start: u64,
    bytes: u64,
    crc32: u32,
}

impl Archive {
    /// Opens the file and reads its directory.
    ///
    /// # Errors
    /// `Invalid` if it is absent, no zip file, damaged or compressed; `Resource` if it cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::unreadable(path, "a PyTorch checkpoint", source);
        let file = File::open(path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        let mut archive = Self {
            path: path.to_path_buf(),
            file,
            bytes,
            entries: BTreeMap::new(),
        };
        archive.check_format()?;
        archive.read_directory()?;
        Ok(archive)
    }

    /// The names of all entries, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// How many bytes the whole file has.
    pub fn file_bytes(&self) -> u64 {
        self.bytes
    }

    /// How many bytes an entry holds, if there is one of this name.
    pub fn entry_bytes(&self, name: &str) -> Option<u64> {
        self.entries.get(name).map(|entry| entry.bytes)
    }

    /// The content of an entry of at most `limit_bytes`.
    ///
    /// # Errors
    /// `Invalid` if it is absent, too large or damaged; `Resource` if it cannot be read.
    pub fn read(&mut self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        let Some(&Entry {
            start,
            bytes,
            crc32,
        }) = self.entries.get(name)
        else {
            return Err(self.fault(name, "no such entry", "an entry of the archive"));
        };
        if bytes > limit_bytes {
            let expected = format!("at most {limit_bytes}");
            return Err(self.fault(name, format!("{bytes} bytes"), expected));
        }
        let head = self.read_at(start, ENTRY_START_BYTES, name)?;
        if !head.starts_with(ENTRY_START) {
            return Err(self.fault(name, "other bytes", "the start of a zip entry"));
        }
        // The names and extra fields of the two records may differ in length: PyTorch pads this one.
        let skipped = ENTRY_START_BYTES as u64 + number(&head, 26, 2) + number(&head, 28, 2);
        let content = self.read_at(start.saturating_add(skipped), bytes as usize, name)?;
        if checksum(&content) != crc32 {
            return Err(self.fault(name, "another CRC-32", "the one in the zip directory"));
        }
        Ok(content)
    }

    fn check_format(&mut self) -> Result<(), Error> {
        let head = self.read_at(0, LEGACY.len().min(self.bytes as usize), "")?;
        if head.starts_with(LEGACY) {
            let found = "the legacy format of torch.save";
            let advice = "load it in PyTorch and save it again with torch.save(…)";
            return Err(Error::Invalid(
                Problem::new(&self.path, "", found, FORMAT).advise(advice),
            ));
        }
        if !head.starts_with(ENTRY_START) {
            return Err(self.fault("", "no zip file", FORMAT));
        }
        Ok(())
    }

    fn read_directory(&mut self) -> Result<(), Error> {
        let (start, bytes) = self.find_directory()?;
        if bytes > DIRECTORY_BYTES {
            let found = format!("a zip directory of {bytes} bytes");
            return Err(self.fault("", found, format!("at most {DIRECTORY_BYTES}")));
        }
        let directory = self.read_at(start, bytes as usize, "zip directory")?;
        let mut rest = &directory[..];
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (name, entry, after) = self.record(rest)?;
            rest = after;
            total = total.saturating_add(entry.bytes);
            if self.entries.contains_key(&name) {
                return Err(self.fault(&name, "two entries of this name", "one"));
            }
            self.entries.insert(name, entry);
        }
        // Entries that lie on one another would let a small file unfold into a large one.
        if total > self.bytes {
            let found = format!("entries of {total} bytes");
            let expected = format!("at most the {} bytes of the file", self.bytes);
            return Err(self.fault("", found, expected));
        }
        Ok(())
    }

    /// Where the directory starts and how many bytes it has.
    fn find_directory(&mut self) -> Result<(u64, u64), Error> {
        let tail_bytes = (END_BYTES + COMMENT_BYTES).min(self.bytes as usize);
        let tail_start = self.bytes - tail_bytes as u64;
        let tail = self.read_at(tail_start, tail_bytes, "")?;
        let ends_here = |at: &usize| {
            let record = &tail[*at..];
            record.starts_with(END) && record.len() as u64 == END_BYTES as u64 + number(record, 20, 2)
        };
        let places = 0..(tail.len() + 1).saturating_sub(END_BYTES);
        let Some(at) = places.rev().find(ends_here) else {
            let found = "a zip file without an end, perhaps cut short";
            return Err(self.fault("", found, FORMAT));
        };
        let (bytes, start) = (number(&tail, at + 12, 4), number(&tail, at + 16, 4));
        if bytes != IN_ZIP64 && start != IN_ZIP64 {
            return Ok((start, bytes));
        }
        let place = "zip64 end";
        let pointer_start = (tail_start + at as u64).saturating_sub(END_64_POINTER_BYTES as u64);
        let pointer = self.read_at(pointer_start, END_64_POINTER_BYTES, place)?;
        if !pointer.starts_with(END_64_POINTER) {
            return Err(self.fault(place, "no pointer to it", FORMAT));
        }
        let end = self.read_at(number(&pointer, 8, 8), END_64_BYTES, place)?;
        if !end.starts_with(END_64) {
            return Err(self.fault(place, "other bytes", FORMAT));
        }
        Ok((number(&end, 48, 8), number(&end, 40, 8)))
    }

    /// The first record of the directory: its name, its place, and what follows it.
    fn record<'a>(&self, bytes: &'a [u8]) -> Result<(String, Entry, &'a [u8]), Error> {
        let damaged = |found: &str| self.fault("zip directory", found, "a record of an entry");
        if bytes.len() < DIRECTORY_RECORD_BYTES || !bytes.starts_with(DIRECTORY_RECORD) {
            return Err(damaged("other bytes"));
        }
        let (head, rest) = bytes.split_at(DIRECTORY_RECORD_BYTES);
        let length = |at| number(head, at, 2) as usize;
        let [name, extra, comment] = [length(28), length(30), length(32)];
        if rest.len() < name + extra + comment {
            return Err(damaged("a record that is cut short"));
        }
        let (name, rest) = rest.split_at(name);
        let (extra, rest) = rest.split_at(extra);
        let name = std::str::from_utf8(name).map_err(|_| damaged("a name that is no UTF-8"))?;
        if number(head, 8, 2) & 1 != 0 || number(head, 10, 2) != 0 {
            let expected = "a stored one, as torch.save writes it";
            return Err(self.fault(name, "a compressed or encrypted entry", expected));
        }
        let sizes = [number(head, 20, 4), number(head, 24, 4), number(head, 42, 4)];
        let [packed, bytes, start] =
            widen(sizes, extra).ok_or_else(|| damaged("no zip64 sizes"))?;
        if packed != bytes {
            return Err(self.fault(name, "two sizes", "one, as the entry is stored"));
        }
        let entry = Entry {
            start,
            bytes,
            crc32: number(head, 16, 4) as u32,
        };
        Ok((name.to_string(), entry, &rest[comment..]))
    }

    fn read_at(&mut self, start: u64, bytes: usize, place: &str) -> Result<Vec<u8>, Error> {
        if start.checked_add(bytes as u64).is_none_or(|end| end > self.bytes) {
            let found = format!("a claim of {bytes} bytes from byte {start}");
            let expected = format!("a place in the {} bytes of the file", self.bytes);
            return Err(self.fault(place, found, expected));
        }
        let mut content = vec![0; bytes];
        let seek = self.file.seek(SeekFrom::Start(start));
        seek.and_then(|_| self.file.read_exact(&mut content))
            .map_err(|source| Error::resource(&self.path, "read", source))?;
        Ok(content)
    }

    fn fault(&self, place: &str, found: impl Into<String>, expected: impl Into<String>) -> Error {
        Error::Invalid(Problem::new(&self.path, place, found, expected))
    }
}

/// A little-endian number of `bytes` bytes.
fn number(record: &[u8], at: usize, bytes: usize) -> u64 {
    let digits = record[at..at + bytes].iter().rev();
    digits.fold(0, |number, digit| number << 8 | u64::from(*digit))
}

/// Takes from the zip64 extra field those numbers that did not fit; `None` if they are not there.
fn widen(mut numbers: [u64; 3], mut extra: &[u8]) -> Option<[u64; 3]> {
    // The record keeps the packed size first, the extra field the unpacked one.
    let order = [1, 0, 2];
    if !numbers.contains(&IN_ZIP64) {
        return Some(numbers);
    }
    while extra.len() >= 4 {
        let (kind, bytes) = (number(extra, 0, 2), number(extra, 2, 2) as usize);
        let mut field = extra.get(4..4 + bytes)?;
        if kind == 1 {
            for index in order.into_iter().filter(|index| numbers[*index] == IN_ZIP64).collect::<Vec<_>>() {
                let (value, rest) = field.split_at_checked(8)?;
                numbers[index] = number(value, 0, 8);
                field = rest;
            }
            return Some(numbers);
        }
        extra = &extra[4 + bytes..];
    }
    None
}

/// The CRC-32 of zip files (polynomial 0xEDB88320, reflected).
fn checksum(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = checksum_table();
    let step = |sum: u32, byte: &u8| sum >> 8 ^ TABLE[(sum as u8 ^ byte) as usize];
    !bytes.iter().fold(u32::MAX, step)
}

const fn checksum_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut sum = index as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = sum >> 1 ^ (sum & 1) * 0xEDB8_8320;
            bit += 1;
        }
        table[index] = sum;
        index += 1;
    }
    table
}
