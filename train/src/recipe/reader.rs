//! `Reader`: one value of a recipe with its path and the report: read as number, boolean, text or list, a wrong type reported;
//! `Refusal`: the objection of a type to a value of the right kind.

use super::path::KeyPath;
use super::report::Report;
use super::tree::{Node, Value};
use std::fmt;

/// A type's own objection to a value whose kind was right.
#[derive(Debug)]
pub struct Refusal {
    message: Option<String>,
}

impl Refusal {
    /// Reports the objection where it arose, once.
    pub fn reported(mut self, report: &Report<'_>, path: &KeyPath) -> Self {
        if let Some(message) = self.message.take() {
            report.add(path, "a value that is refused", message);
        }
        self
    }
}

impl serde::de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            message: Some(message.to_string()),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.as_deref().unwrap_or("refused"))
    }
}

impl std::error::Error for Refusal {}

/// Reads one value.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    /// Where problems go.
    pub report: &'a Report<'a>,
    /// The value.
    pub node: &'a Node,
    /// The way to it.
    pub path: KeyPath,
}

impl<'a> Reader<'a> {
    /// Reads the value as a `T` by what `read` makes of this reader; what is wrong is in the report. `None` only if a type of
    /// its own refused a value.
    pub(super) fn read_as<T>(self, read: impl FnOnce(Self) -> Result<T, Refusal>) -> Option<T> {
        let (report, path) = (self.report, self.path.clone());
        read(self)
            .map_err(|refusal| refusal.reported(report, &path))
            .ok()
    }

    /// Whether it is a table.
    pub fn is_table(&self) -> bool {
        matches!(self.node.value, Value::Table(_))
    }

    /// Reports that the value is of another kind.
    pub fn wrong(&self, expected: impl Into<String>) {
        let found = self.report.source.describe(self.node);
        self.report.add(&self.path, found, expected);
    }

    pub(super) fn integer(&self, least: i128, most: i128) -> i128 {
        match self.node.value {
            Value::Integer(Some(value)) if (least..=most).contains(&value) => return value,
            Value::Integer(Some(value)) if value < least => {
                self.wrong(format!("a whole number of at least {least}"));
            }
            Value::Integer(_) => self.wrong(format!("a whole number of at most {most}")),
            _ => self.wrong("a whole number"),
        }
        0
    }

    pub(super) fn float(&self) -> f64 {
        match self.node.value {
            Value::Float(value) if value.is_finite() => return value,
            Value::Float(_) => self.wrong("a finite number"),
            Value::Integer(Some(value)) => return value as f64,
            _ => self.wrong("a number"),
        }
        0.0
    }

    pub(super) fn boolean(&self) -> bool {
        match self.node.value {
            Value::Boolean(yes) => return yes,
            _ => self.wrong("true or false"),
        }
        false
    }

    pub(super) fn text(&self) -> &'a str {
        match &self.node.value {
            Value::String(text) => return text,
            _ => self.wrong("a string"),
        }
        ""
    }

    pub(super) fn list(&self, expected: &str) -> &'a [Node] {
        if !matches!(self.node.value, Value::Array(_)) {
            self.wrong(expected);
        }
        self.node.elements()
    }
}
