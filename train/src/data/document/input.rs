//! Opens a text file or pipe as a stream of bytes: decompresses gzip and zstd, hashes the raw bytes, reads tables as lines of JSON
//! if the program was built for them, refuses other formats.

use std::fs::{self, File};
use std::io::{self, BufReader, Chain, Cursor, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder;

#[cfg(feature = "parquet")]
use super::table::TableRows;
use super::table_kind::TableKind;
use crate::error::{Error, Problem};
use crate::hash::HashedRead;

const EXPECTED: &str = "a text or JSONL file";

/// What the beginning of a text is looked at for.
const HEAD_BYTES: u64 = 64 << 10;

/// The bytes of a text, decompressed.
pub(super) struct Input {
    content: Chain<Cursor<Vec<u8>>, Content>,
    /// The size of the file; none of an input that can be read only once.
    file_bytes: Option<u64>,
    /// The hash and the bytes of the stream that was put into a file to be read from there.
    origin: Option<(String, u64)>,
}

/// The file, with what was read to know its kind put back in front.
type Source = BufReader<Chain<Cursor<Vec<u8>>, HashedRead<File>>>;

enum Content {
    Plain(Source),
    Gzip(Box<MultiGzDecoder<Source>>),
    Zstd(Box<Decoder<'static, Source>>),
    #[cfg(feature = "parquet")]
    Table(Box<TableRows>),
}

impl Input {
    /// Opens a file, a pipe, or the standard input as `-`; `field` is the column of texts of a table.
    ///
    /// # Errors
    /// `Invalid` if it is missing, empty, a directory, a device or in an encoding or format that is not read, `Resource`
    /// if the system refuses it.
    pub fn open(path: &Path, field: &str) -> Result<Self, Error> {
        let invalid = |found: &str, advice: &str| {
            let problem = Problem::new(path, "", found, EXPECTED);
            Err(Error::Invalid(problem.advise(advice)))
        };
        let file = match is_standard_input(path) {
            true => io::stdin().as_fd().try_clone_to_owned().map(File::from),
            false => match fs::metadata(path).map(|metadata| metadata.file_type()) {
                Ok(kind) if kind.is_dir() => return invalid("a directory", "name the files in it"),
                Ok(kind) if !kind.is_file() && !kind.is_fifo() => {
                    let advice = "name a file, a pipe, or - for the standard input";
                    return invalid("a device or socket", advice);
                }
                _ => File::open(path),
            },
        };
        let unreadable = |e| Error::unreadable(path, EXPECTED, e);
        let file = file.map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            return invalid("a directory", "name the files in it");
        }
        // As `- < /dev/zero`, which has no end.
        if kind.is_char_device() && !file.is_terminal() || kind.is_block_device() {
            return invalid("a device", "name a file, or pour a pipe in");
        }
        let mut raw = HashedRead::new(file);
        let head = head(&mut raw, 16).map_err(unreadable)?;
        if head.is_empty() {
            let problem = Problem::new(path, "", "an empty file", "some text");
            return Err(Error::Invalid(problem));
        }
        // Of a standard input that is a file, nobody knows how much was read before.
        let can_be_read_again = kind.is_file() && !is_standard_input(path);
        if let Some(table) = TableKind::of(&head) {
            let problem = |advice: &str| {
                let found = format!("{} file", table.name());
                Error::Invalid(Problem::new(path, "", found, EXPECTED).advise(advice))
            };
            if !can_be_read_again {
                return Err(problem("name the file: a table is not read from a pipe"));
            }
            return Self::of_table(path, raw, table, field, metadata.len(), problem);
        }
        if let Some((format, command)) = foreign(&head) {
            let advice = format!("read it through `{command} FILE | nerve … -`");
            return invalid(format, &advice);
        }
        let is_gzip = head.starts_with(b"\x1f\x8b");
        // A frame, or one to skip in front of it.
        let is_zstd = head.starts_with(b"\x28\xb5\x2f\xfd")
            || head.get(1..4) == Some(b"\x2a\x4d\x18") && head[0] >> 4 == 5;
        let source = BufReader::with_capacity(1 << 16, Cursor::new(head).chain(raw));
        let mut content = match (is_gzip, is_zstd) {
            (true, _) => Content::Gzip(Box::new(MultiGzDecoder::new(source))),
            (_, true) => {
                let decoder = Decoder::with_buffer(source).map_err(unreadable)?;
                Content::Zstd(Box::new(decoder))
            }
            _ => Content::Plain(source),
        };
        let head = self::head(&mut content, HEAD_BYTES);
        let head = head.map_err(|e| content.error(path, e))?;
        if let Some(encoding) = encoding(&head) {
            let found = match head.contains(&0xff) {
                true => format!("{encoding} by its byte order mark"),
                false => format!("{encoding} by its zero bytes"),
            };
            let problem = Problem::new(path, "", found, "UTF-8 text");
            let advice = format!("convert it: iconv -f {encoding} -t UTF-8 FILE > FILE.utf8");
            return Err(Error::Invalid(problem.advise(advice)));
        }
        Ok(Self {
            content: Cursor::new(head).chain(content),
            file_bytes: can_be_read_again.then_some(metadata.len()),
            origin: None,
        })
    }

    #[cfg(feature = "parquet")]
    fn of_table(
        path: &Path,
        raw: HashedRead<File>,
        kind: TableKind,
        field: &str,
        bytes: u64,
        _refused: impl Fn(&str) -> Error,
    ) -> Result<Self, Error> {
        let rows = TableRows::open(path, raw.into_inner(), kind, field)?;
        let content = Content::Table(Box::new(rows));
        Ok(Self {
            content: Cursor::new(Vec::new()).chain(content),
            file_bytes: Some(bytes),
            origin: None,
        })
    }

    #[cfg(not(feature = "parquet"))]
    fn of_table(
        _path: &Path,
        _raw: HashedRead<File>,
        _kind: TableKind,
        _field: &str,
        _bytes: u64,
        refused: impl Fn(&str) -> Error,
    ) -> Result<Self, Error> {
        Err(refused(
            "build the program with --features parquet, which reads its rows",
        ))
    }

    /// The kind of table, if it is one: its rows are lines of JSON then.
    pub fn table(&self) -> Option<&'static str> {
        match self.content.get_ref().1 {
            #[cfg(feature = "parquet")]
            Content::Table(rows) => Some(rows.kind().name()),
            _ => None,
        }
    }

    /// Copies the rest of a stream into an unnamed file in a directory; returns that input and its length in bytes.
    pub fn spooled(mut self, path: &Path, directory: &Path) -> Result<(Self, u64), Error> {
        let place = directory.join("stream");
        let refused = |e| Error::resource(&place, "write", e);
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        let mut file = options.open(&place).map_err(refused)?;
        fs::remove_file(&place).map_err(refused)?;
        let mut buffer = vec![0; 1 << 16];
        let mut bytes = 0;
        loop {
            let n = self.read(&mut buffer).map_err(|e| self.error(path, e))?;
            if n == 0 {
                break;
            }
            file.write_all(&buffer[..n]).map_err(refused)?;
            bytes += n as u64;
        }
        file.seek(SeekFrom::Start(0)).map_err(refused)?;
        let source = BufReader::new(Cursor::new(Vec::new()).chain(HashedRead::new(file)));
        let spooled = Self {
            content: Cursor::new(Vec::new()).chain(Content::Plain(source)),
            file_bytes: None,
            origin: Some((self.sha256(), self.bytes_read())),
        };
        Ok((spooled, bytes))
    }

    /// The size of the file on the disk; none of an input that can be read only once.
    pub fn file_bytes(&self) -> Option<u64> {
        self.file_bytes
    }

    /// The kind of compression, if any.
    pub fn compression(&self) -> Option<&'static str> {
        match self.content.get_ref().1 {
            #[cfg(feature = "parquet")]
            Content::Table(_) => None,
            Content::Plain(_) => None,
            Content::Gzip(_) => Some("gzip"),
            Content::Zstd(_) => Some("zstd"),
        }
    }

    /// The first bytes of the text, which were read to detect its format.
    pub fn head(&self) -> &[u8] {
        self.content.get_ref().0.get_ref()
    }

    /// Bytes of the file read so far.
    pub fn bytes_read(&self) -> u64 {
        match &self.origin {
            Some((_, bytes)) => *bytes,
            None => self.content.get_ref().1.bytes_read(),
        }
    }

    /// SHA-256 of the bytes of the file read so far, in hexadecimal.
    pub fn sha256(&self) -> String {
        match &self.origin {
            Some((sha256, _)) => sha256.clone(),
            None => self.content.get_ref().1.sha256(),
        }
    }

    /// The error to report when reading fails.
    pub fn error(&self, path: &Path, error: io::Error) -> Error {
        self.content.get_ref().1.error(path, error)
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.content.read(buffer)
    }
}

impl Content {
    /// The file, of what reads it from its beginning to its end.
    fn raw(&self) -> &HashedRead<File> {
        let source = match self {
            Self::Plain(source) => source,
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Zstd(decoder) => decoder.get_ref(),
            #[cfg(feature = "parquet")]
            Self::Table(_) => unreachable!("a table reads its file in an order of its own"),
        };
        source.get_ref().get_ref().1
    }

    /// Of a table it is known once all rows are read.
    fn bytes_read(&self) -> u64 {
        match self {
            #[cfg(feature = "parquet")]
            Self::Table(rows) => rows.whole().map_or(0, |(_, bytes)| *bytes),
            _ => self.raw().bytes_read(),
        }
    }

    /// Of a table it is known once all rows are read.
    fn sha256(&self) -> String {
        match self {
            #[cfg(feature = "parquet")]
            Self::Table(rows) => rows
                .whole()
                .map(|(sha256, _)| sha256.clone())
                .unwrap_or_default(),
            _ => self.raw().sha256(),
        }
    }

    /// A file that is compressed badly is the user's, one that cannot be read the machine's.
    fn error(&self, path: &Path, error: io::Error) -> Error {
        match self {
            #[cfg(feature = "parquet")]
            Self::Table(rows) => rows.error(path, error),
            Self::Plain(_) => Error::resource(path, "read", error),
            Self::Gzip(_) | Self::Zstd(_) if error.raw_os_error().is_some() => {
                Error::resource(path, "read", error)
            }
            _ => {
                let place = format!("byte {}", self.raw().bytes_read());
                let found = format!("what cannot be decompressed ({error})");
                let problem = Problem::new(path, place, found, "a whole compressed file");
                Error::Invalid(problem.advise("get the file again"))
            }
        }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            #[cfg(feature = "parquet")]
            Self::Table(rows) => rows.read(buffer),
        }
    }
}

fn is_standard_input(path: &Path) -> bool {
    let names = ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];
    names.map(Path::new).contains(&path)
}

fn head(input: &mut impl Read, bytes: u64) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    input.take(bytes).read_to_end(&mut head)?;
    Ok(head)
}

/// An encoding that is named at the beginning of a text and is not UTF-8.
fn encoding(head: &[u8]) -> Option<&'static str> {
    match head {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        head => unnamed(head),
    }
}

/// An encoding of Latin letters whose zero bytes stand where they must, in two or three of four places.
fn unnamed(head: &[u8]) -> Option<&'static str> {
    let groups = head.chunks_exact(4);
    let most = (groups.len() / 10 * 9).max(1);
    let zeros = |place: usize| groups.clone().filter(move |group| group[place] == 0);
    match [0, 1, 2, 3].map(|place| zeros(place).count() >= most) {
        [false, true, true, true] => Some("UTF-32LE"),
        [true, true, true, false] => Some("UTF-32BE"),
        [false, true, false, true] => Some("UTF-16LE"),
        [true, false, true, false] => Some("UTF-16BE"),
        _ => None,
    }
}

/// A format that is not read, and the program that reads it.
fn foreign(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let formats: [(&[u8], &str, &str); 5] = [
        (b"\xfd7zXZ\0", "a file compressed by xz", "xz -dc"),
        (b"BZh91AY&SY", "a file compressed by bzip2", "bzip2 -dc"),
        (b"\x04\x22\x4d\x18", "a file compressed by lz4", "lz4 -dc"),
        (b"PK\x03\x04", "a zip archive", "unzip -p"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x -so"),
    ];
    let mut known = formats.into_iter();
    let (_, found, command) = known.find(|(magic, ..)| head.starts_with(magic))?;
    Some((found, command))
}
