//! `Export`: writes the ids of a split as a file for other programs (llm.c's, nanoGPT's, NumPy's); `token_file` reads them back.

use std::io::{self, Write};

use super::shard::Split;
use super::token_file::{TokenFormat, npy_header};
use super::writer::{HEADER_BYTES, TOKENS_MAX, Width};
use crate::error::{Error, Problem};

/// Ids that are written at a time.
const BLOCK: usize = 1 << 18;

/// A split that can be written in a format.
pub struct Export<'a> {
    split: &'a Split,
    format: TokenFormat,
    width: Width,
}

impl<'a> Export<'a> {
    /// Ids are as wide as the vocabulary needs, or as the format says.
    ///
    /// # Errors
    /// `Config` if the format is too narrow for the vocabulary, or its header cannot count so many ids.
    pub fn new(split: &'a Split, format: TokenFormat) -> Result<Self, Error> {
        let needed = Width::of(split.vocabulary_size());
        let width = match format {
            TokenFormat::U16 => Width::U16,
            TokenFormat::U32 => Width::U32,
            TokenFormat::LlmC | TokenFormat::Npy => needed,
        };
        if width.bytes() < needed.bytes() {
            let found = format!("u16 for a vocabulary of {}", split.vocabulary_size());
            let problem = Problem::typed("--format", found, "u32, llm_c or npy");
            return Err(Error::config(problem));
        }
        if format == TokenFormat::LlmC && split.len() as u64 > TOKENS_MAX {
            let found = format!("llm_c for {} ids", split.len());
            let expected = format!("another, for its header counts up to {TOKENS_MAX}");
            return Err(Error::config(Problem::typed("--format", found, expected)));
        }
        Ok(Self {
            split,
            format,
            width,
        })
    }

    /// What is written, for people. Documents are not: what other programs know of them is the symbol that ends them.
    pub fn describe(&self) -> String {
        let (n, bytes) = (self.split.len(), self.width.bytes());
        let end = self
            .split
            .specials()
            .end
            .filter(|_| self.split.ends_documents());
        let ends = match end {
            Some(id) => format!("documents end with id {id}"),
            None => "no symbol ends documents, so they are one stream there".to_string(),
        };
        format!("{n} ids of {bytes} bytes in {}; {ends}", self.format)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Those of the output.
    pub fn write(&self, output: &mut impl Write) -> io::Result<()> {
        let n = self.split.len();
        match self.format {
            TokenFormat::U16 | TokenFormat::U32 => {}
            TokenFormat::LlmC => {
                let [magic, version] = self.width.magic();
                let mut header = [magic, version, n as i32].map(i32::to_le_bytes).concat();
                header.resize(HEADER_BYTES, 0);
                output.write_all(&header)?;
            }
            TokenFormat::Npy => {
                let descr = match self.width {
                    Width::U16 => "<u2",
                    Width::U32 => "<u4",
                };
                output.write_all(&npy_header(descr, n as u64))?;
            }
        }
        for start in (0..n).step_by(BLOCK) {
            let ids = self.split.tokens(start..n.min(start + BLOCK)).into_iter();
            let bytes: Vec<u8> = match self.width {
                Width::U16 => ids.flat_map(|id| (id as u16).to_le_bytes()).collect(),
                Width::U32 => ids.flat_map(u32::to_le_bytes).collect(),
            };
            output.write_all(&bytes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::TokenSource;
    use super::super::shard::tests::split_of_lines;
    use super::super::tokenizer::{Kind, Tokenizer};
    use super::*;

    #[test]
    fn what_is_exported_comes_back_with_the_same_ids_documents_and_bytes() {
        let tokenizer = Tokenizer::train(Kind::Byte, std::iter::empty(), None).unwrap();
        let split = Split::open(split_of_lines(&["ab", "cde", "f"])).unwrap();
        let place = tempfile::tempdir().unwrap();
        let sizes = [
            (TokenFormat::U16, 2 * 9),
            (TokenFormat::U32, 4 * 9),
            (TokenFormat::LlmC, 1024 + 2 * 9),
            (TokenFormat::Npy, 128 + 2 * 9),
        ];
        for (format, size) in sizes {
            let path = place.path().join("exported");
            let export = Export::new(&split, format).unwrap();
            assert!(export.describe().contains("end with id 257"));
            let mut bytes = Vec::new();
            export.write(&mut bytes).unwrap();
            assert_eq!(bytes.len(), size, "{format:?}");
            std::fs::write(&path, &bytes).unwrap();
            let source = TokenSource {
                path: &path,
                format: Some(format),
            };
            let back = Split::open_for(source, &tokenizer).unwrap();
            let ids = |split: &Split| split.tokens(0..split.len());
            assert_eq!(ids(&back), ids(&split), "{format:?}");
            assert_eq!(back.documents().len(), 3);
            for (back, one) in back.documents().iter().zip(split.documents()) {
                let facts = (back.start, back.tokens, back.bytes);
                assert_eq!(facts, (one.start, one.tokens, one.bytes), "{format:?}");
            }
        }
    }

    #[test]
    fn two_bytes_are_refused_for_a_vocabulary_of_four() {
        let tokens: Vec<String> = std::iter::once("<unk>".to_string())
            .chain(('\u{4e00}'..).take(30_000).map(String::from))
            .chain(('\u{20000}'..).take(40_000).map(String::from))
            .collect();
        let path = std::path::Path::new("vocabulary.json");
        let tokenizer = Tokenizer::of_characters(path, &tokens).unwrap();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("ids");
        std::fs::write(&path, [69_999u32, 0, 5].map(u32::to_le_bytes).concat()).unwrap();
        let source = TokenSource {
            path: &path,
            format: Some(TokenFormat::U32),
        };
        let split = Split::open_for(source, &tokenizer).unwrap();
        assert_eq!(split.tokens(0..3), [69_999, 0, 5]);
        let error = Export::new(&split, TokenFormat::U16).err().unwrap();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error.to_string().contains("u16 for a vocabulary of 70001"),
            "{error}"
        );
        let export = Export::new(&split, TokenFormat::Npy).unwrap();
        let mut bytes = Vec::new();
        export.write(&mut bytes).unwrap();
        assert!(String::from_utf8_lossy(&bytes[..128]).contains("'<u4'"));
        assert!(export.describe().contains("one stream"));
    }
}
