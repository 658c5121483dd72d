//! A serde deserializer over a recipe that never stops at the first problem.
//!
//! Whatever is wrong is reported and replaced by a placeholder, so that plain `#[derive(Deserialize)]` types get all
//! their problems found in one go. A struct knows its keys: unknown ones are reported with the nearest known one, and
//! a missing one with what its type expects. Choices are tables with the key `kind`, see `choice.rs`.

use crate::recipe::choice::Choice;
use crate::recipe::fields::{Elements, Fields};
use crate::recipe::path::KeyPath;
use crate::recipe::placeholder::Placeholder;
use crate::recipe::reader::{Reader, Refusal};
use crate::recipe::report::Report;
use crate::recipe::tree::Value;
use serde::de::{DeserializeOwned, Deserializer, Visitor};

/// Reads the whole recipe as a `T`; what is wrong is in the report.
///
/// The value holds placeholders where the report has problems. `None` only if a type of its own refused a value.
pub fn deserialize<T: DeserializeOwned>(report: &Report<'_>) -> Option<T> {
    let reader = Reader {
        report,
        node: &report.source.root,
        path: KeyPath::default(),
    };
    reader.read()
}

impl Reader<'_> {
    /// Reads the value as a `T`; what is wrong is in the report. `None` only if a type of its own refused a value.
    pub fn read<T: DeserializeOwned>(self) -> Option<T> {
        self.read_as(|reader| T::deserialize(reader))
    }
}

macro_rules! scalars {
    ($($method:ident, $visit:ident($read:ident as $kind:ty $(, $least:expr, $most:expr)?);)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
            visitor.$visit(self.$read($($least as i128, $most as i128)?) as $kind)
        })*
    };
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Refusal;

    scalars! {
        deserialize_i8, visit_i64(integer as i64, i8::MIN, i8::MAX);
        deserialize_i16, visit_i64(integer as i64, i16::MIN, i16::MAX);
        deserialize_i32, visit_i64(integer as i64, i32::MIN, i32::MAX);
        deserialize_i64, visit_i64(integer as i64, i64::MIN, i64::MAX);
        deserialize_u8, visit_u64(integer as u64, u8::MIN, u8::MAX);
        deserialize_u16, visit_u64(integer as u64, u16::MIN, u16::MAX);
        deserialize_u32, visit_u64(integer as u64, u32::MIN, u32::MAX);
        deserialize_u64, visit_u64(integer as u64, u64::MIN, u64::MAX);
        deserialize_f32, visit_f32(float as f32);
        deserialize_f64, visit_f64(float as f64);
        deserialize_bool, visit_bool(boolean as bool);
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.node.value {
            Value::String(_) => self.deserialize_str(visitor),
            Value::Integer(_) => self.deserialize_i64(visitor),
            Value::Float(_) => self.deserialize_f64(visitor),
            Value::Boolean(yes) => visitor.visit_bool(*yes),
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Table(_) => self.deserialize_map(visitor),
            Value::Datetime => {
                self.wrong("no date");
                visitor.visit_unit()
            }
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_str(self.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_str(self.text())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let nodes = self.list("a list");
        visitor.visit_seq(Elements::new(self, nodes, nodes.len()))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let expected = format!("a list of {len}");
        let nodes = self.list(&expected);
        if nodes.len() != len && matches!(self.node.value, Value::Array(_)) {
            self.wrong(expected);
        }
        visitor.visit_seq(Elements::new(self, nodes, len))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        if !matches!(self.node.value, Value::Table(_)) {
            self.wrong("a table");
        }
        visitor.visit_map(Fields::of_map(&self))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        if !matches!(self.node.value, Value::Table(_)) {
            self.wrong(format!("a table with the keys {}", fields.join(", ")));
            return Placeholder::silent().deserialize_struct(name, fields, visitor);
        }
        visitor.visit_map(Fields::of_struct(&self, fields, false))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_enum(Choice::new(self, variants))
    }

    /// What is passed by is read by somebody else.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        char bytes byte_buf unit unit_struct identifier
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::source::Source;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Everything {
        weights: BTreeMap<String, f64>,
        pair: (u8, String),
        wrapped: Wrapped,
        checked: Option<Even>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Wrapped(Vec<bool>);

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(try_from = "i32")]
    struct Even(i32);

    impl TryFrom<i32> for Even {
        type Error = String;

        fn try_from(value: i32) -> Result<Self, String> {
            let even = value % 2 == 0;
            even.then_some(Self(value))
                .ok_or("an even number".to_string())
        }
    }

    fn read(text: &str) -> (Option<Everything>, Vec<String>) {
        let source = Source::parse("r.toml", text.to_string()).unwrap();
        let report = Report::new(&source);
        let value = deserialize(&report);
        let problems = report.into_problems();
        (value, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn maps_tuples_and_types_with_their_own_rule_are_read() {
        let text =
            "weights = { a = 1, b = 2.5 }\npair = [3, \"x\"]\nwrapped = [true]\nchecked = 4\n";
        let expected = Everything {
            weights: BTreeMap::from([("a".to_string(), 1.0), ("b".to_string(), 2.5)]),
            pair: (3, "x".to_string()),
            wrapped: Wrapped(vec![true]),
            checked: Some(Even(4)),
        };
        assert_eq!(read(text), (Some(expected), Vec::new()));
    }

    #[test]
    fn placeholders_stand_in_for_what_is_wrong() {
        let text = "weights = { a = \"1\" }\npair = [256]\n";
        let expected = Everything {
            weights: BTreeMap::from([("a".to_string(), 0.0)]),
            pair: (0, String::new()),
            wrapped: Wrapped(Vec::new()),
            checked: None,
        };
        let (value, problems) = read(text);
        assert_eq!(value, Some(expected));
        assert_eq!(
            problems,
            [
                "r.toml: line 1, weights.a: found string \"1\", expected a number",
                "r.toml: wrapped: found no such key, expected a list",
                "r.toml: line 2, pair: found a list of 1, expected a list of 2",
                "r.toml: line 2, pair.0: found integer 256, expected a whole number of at most 255",
            ]
        );
    }

    #[test]
    fn a_value_that_its_type_refuses_is_reported_once_where_it_stands() {
        let (value, problems) = read("weights = {}\npair = [1, \"\"]\nwrapped = []\nchecked = 3\n");
        assert_eq!(value, None);
        let message =
            "r.toml: line 4, checked: found a value that is refused, expected an even number";
        assert_eq!(problems, [message]);
    }
}
