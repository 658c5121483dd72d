//! `Source`: the text of a recipe with its parsed tree; finds the value, line and description of a path for messages, and
//! inserts a key into the text.

use crate::error::Problem;
use crate::recipe::path::{KeyPath, Segment, is_bare, shortened};
use crate::recipe::tree::{MAX_DEPTH, Node, Value};
use std::ops::Range;
use toml::de::DeTable;

/// How large a recipe may be, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// A recipe as text and as tree.
#[derive(Debug)]
pub struct Source {
    /// The file as the user named it.
    pub file: String,
    /// Its text, with every `--set` written into it.
    pub text: String,
    /// The root table of the text.
    pub root: Node,
    /// The paths that `--set` wrote.
    pub overridden: Vec<KeyPath>,
    line_starts: Vec<usize>,
}

/// A path followed through the tree.
#[derive(Debug)]
pub struct Located<'a> {
    /// The path as messages show it: elements of an array by their name where they have one.
    pub shown: KeyPath,
    /// How many of its steps exist.
    pub depth: usize,
    /// The node at the end of the steps that exist.
    pub node: &'a Node,
    line: Option<usize>,
}

impl Source {
    /// Parses a text.
    ///
    /// # Errors
    /// The first place that is not TOML, or lies deeper than [`MAX_DEPTH`].
    pub fn parse(file: &str, text: String) -> Result<Self, Problem> {
        if text.trim().is_empty() {
            return Err(Problem::new(file, "", "an empty file", "a recipe")
                .advise("`nerve config new` writes one"));
        }
        let line_starts = line_starts(&text);
        let document = DeTable::parse(&text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            syntax_problem(file, &text, &line_starts, span, error.message())
        })?;
        let root = Node::from_document(document.get_ref(), document.span())
            .map_err(|span| too_deep(file, line_of(&line_starts, span.start)))?;
        Ok(Self {
            file: file.to_string(),
            root,
            overridden: Vec::new(),
            line_starts,
            text,
        })
    }

    /// Follows a path as far as it exists.
    pub fn locate(&self, path: &KeyPath) -> Located<'_> {
        let mut found = Located {
            shown: KeyPath::default(),
            depth: 0,
            node: &self.root,
            line: None,
        };
        for segment in path.segments() {
            let Some((node, shown, offset)) = step(found.node, segment, &found.shown) else {
                break;
            };
            let line = Some(line_of(&self.line_starts, offset));
            let depth = found.depth + 1;
            found = Located {
                shown,
                depth,
                node,
                line,
            };
        }
        for segment in &path.segments()[found.depth..] {
            found.shown = match segment {
                Segment::Key(key) => found.shown.key(key),
                Segment::Index(index) => found.shown.index(*index),
            };
        }
        found
    }

    /// The text with a key more: on a line of its own behind the table's last value, or at the end of an inline table. `None` for
    /// a table without a value of its own, and for a path that is none.
    pub fn with_key(&self, table: &KeyPath, key: &str, value: &str) -> Option<String> {
        let located = self.locate(table);
        let node = located.node;
        if located.depth < table.segments().len() || !matches!(node.value, Value::Table(_)) {
            return None;
        }
        let entry = format!("{key} = {value}");
        let mut text = self.text.clone();
        if node.inline {
            let comma = if node.entries().is_empty() { "" } else { ", " };
            text.insert_str(node.span.end - 1, &format!("{comma}{entry} "));
            return Some(text);
        }
        let values = node.entries().iter().filter(|entry| entry.node.inline);
        let last = values.map(|entry| entry.node.span.end).max()?;
        let rest = &text[last..];
        let at = last + rest.find('\n').unwrap_or(rest.len());
        text.insert_str(at, &format!("\n{entry}"));
        Some(text)
    }

    /// The position of a path, for a message: `line 41, model.d_modl`.
    pub fn place(&self, path: &KeyPath) -> String {
        let located = self.locate(path);
        let line = located.line.map(|line| format!("line {line}, "));
        let overridden = self
            .overridden
            .iter()
            .any(|set| located.shown.is_below(set));
        format!(
            "{}{}{}",
            line.unwrap_or_default(),
            located.shown,
            if overridden { ", from --set" } else { "" }
        )
    }

    /// The line of a path, from 1; that of the table around it if the path does not exist.
    pub fn line(&self, path: &KeyPath) -> usize {
        self.locate(path).line.unwrap_or(1)
    }

    /// A value in words: `integer 12`, `string "12"`, `a table`.
    pub fn describe(&self, node: &Node) -> String {
        let raw = || shortened(self.text.get(node.span.clone()).unwrap_or_default());
        match &node.value {
            Value::String(text) => format!("string {:?}", shortened(text)),
            Value::Integer(_) => format!("integer {}", raw()),
            Value::Float(_) => format!("float {}", raw()),
            Value::Boolean(yes) => format!("boolean {yes}"),
            Value::Datetime => format!("date {}", raw()),
            Value::Array(elements) => format!("a list of {}", elements.len()),
            Value::Table(_) => "a table".to_string(),
        }
    }
}

/// One step down: the node there, its path as shown, and the byte where it begins.
fn step<'a>(
    node: &'a Node,
    segment: &Segment,
    shown: &KeyPath,
) -> Option<(&'a Node, KeyPath, usize)> {
    match (segment, &node.value) {
        (Segment::Key(key), Value::Table(_)) => {
            let entry = node.entry(key)?;
            Some((&entry.node, shown.key(key), entry.key_span.start))
        }
        (Segment::Key(key), Value::Array(elements)) => {
            let named = |element: &Node| {
                element.text_of("name") == Some(key) || element.text_of("path") == Some(key)
            };
            let index = elements
                .iter()
                .position(named)
                .or_else(|| key.parse().ok())?;
            step(node, &Segment::Index(index), shown)
        }
        (Segment::Index(index), Value::Array(elements)) => {
            let element = elements.get(*index)?;
            let shown = match element_name(elements, *index) {
                Some(name) => shown.key(name),
                None => shown.index(*index),
            };
            Some((element, shown, element.span.start))
        }
        _ => None,
    }
}

/// The name of an element, if `--set` finds the element by it. Only the first thousand are called by name.
pub fn element_name(elements: &[Node], index: usize) -> Option<&str> {
    // Whether a name is taken costs a look at all elements before it, and a hostile file has many.
    if index >= 1000 {
        return None;
    }
    let name = elements[index]
        .text_of("name")
        .filter(|name| is_bare(name))?;
    let taken =
        |other: &Node| other.text_of("name") == Some(name) || other.text_of("path") == Some(name);
    (!elements[..index].iter().any(taken)).then_some(name)
}

fn line_starts(text: &str) -> Vec<usize> {
    let after = text.match_indices('\n').map(|(newline, _)| newline + 1);
    std::iter::once(0).chain(after).collect()
}

/// The line of a byte, from 1.
fn line_of(line_starts: &[usize], offset: usize) -> usize {
    line_starts.partition_point(|start| *start <= offset)
}

fn syntax_problem(
    file: &str,
    text: &str,
    line_starts: &[usize],
    span: Range<usize>,
    message: &str,
) -> Problem {
    let line = line_of(line_starts, span.start);
    if message.contains("recurs") {
        return too_deep(file, line);
    }
    let before = text
        .get(line_starts[line - 1]..span.start)
        .unwrap_or_default();
    let place = format!("line {line}, column {}", before.chars().count() + 1);
    let there = shortened(text.get(span).unwrap_or_default());
    if message == "duplicate key" {
        let found = format!("key {there:?} a second time");
        return Problem::new(file, place, found, "every key once");
    }
    let (cause, expected) = message
        .split_once(", expected ")
        .unwrap_or((message, "TOML"));
    let expected = if expected == "nothing" {
        "TOML"
    } else {
        expected
    };
    let found = match there.trim() {
        "" => format!("a syntax error ({cause})"),
        there => format!("a syntax error ({cause}) at {there:?}"),
    };
    Problem::new(file, place, found, expected)
}

fn too_deep(file: &str, line: usize) -> Problem {
    let expected = format!("at most {MAX_DEPTH} tables and lists in each other");
    Problem::new(file, format!("line {line}"), "deeper nesting", expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a = 1\n\n[t]\nk = \"v\"\n\n[[s]]\nname = \"x\"\n[[s]]\nname = \"x\"\n";

    fn place(path: KeyPath) -> String {
        Source::parse("r.toml", TEXT.to_string())
            .unwrap()
            .place(&path)
    }

    #[test]
    fn a_place_has_the_line_of_its_key() {
        assert_eq!(place(KeyPath::default().key("a")), "line 1, a");
        assert_eq!(place(KeyPath::default().key("t").key("k")), "line 4, t.k");
    }

    #[test]
    fn what_is_missing_has_the_line_of_its_table() {
        assert_eq!(place(KeyPath::default().key("t").key("z")), "line 3, t.z");
        assert_eq!(place(KeyPath::default().key("z")), "z");
    }

    #[test]
    fn an_element_is_shown_by_its_name_unless_the_name_means_another_one() {
        let s = KeyPath::default().key("s");
        assert_eq!(place(s.index(0).key("name")), "line 7, s.x.name");
        assert_eq!(place(s.index(1).key("name")), "line 9, s.1.name");
        assert_eq!(place(s.key("1").key("name")), "line 9, s.1.name");
    }

    #[test]
    fn every_value_knows_its_bytes() {
        let source = Source::parse("r.toml", "a = { b = [1, 2.5] } # c\n".to_string()).unwrap();
        let path = KeyPath::default().key("a").key("b");
        let node = source.locate(&path).node;
        assert_eq!(&source.text[node.span.clone()], "[1, 2.5]");
        assert!(node.inline);
    }

    #[test]
    fn broken_text_of_any_kind_gives_a_problem_and_no_panic() {
        // Every beginning of a valid text, and every text with one byte replaced by a sign that TOML uses.
        for end in 0..TEXT.len() {
            let _ = Source::parse("r.toml", TEXT[..end].to_string());
            for sign in [
                "[", "]", "{", "}", "=", "\"", "'", ".", ",", "\n", "#", "\0", "é",
            ] {
                let text = format!("{}{sign}{}", &TEXT[..end], &TEXT[end + 1..]);
                let _ = Source::parse("r.toml", text);
            }
        }
    }

    #[test]
    fn an_element_is_found_by_its_name_its_path_or_its_number() {
        let text = "[[s]]\nname = \"1\"\nn = 10\n[[s]]\npath = \"a/b\"\nn = 11\n[[s]]\nname = \"x\"\nn = 12\n";
        let source = Source::parse("r.toml", text.to_string()).unwrap();
        let number = |key: &str| {
            let found = source.locate(&KeyPath::default().key("s").key(key).key("n"));
            let Value::Integer(Some(n)) = found.node.value else {
                panic!("{key}")
            };
            (
                n,
                source.line(&KeyPath::default().key("s").key(key).key("n")),
            )
        };
        // A name comes before a number.
        assert_eq!(
            ["0", "1", "a/b", "2", "x"].map(number),
            [(10, 3), (10, 3), (11, 6), (12, 9), (12, 9)]
        );
        let beyond = source.locate(&KeyPath::default().key("s").key("3").key("n"));
        assert_eq!(
            (beyond.depth, beyond.shown.to_string().as_str()),
            (1, "s.3.n")
        );
        let elements = source.root.entry("s").unwrap().node.elements();
        let names = [0, 1, 2].map(|index| element_name(elements, index));
        assert_eq!(names, [Some("1"), None, Some("x")]);
    }

    #[test]
    fn a_column_counts_characters() {
        let place = |text: &str| {
            Source::parse("r.toml", format!("a = 1\nb = \"{text}\" x\n"))
                .unwrap_err()
                .place
        };
        assert_eq!(place("\u{e9}\u{8a9e}"), place("ee"));
        assert!(
            place("ee").starts_with("line 2, column "),
            "{}",
            place("ee")
        );
    }
}
