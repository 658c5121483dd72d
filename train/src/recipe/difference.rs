//! Compares the values of two recipes. Trees are compared, not texts, so comments and the order of keys do not matter.

use crate::recipe::path::{KeyPath, shortened};
use crate::recipe::source::{Source, element_name};
use crate::recipe::tree::{Node, Value};
use std::collections::BTreeMap;

/// A key whose values differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key as `--set` takes it.
    pub key: String,
    /// The value in the first recipe; `None` if the key is not there.
    pub first: Option<String>,
    /// The value in the second.
    pub second: Option<String>,
}

/// The values of a recipe by key, as they are written, but with one spelling for each number.
pub type Values = BTreeMap<String, String>;

/// The values of a recipe. Elements of a list are keyed by their names, if any; the list itself then holds their order.
pub fn values(source: &Source) -> Values {
    let mut values = Values::new();
    collect(source, &source.root, &KeyPath::default(), &mut values);
    values
}

/// All keys whose values differ, in the order of their names, except those below one of `ignored`.
pub fn differences(first: &Values, second: &Values, ignored: &[&str]) -> Vec<Difference> {
    let mut keys: Vec<&String> = first.keys().chain(second.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.retain(|key| first.get(*key) != second.get(*key) && !ignored.contains(&key.as_str()));
    let difference = |key: &String| Difference {
        key: key.clone(),
        first: first.get(key).cloned(),
        second: second.get(key).cloned(),
    };
    keys.into_iter().map(difference).collect()
}

fn collect(source: &Source, node: &Node, path: &KeyPath, values: &mut Values) {
    match &node.value {
        Value::Table(entries) if !entries.is_empty() => {
            for entry in entries {
                collect(source, &entry.node, &path.key(&entry.key), values);
            }
        }
        Value::Array(elements) if elements.iter().any(is_table) => {
            let name = |index| element_name(elements, index);
            let names: Vec<String> = (0..elements.len())
                .map(|index| name(index).map_or(index.to_string(), str::to_string))
                .collect();
            values.insert(path.to_string(), names.join(", "));
            for (element, name) in elements.iter().zip(&names) {
                collect(source, element, &path.key(name), values);
            }
        }
        _ => drop(values.insert(path.to_string(), text(source, node))),
    }
}

fn is_table(node: &Node) -> bool {
    matches!(node.value, Value::Table(_))
}

/// A value in one line; `1`, `1.0` and `1e0` are the same number.
fn text(source: &Source, node: &Node) -> String {
    let raw = || source.text.get(node.span.clone()).unwrap_or_default();
    match &node.value {
        Value::String(text) => format!("{text:?}"),
        Value::Integer(Some(whole)) => whole.to_string(),
        Value::Float(number) => format!("{number}"),
        Value::Boolean(yes) => yes.to_string(),
        Value::Array(elements) => {
            let elements: Vec<String> = elements.iter().map(|node| text(source, node)).collect();
            format!("[{}]", elements.join(", "))
        }
        Value::Table(_) => "{}".to_string(),
        Value::Integer(None) | Value::Datetime => raw().to_string(),
    }
}

/// A value for a message, shortened: it may be a megabyte long.
pub fn shown(value: Option<&String>) -> String {
    value.map_or("nothing".to_string(), |value| shortened(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(first: &str, second: &str) -> Vec<(String, String, String)> {
        let values = |text: &str| values(&Source::parse("r.toml", text.to_string()).unwrap());
        let found = differences(&values(first), &values(second), &["run.name"]);
        let parts = |one: Difference| {
            let [first, second] = [&one.first, &one.second].map(|value| shown(value.as_ref()));
            (one.key, first, second)
        };
        found.into_iter().map(parts).collect()
    }

    fn row(key: &str, first: &str, second: &str) -> (String, String, String) {
        (key.to_string(), first.to_string(), second.to_string())
    }

    #[test]
    fn comments_order_and_spelling_are_no_difference() {
        let first = "a = 1 # one\nb = [1, 2.0]\n[t]\nx = 'k'\ny = 1e-3\n[run]\nname = \"a\"";
        let second = "[run]\nname = \"b\"\n[t]\ny = 0.001\nx = \"k\"\n";
        let second = format!("a = 1.0\nb = [ 1.0, 2 ]\n{second}");
        assert_eq!(of(first, &second), []);
    }

    #[test]
    fn every_other_value_is_named_with_both() {
        let first = "a = 1\n[t]\nx = { kind = \"k\", n = 2 }\n[[s]]\nname = \"p\"\nn = 1\n";
        let second = "a = 2\n[t]\nx = \"k\"\n[[s]]\nname = \"q\"\nn = 1\n";
        let expected = [
            row("a", "1", "2"),
            row("s", "p", "q"),
            row("s.p.n", "1", "nothing"),
            row("s.p.name", "\"p\"", "nothing"),
            row("s.q.n", "nothing", "1"),
            row("s.q.name", "nothing", "\"q\""),
            row("t.x", "nothing", "\"k\""),
            row("t.x.kind", "\"k\"", "nothing"),
            row("t.x.n", "2", "nothing"),
        ];
        assert_eq!(of(first, second), expected);
    }

    #[test]
    fn the_order_of_stages_counts() {
        let stages = |names: [&str; 2]| {
            format!(
                "[[s]]\nname = \"{}\"\n[[s]]\nname = \"{}\"\n",
                names[0], names[1]
            )
        };
        let found = of(&stages(["p", "q"]), &stages(["q", "p"]));
        assert_eq!(found, [row("s", "p, q", "q, p")]);
    }

    #[test]
    fn only_the_very_keys_that_are_to_be_ignored_are() {
        let text = |n: u32| format!("[run]\nname = {n}\nnames = {n}\n[other]\nname = {n}\n");
        let found = of(&text(1), &text(2));
        assert_eq!(
            found,
            [row("other.name", "1", "2"), row("run.names", "1", "2")]
        );
        // Text, number and truth are not the same, and a negative number is not its opposite.
        let found = of(
            "a = \"1\"\nb = true\nc = -1\nd = {}",
            "a = 1\nb = \"true\"\nc = 1\nd = 0",
        );
        let keys: Vec<String> = found.into_iter().map(|(key, _, _)| key).collect();
        assert_eq!(keys, ["a", "b", "c", "d"]);
    }
}
