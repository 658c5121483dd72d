//! A TOML document as a tree of values with their positions in the text.

use std::ops::Range;
use toml::de::{DeArray, DeTable, DeValue};

/// How deep tables and arrays may lie in each other.
pub const MAX_DEPTH: usize = 32;

/// A value and its position, in bytes of the text. The position of a table with a header is that of its header.
#[derive(Debug)]
pub struct Node {
    /// Its bytes in the text.
    pub span: Range<usize>,
    /// Whether the span is the whole value, so that another value can be written over it.
    pub inline: bool,
    /// What it holds.
    pub value: Value,
}

/// What a node holds.
#[derive(Debug)]
pub enum Value {
    /// A text.
    String(String),
    /// A whole number; `None` if it has more than 38 digits.
    Integer(Option<i128>),
    /// Any other number; too large ones are infinite.
    Float(f64),
    /// True or false.
    Boolean(bool),
    /// A date, which no recipe asks for.
    Datetime,
    /// Values in order.
    Array(Vec<Node>),
    /// Keys and values in the order of the text.
    Table(Vec<Entry>),
}

/// A key of a table with its value.
#[derive(Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The bytes of the key in the text.
    pub key_span: Range<usize>,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// The tree of a parsed document.
    ///
    /// # Errors
    /// The place of the first value that lies deeper than [`MAX_DEPTH`].
    pub fn from_document(table: &DeTable<'_>, span: Range<usize>) -> Result<Self, Range<usize>> {
        Ok(Self {
            span,
            inline: false,
            value: Value::Table(entries(table, 1)?),
        })
    }

    /// The entry of a table.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The entries of a table, none for any other value.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }

    /// The elements of an array, none for any other value.
    pub fn elements(&self) -> &[Node] {
        match &self.value {
            Value::Array(elements) => elements,
            _ => &[],
        }
    }

    /// The string under a key of a table.
    pub fn text_of(&self, key: &str) -> Option<&str> {
        match &self.entry(key)?.node.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}

fn entries(table: &DeTable<'_>, depth: usize) -> Result<Vec<Entry>, Range<usize>> {
    let mut entries = Vec::new();
    for (key, value) in table {
        let key_span = key.span();
        // A header contains its key; a value that is written out follows it.
        let inline = value.span().start >= key_span.end;
        let node = node(value, inline, depth)?;
        let key = key.get_ref().to_string();
        entries.push(Entry {
            key,
            key_span,
            node,
        });
    }
    entries.sort_by_key(|entry| entry.key_span.start);
    Ok(entries)
}

fn elements(array: &DeArray<'_>, inline: bool, depth: usize) -> Result<Vec<Node>, Range<usize>> {
    array
        .iter()
        .map(|value| node(value, inline, depth))
        .collect()
}

fn node(
    value: &toml::Spanned<DeValue<'_>>,
    inline: bool,
    depth: usize,
) -> Result<Node, Range<usize>> {
    let span = value.span();
    if depth > MAX_DEPTH {
        return Err(span);
    }
    let value = match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(digits) => {
            Value::Integer(i128::from_str_radix(digits.as_str(), digits.radix()).ok())
        }
        DeValue::Float(digits) => Value::Float(digits.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(yes) => Value::Boolean(*yes),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(array) => Value::Array(elements(array, inline, depth + 1)?),
        DeValue::Table(table) => Value::Table(entries(table, depth + 1)?),
    };
    Ok(Node {
        span,
        inline,
        value,
    })
}
