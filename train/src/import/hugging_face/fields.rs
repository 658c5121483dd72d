//! `Fields`: a JSON object whose fields are taken one by one; what is left in the end was understood by nobody. Errors name the
//! file, the field, its value and what it may be.

use super::super::json::quoted;
use crate::error::{Error, Problem};
use crate::file::read_regular;
use crate::keys::distinct;
use crate::text::{beginning, json_complaint};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The largest description of a model that is read.
const MOST_BYTES: u64 = 16 << 20;

/// The longest value that is shown in a message, in characters.
const MOST_SHOWN: usize = 60;

/// The fields of an object that nobody has taken yet.
pub struct Fields {
    path: PathBuf,
    /// What stands before their names in messages: empty, or the name of the object and a dot.
    prefix: String,
    values: BTreeMap<String, Value>,
    /// Fields that were absent, with what was taken instead.
    filled: Vec<String>,
}

impl Fields {
    /// Reads a file of one object.
    ///
    /// # Errors
    /// `Invalid` if there is no such file, no JSON in it, or a field stands in it twice.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let expected = "a JSON object that describes a model";
        let bytes = read_regular(path, expected, MOST_BYTES)?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let values = distinct(&mut json).and_then(|values| json.end().map(|()| values));
        let values = values.map_err(|cause| {
            let place = format!("line {}, column {}", cause.line(), cause.column());
            Error::Invalid(Problem::new(path, place, json_complaint(&cause), expected))
        })?;
        Ok(Self {
            path: path.to_path_buf(),
            prefix: String::new(),
            values,
            filled: Vec::new(),
        })
    }

    /// The fields of an object inside; none if it is absent or null.
    ///
    /// # Errors
    /// `Invalid` if it is something else.
    pub fn inside(&mut self, name: &str) -> Result<Option<Self>, Error> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(values)) => Ok(Some(Self {
                path: self.path.clone(),
                prefix: format!("{}{name}.", self.prefix),
                values: values.into_iter().collect(),
                filled: Vec::new(),
            })),
            Some(other) => Err(self.wrong(name, &other, "null or an object")),
        }
    }

    /// Whether it has a field, null or not.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Takes a value; null is none.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a whole number within bounds; if it is absent, what the library takes.
    ///
    /// # Errors
    /// `Invalid` if it is none.
    pub fn whole(&mut self, name: &str, absent: Option<u64>, most: u64) -> Result<usize, Error> {
        let expected = format!("a whole number from 1 to {most}");
        let Some(value) = self.take(name) else {
            return match absent {
                Some(absent) => Ok(self.fill(name, absent) as usize),
                None => Err(self.wrong(name, &Value::Null, &expected)),
            };
        };
        let number = value.as_u64().filter(|number| (1..=most).contains(number));
        number
            .map(|number| number as usize)
            .ok_or_else(|| self.wrong(name, &value, &expected))
    }

    /// Takes a number; if it is absent, what the library takes.
    ///
    /// # Errors
    /// `Invalid` if it is none, or not finite.
    pub fn number(&mut self, name: &str, absent: Option<f64>) -> Result<f64, Error> {
        let expected = "a number";
        let Some(value) = self.take(name) else {
            return match absent {
                Some(absent) => Ok(self.fill(name, absent)),
                None => Err(self.wrong(name, &Value::Null, expected)),
            };
        };
        let number = value.as_f64().filter(|number| number.is_finite());
        number.ok_or_else(|| self.wrong(name, &value, expected))
    }

    /// Takes a truth value; if it is absent, what the library takes.
    ///
    /// # Errors
    /// `Invalid` if it is none.
    pub fn truth(&mut self, name: &str, absent: bool) -> Result<bool, Error> {
        match self.take(name) {
            None => Ok(self.fill(name, absent)),
            Some(Value::Bool(truth)) => Ok(truth),
            Some(other) => Err(self.wrong(name, &other, "true or false")),
        }
    }

    /// Takes a text.
    ///
    /// # Errors
    /// `Invalid` if it is none.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, Error> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, &other, "a text")),
        }
    }

    /// Takes a token's id or a list of them, each below the size of the vocabulary. A negative one means none.
    ///
    /// # Errors
    /// `Invalid` if it is none.
    pub fn ids(&mut self, name: &str, vocabulary: usize) -> Result<Vec<u32>, Error> {
        let Some(value) = self.take(name) else {
            return Ok(Vec::new());
        };
        let expected = format!("null, an id below vocab_size {vocabulary}, or a list of ids");
        let list = match &value {
            Value::Array(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut ids = Vec::new();
        for id in list {
            match (id.as_i64(), id.as_u64()) {
                (Some(..0), _) => {}
                (_, Some(id)) if id < vocabulary as u64 => ids.push(id as u32),
                _ => return Err(self.wrong(name, &value, &expected)),
            }
        }
        Ok(ids)
    }

    /// Takes a field that must have a value which changes nothing.
    ///
    /// # Errors
    /// `Invalid` if it has another one.
    pub fn neutral(&mut self, name: &str, neutral: &Value, why: &str) -> Result<(), Error> {
        let same = |value: &Value| match (value.as_f64(), neutral.as_f64()) {
            (Some(value), Some(neutral)) => value == neutral,
            _ => value == neutral,
        };
        match self.take(name) {
            Some(value) if !same(&value) => {
                let expected = match neutral {
                    Value::Null => format!("null: {why}"),
                    neutral => format!("{neutral}: {why}"),
                };
                Err(self.wrong(name, &value, &expected))
            }
            _ => Ok(()),
        }
    }

    /// The fields that are left and not null, with their values.
    pub fn left(&self) -> impl Iterator<Item = (&str, &Value)> {
        let values = self.values.iter().filter(|(_, value)| !value.is_null());
        values.map(|(name, value)| (name.as_str(), value))
    }

    /// Fields that were absent, and what stands for them: `name value`.
    pub fn filled(&self) -> &[String] {
        &self.filled
    }

    /// The error for a field.
    pub fn wrong(&self, name: &str, found: &Value, expected: &str) -> Error {
        Error::Invalid(self.problem(name, found, expected))
    }

    /// The error for a field whose value is not what is wrong with it.
    pub fn other(&self, name: &str, found: &str, expected: &str) -> Error {
        Error::Invalid(Problem::new(&self.path, self.place(name), found, expected))
    }

    /// The problem of a field.
    pub fn problem(&self, name: &str, found: &Value, expected: &str) -> Problem {
        let found = match found {
            Value::Null => "none".to_string(),
            Value::String(text) => quoted(text, MOST_SHOWN),
            other => shortened(&other.to_string()),
        };
        Problem::new(&self.path, self.place(name), found, expected)
    }

    fn place(&self, name: &str) -> String {
        format!("{}{}", self.prefix, shortened(name))
    }

    fn fill<T: std::fmt::Debug>(&mut self, name: &str, value: T) -> T {
        self.filled.push(format!("{}{name} {value:?}", self.prefix));
        value
    }
}

/// The beginning of a text of any length.
fn shortened(text: &str) -> String {
    beginning(text, MOST_SHOWN)
}
