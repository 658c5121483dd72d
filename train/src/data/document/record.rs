//! Parses one JSONL object into a `Record`: the text at a field path, task and difficulty; replaces `NaN` and `Infinity`.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Names that an error lists.
const NAMES_MAX: usize = 8;

/// The value found in the text field.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Found {
    /// No such field.
    #[default]
    Missing,
    Null,
    Text(String),
    Other,
}

/// The parts of a JSON object that are used.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub text: Found,
    pub task: Option<String>,
    pub difficulty: Option<u32>,
    /// Whether it has a label of a wrong type.
    pub has_odd_label: bool,
    /// The first field names in it.
    pub names: Vec<String>,
}

impl Record {
    /// Parses an object; `field` is a field name, or a path of nested names joined by dots.
    pub fn parse(json: &str, field: &str) -> Result<Self, serde_json::Error> {
        let mut input = serde_json::Deserializer::from_str(json);
        let record = input.deserialize_map(Object { field })?;
        input.end()?;
        Ok(record)
    }
}

struct Object<'a> {
    field: &'a str,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Record;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("one JSON object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Record, M::Error> {
        let mut record = Record::default();
        while let Some(name) = map.next_key::<String>()? {
            match (below(self.field, &name), name.as_str()) {
                (Some(path), _) => map.next_value_seed(At {
                    path,
                    found: &mut record.text,
                })?,
                (None, "task") => match map.next_value::<Value>()? {
                    Value::String(task) => record.task = Some(task),
                    value => record.has_odd_label |= !value.is_null(),
                },
                (None, "difficulty") => {
                    let value = map.next_value::<Value>()?;
                    record.difficulty = difficulty(&value);
                    record.has_odd_label |= record.difficulty.is_none() && !value.is_null();
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            if record.names.len() < NAMES_MAX {
                record.names.push(name);
            }
        }
        Ok(record)
    }
}

/// A whole number, also as other programs write it: 1.0.
fn difficulty(value: &Value) -> Option<u32> {
    let number = value.as_f64()?;
    let is_whole = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    is_whole.then_some(number as u32)
}

/// What is left of a path inside the field of this name: nothing if it is the text itself.
fn below<'a>(path: &'a str, name: &str) -> Option<Option<&'a str>> {
    match path.strip_prefix(name)? {
        "" => Some(None),
        rest => rest.strip_prefix('.').map(Some),
    }
}

/// Takes what lies at a path.
struct At<'a> {
    path: Option<&'a str>,
    found: &'a mut Found,
}

impl At<'_> {
    fn take<E>(self, found: Found) -> Result<(), E> {
        if self.path.is_none() {
            *self.found = found;
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.take(Found::Text(text.to_string()))
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.take(Found::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.take(Found::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.take(Found::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.take(Found::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.take(Found::Other)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<(), S::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        self.take(Found::Other)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(name) = map.next_key::<String>()? {
            match self.path.and_then(|path| below(path, &name)) {
                Some(path) => map.next_value_seed(At {
                    path,
                    found: &mut *self.found,
                })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        self.take(Found::Other)
    }
}

/// Replaces by `false` what other programs write as numbers and JSON does not allow: `NaN`, `Infinity`, and numbers that
/// are too large. `None` if there is no such number.
pub(super) fn without_odd_numbers(json: &str) -> Option<String> {
    let is_odd = |token: &str| match token {
        "NaN" | "Infinity" | "-Infinity" => true,
        _ if token.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            token.parse::<f64>().is_ok_and(f64::is_infinite)
        }
        _ => false,
    };
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let bytes = json.as_bytes();
    let mut repaired = String::new();
    let (mut at, mut kept) = (0, 0);
    while at < bytes.len() {
        let start = at;
        if bytes[at] == b'"' {
            at += 1;
            while at < bytes.len() && bytes[at] != b'"' {
                at += 1 + usize::from(bytes[at] == b'\\');
            }
            at += 1;
        } else if is_of_token(bytes[at]) {
            while at < bytes.len() && is_of_token(bytes[at]) {
                at += 1;
            }
            if is_odd(&json[start..at]) {
                repaired.push_str(&json[kept..start]);
                repaired.push_str("false");
                kept = at;
            }
        } else {
            at += 1;
        }
    }
    (kept > 0).then(|| repaired + &json[kept..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_may_lie_below_others() {
        let json = r#"{"text": "a", "meta": {"text": "b", "x": {"y": "c"}, "n": 1}, "a.b": {"c": "d"}, "l": ["e"]}"#;
        let cases = [
            ("text", Found::Text("a".into())),
            ("meta.text", Found::Text("b".into())),
            ("meta.x.y", Found::Text("c".into())),
            ("a.b.c", Found::Text("d".into())),
            ("meta", Found::Other),
            ("meta.n", Found::Other),
            ("l", Found::Other),
            ("meta.z", Found::Missing),
            ("text.z", Found::Missing),
            ("", Found::Missing),
        ];
        for (field, found) in cases {
            assert_eq!(Record::parse(json, field).unwrap().text, found, "{field}");
        }
        let null = Record::parse(r#"{"text": null}"#, "text").unwrap();
        assert_eq!(
            (null.text, null.names),
            (Found::Null, vec!["text".to_string()])
        );
    }

    #[test]
    fn a_difficulty_is_a_whole_number_however_it_is_written() {
        let cases = [
            ("2", Some(2), false),
            ("1.0", Some(1), false),
            ("1e2", Some(100), false),
            ("null", None, false),
            ("1.5", None, true),
            ("-1", None, true),
            ("\"2\"", None, true),
            ("5e9", None, true),
        ];
        for (number, difficulty, is_odd) in cases {
            let json = format!("{{\"difficulty\": {number}, \"text\": \"a\"}}");
            let record = Record::parse(&json, "text").unwrap();
            assert_eq!(
                (record.difficulty, record.has_odd_label),
                (difficulty, is_odd)
            );
        }
    }

    #[test]
    fn only_numbers_that_json_does_not_have_are_replaced() {
        let big = "9".repeat(400);
        let cases = [
            (
                r#"{"a":NaN,"b":[-Infinity, Infinity]}"#.to_string(),
                r#"{"a":false,"b":[false, false]}"#,
            ),
            (format!("[{big},-{big},1e400]"), "[false,false,false]"),
            (
                r#"["NaN \" NaN", NaN]"#.to_string(),
                r#"["NaN \" NaN", false]"#,
            ),
        ];
        for (json, repaired) in cases {
            assert_eq!(without_odd_numbers(&json).as_deref(), Some(repaired));
        }
        for json in [r#"["NaN", 1.5, -2e3, nan]"#, "\"\\", "", "\"ä NaN"] {
            assert_eq!(without_odd_numbers(json), None);
        }
    }
}
