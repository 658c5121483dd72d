//! The path of a value in a recipe: `model.d_model`, `stage.fixed.steps`, `data.train.0.weight`.

use std::fmt;

/// One step down the tree.
#[derive(Clone, Debug, PartialEq)]
pub enum Segment {
    /// A key of a table; on the command line also the name or number of an element of an array.
    Key(String),
    /// An element of an array, from 0.
    Index(usize),
}

/// The path from the root of a recipe to a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyPath(Vec<Segment>);

impl KeyPath {
    /// The path one key further down.
    pub fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_string()))
    }

    /// The path one array element further down.
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    /// The path of these steps.
    pub fn of(segments: &[Segment]) -> Self {
        Self(segments.to_vec())
    }

    /// The steps from the root.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Whether `other` is this path or lies above it.
    pub fn is_below(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// Parses a dotted path as it is typed; keys that contain dots are quoted. `None` if it is not a path.
    pub fn parse(text: &str) -> Option<Self> {
        let mut segments = Vec::new();
        let mut rest = text.trim();
        loop {
            let (key, after) = match rest.chars().next()? {
                quote @ ('"' | '\'') => rest[1..].split_once(quote)?,
                _ => rest.split_at(rest.find('.').unwrap_or(rest.len())),
            };
            segments.push(Segment::Key(key.trim().to_string()));
            if after.is_empty() {
                return Some(Self(segments));
            }
            rest = after.strip_prefix('.')?;
        }
    }

    fn with(&self, segment: Segment) -> Self {
        let mut path = self.clone();
        path.0.push(segment);
        path
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            let dot = if i == 0 { "" } else { "." };
            match segment {
                Segment::Key(key) if is_bare(key) => write!(f, "{dot}{key}")?,
                // Debug escapes what would move the cursor of a terminal.
                Segment::Key(key) => write!(f, "{dot}{:?}", shortened(key))?,
                Segment::Index(index) => write!(f, "{dot}{index}")?,
            }
        }
        Ok(())
    }
}

/// Whether a key can stand in a path without quotes.
pub fn is_bare(key: &str) -> bool {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (1..=100).contains(&key.len()) && key.chars().all(bare)
}

/// A text cut to a length that fits in a message.
pub fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.chars().count() <= LONGEST {
        return text.to_string();
    }
    text.chars().take(LONGEST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_back_what_it_shows() {
        for text in ["model", "stage.0.steps", "data.train.\"a/b.bin\".weight"] {
            assert_eq!(KeyPath::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_path_is_refused() {
        for text in ["", ".", "a.", "\"a", "\"a\"b"] {
            assert_eq!(KeyPath::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_path_lies_below_its_beginnings_only() {
        let path = KeyPath::default().key("stage").index(1).key("steps");
        assert!(path.is_below(&KeyPath::default().key("stage").index(1)));
        assert!(!path.is_below(&KeyPath::default().key("stage").index(0)));
    }

    #[test]
    fn a_key_of_a_hundred_plain_characters_needs_no_quotes() {
        for key in ["a", "a-b_C9", &"k".repeat(100)] {
            assert!(is_bare(key), "{key}");
        }
        for key in ["", "a.b", "a b", "é", &"k".repeat(101)] {
            assert!(!is_bare(key), "{key}");
        }
        let text = "x".repeat(60);
        assert_eq!(shortened(&text), text);
        assert_eq!(shortened(&format!("{text}y")), format!("{}…", &text[1..]));
        assert_eq!(
            KeyPath::parse(" 'a.b' . c ").map(|path| path.to_string()),
            None
        );
        let quoted = KeyPath::parse("s.'a.b'.\"c\"").unwrap();
        assert_eq!(quoted.to_string(), "s.\"a.b\".c");
        assert_eq!(quoted.segments().len(), 3);
    }
}
