//! `TokenFile`: opens a file of token ids that another program made (`.bin` of llm.c or nanoGPT, `.npy`) and reads its ids.
//!
//! A file says itself what it is by llm.c's header or NumPy's; of one without a header the user has to say how wide ids are,
//! for the bytes of two-byte and four-byte ids look alike. Nothing is believed that does not fit the size of the file.

mod find;
mod layout;
mod npy;

use std::fs::File;
use std::io::{Chain, Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::tokens::Tokens;
use super::writer::{HEADER_BYTES, Width};
use crate::error::{Error, Problem};
use crate::file::open_regular;
use crate::hash::HashedRead;
use find::find;
use layout::Layout;
pub use layout::TokenFormat;
pub(super) use npy::header as npy_header;

const EXPECTED: &str = "a file of token ids";

/// Ids are read in blocks of so many bytes, which are whole ids of every width.
const BLOCK_BYTES: u64 = 1 << 20;

/// A file of token ids, and its format where the file does not say it itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenSource<'a> {
    /// The file.
    pub path: &'a Path,
    /// What the recipe or the command line says of it.
    pub format: Option<TokenFormat>,
}

impl TokenSource<'_> {
    /// Whether it can be one of our splits: those have no format that is said, and are no `.npy`.
    pub fn may_be_prepared(&self) -> bool {
        let is_numpy = self.path.extension().is_some_and(|ending| ending == "npy");
        self.format.is_none() && !is_numpy
    }
}

impl<'a> From<&'a Path> for TokenSource<'a> {
    /// A file that says itself what it is.
    fn from(path: &'a Path) -> Self {
        Self { path, format: None }
    }
}

/// An opened file whose header fits its size.
pub struct TokenFile {
    path: PathBuf,
    layout: Layout,
    content: Chain<Cursor<Vec<u8>>, HashedRead<File>>,
}

impl TokenFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// `Invalid` if it is no such file, its header does not fit its size, or nobody says how wide its ids are.
    pub fn open(source: TokenSource<'_>) -> Result<Self, Error> {
        let TokenSource { path, format } = source;
        let failed = |e| Error::resource(path, "read", e);
        let file = open_regular(path, EXPECTED)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut input = HashedRead::new(file);
        let mut head = Vec::new();
        // As long as llm.c's header; NumPy's says how long it is.
        let mut wanted = HEADER_BYTES as u64;
        while (head.len() as u64) < wanted {
            let missing = wanted - head.len() as u64;
            let read = input.by_ref().take(missing).read_to_end(&mut head);
            if read.map_err(failed)? == 0 {
                break;
            }
            let of_header = npy::header_bytes(&head).unwrap_or(0);
            wanted = wanted.max(of_header.min(size).min(npy::HEADER_BYTES_MAX));
        }
        let layout =
            find(&head, size, format).map_err(|wrong| Error::Invalid(wrong.problem(path)))?;
        let behind = head.split_off(layout.first_byte as usize);
        Ok(Self {
            path: path.to_path_buf(),
            layout,
            content: Cursor::new(behind).chain(input),
        })
    }

    /// What the file is, for people.
    pub fn describe(&self) -> String {
        format!("{} of {} ids", self.layout.format, self.layout.element)
    }

    /// Reads all ids and the hash of the file. Every id is held against the vocabulary.
    ///
    /// # Errors
    /// `Invalid` with place and value of the first id that the vocabulary does not have; `Resource` if reading fails.
    pub(super) fn read(mut self, vocabulary_size: usize) -> Result<(Tokens, String), Error> {
        let element = self.layout.element;
        let width = element.bytes();
        let n = self.layout.n;
        let mut tokens = Tokens::with_capacity(Width::of(vocabulary_size), n as usize);
        let mut block = vec![0; BLOCK_BYTES as usize];
        let mut left = n * width as u64;
        while left > 0 {
            let block = &mut block[..left.min(BLOCK_BYTES) as usize];
            self.fill(block)?;
            left -= block.len() as u64;
            for bytes in block.chunks_exact(width) {
                match element.id(bytes) {
                    Ok(id) if (id as usize) < vocabulary_size => tokens.push(id),
                    found => {
                        let found = found.map_or_else(|id| id.to_string(), |id| id.to_string());
                        return Err(self.outside(tokens.len(), &found, vocabulary_size));
                    }
                }
            }
        }
        Ok((tokens, self.content.get_ref().1.sha256()))
    }

    /// The hash of the file.
    ///
    /// # Errors
    /// `Invalid` if the file cannot be read; its ids are not looked at.
    pub fn sha256(mut self) -> Result<String, Error> {
        let mut left = self.layout.n * self.layout.element.bytes() as u64;
        let mut block = vec![0; BLOCK_BYTES as usize];
        while left > 0 {
            let block = &mut block[..left.min(BLOCK_BYTES) as usize];
            self.fill(block)?;
            left -= block.len() as u64;
        }
        Ok(self.content.get_ref().1.sha256())
    }

    fn fill(&mut self, block: &mut [u8]) -> Result<(), Error> {
        self.content.read_exact(block).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => {
                let found = "fewer bytes than when it was opened";
                Error::Invalid(Problem::new(&self.path, "", found, "a file that stays"))
            }
            _ => Error::resource(&self.path, "read", e),
        })
    }

    fn outside(&self, index: usize, found: &str, vocabulary_size: usize) -> Error {
        let byte = self.layout.first_byte + (index * self.layout.element.bytes()) as u64;
        let place = format!("index {index} (byte {byte})");
        let expected = format!("ids from 0 to {}", vocabulary_size - 1);
        let problem = Problem::new(&self.path, place, format!("id {found}"), expected);
        let advice = match self.layout.format {
            TokenFormat::U16 | TokenFormat::U32 => {
                "name the tokenizer that made the ids, or say how wide they are"
            }
            TokenFormat::LlmC | TokenFormat::Npy => "name the tokenizer that made the ids",
        };
        Error::Invalid(problem.advise(advice))
    }
}

#[cfg(test)]
mod tests;
