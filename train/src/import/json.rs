//! Reads a JSON file of one object as a stream, entry by entry, into the caller's `Entries`; errors name line and column.

use crate::error::{Error, Problem};
use crate::file::open_regular;
use crate::hash::hexadecimal;
use crate::text::json_complaint;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::error::Category;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// The longest text of a file that is shown in a message, in characters.
const MOST_SHOWN: usize = 40;

/// What was found and what was expected, kept until the position is known.
#[derive(Default)]
pub struct Fault(RefCell<Option<[String; 2]>>);

impl Fault {
    /// Stores a fault, and returns the error that stops the reading.
    pub fn stop<E: de::Error>(&self, found: impl Into<String>, expected: impl Into<String>) -> E {
        *self.0.borrow_mut() = Some([found.into(), expected.into()]);
        E::custom("a fault")
    }
}

/// An object that is read entry by entry, so that a name that stands in it twice is noticed and no entry is kept in vain.
pub trait Entries {
    /// What is expected instead of anything else than an object.
    const EXPECTED: &'static str;

    /// Takes the value of a name from the map.
    ///
    /// # Errors
    /// Whatever stops the reading.
    fn entry<'de, A: MapAccess<'de>>(&mut self, name: String, map: &mut A) -> Result<(), A::Error>;
}

/// Reads an object into its entries.
pub struct Object<E>(pub E);

impl<'de, E: Entries> DeserializeSeed<'de> for Object<E> {
    type Value = E;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<E, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, E: Entries> Visitor<'de> for Object<E> {
    type Value = E;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(E::EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<E, A::Error> {
        while let Some(name) = map.next_key()? {
            self.0.entry(name, &mut map)?;
        }
        Ok(self.0)
    }
}

/// Reads a file that holds one object; returns its entries with the SHA-256 of the file.
///
/// # Errors
/// `Invalid` if there is no such file, no JSON in it, or the entries stop with a fault.
pub fn read<E: Entries>(path: &Path, fault: &Fault, entries: E) -> Result<(E, String), Error> {
    let file = open_regular(path, E::EXPECTED)?;
    let mut hash = Sha256::new();
    let hashed = Hashed {
        file,
        hash: &mut hash,
    };
    let mut json = serde_json::Deserializer::from_reader(BufReader::with_capacity(1 << 20, hashed));
    let read = Object(entries).deserialize(&mut json);
    let read = read.and_then(|entries| json.end().map(|()| entries));
    let entries = read.map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        if error.classify() == Category::Io {
            return Error::resource(path, "read", error.into());
        }
        let fault = fault.0.take();
        let [found, expected] =
            fault.unwrap_or_else(|| [json_complaint(&error), E::EXPECTED.to_string()]);
        Error::Invalid(Problem::new(path, place, found, expected))
    })?;
    drop(json);
    Ok((entries, hexadecimal(&hash.finalize())))
}

struct Hashed<'a> {
    file: File,
    hash: &'a mut Sha256,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

/// A whole number of at least 0.
#[derive(Clone, Copy)]
pub struct Whole<'f> {
    /// What it counts.
    pub what: &'static str,
    /// Where a fault is kept.
    pub fault: &'f Fault,
}

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<u64, D::Error> {
        json.deserialize_any(self)
    }
}

impl Whole<'_> {
    fn stop<E: de::Error>(self, found: impl Into<String>) -> Result<u64, E> {
        let expected = format!("{}, a whole number of at least 0", self.what);
        Err(self.fault.stop(found, expected))
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
        self.stop(number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<u64, E> {
        // `Debug` keeps the point of 2.0.
        self.stop(format!("{number:?}"))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<u64, E> {
        self.stop(value.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        self.stop(format!("the text {}", shown(text)))
    }

    fn visit_unit<E: de::Error>(self) -> Result<u64, E> {
        self.stop("null")
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<u64, A::Error> {
        self.stop("a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<u64, A::Error> {
        self.stop("an object")
    }
}

/// A text from a file, quoted for a message.
pub fn shown(text: &str) -> String {
    quoted(text, MOST_SHOWN)
}

/// A text, quoted for a message, of which so many characters are shown at most.
pub fn quoted(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
