//! Reads JSON files of any size as a stream. Errors name line and column.

use crate::error::{Error, Problem};
use crate::file::open_regular;
use crate::hash::hexadecimal;
use crate::text::json_complaint;
use serde::de::{self, DeserializeSeed, Deserializer, Visitor};
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

/// Reads a file that holds one value; returns it with the SHA-256 of the file.
///
/// # Errors
/// `Invalid` if there is no such file, no JSON in it, or the seed stops with a fault.
pub fn read<S, T>(path: &Path, expected: &str, fault: &Fault, seed: S) -> Result<(T, String), Error>
where
    S: for<'de> DeserializeSeed<'de, Value = T>,
{
    let file = open_regular(path, expected)?;
    let mut hash = Sha256::new();
    let hashed = Hashed {
        file,
        hash: &mut hash,
    };
    let mut json = serde_json::Deserializer::from_reader(BufReader::with_capacity(1 << 20, hashed));
    let value = seed
        .deserialize(&mut json)
        .and_then(|value| json.end().map(|()| value));
    let value = value.map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        match (error.classify(), fault.0.take()) {
            (Category::Io, _) => Error::resource(path, "read", error.into()),
            (_, Some([found, expected])) => {
                Error::Invalid(Problem::new(path, place, found, expected))
            }
            (_, None) => {
                let found = json_complaint(&error);
                Error::Invalid(Problem::new(path, place, found, expected))
            }
        }
    })?;
    drop(json);
    Ok((value, hexadecimal(&hash.finalize())))
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

    fn visit_map<A: de::MapAccess<'de>>(self, _: A) -> Result<u64, A::Error> {
        self.stop("an object")
    }
}

/// A text from a file, quoted for a message.
pub fn shown(text: &str) -> String {
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
