//! Refuses duplicate keys: a serde reader for maps, and a check that a safetensors header names each tensor once.

use crate::error::Problem;
use crate::text::json_complaint;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

/// For `#[serde(deserialize_with = …)]`: a map without duplicate keys.
///
/// # Errors
/// The format's error, or the duplicate key.
pub fn distinct<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    deserializer.deserialize_map(Distinct(PhantomData))
}

/// A map without duplicate keys, whose values are ignored.
pub struct Keys;

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        distinct::<D, IgnoredAny>(deserializer).map(|_| Self)
    }
}

/// Checks that no tensor occurs twice in the header of a safetensors file: the library would take the last one. The library
/// must have parsed the bytes before.
///
/// # Errors
/// A problem that names the tensor.
pub fn require_distinct_tensors(file: &Path, bytes: &[u8]) -> Result<(), Problem> {
    let [length, header] = [&bytes[..8], &bytes[8..]];
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize;
    let keys: Result<Keys, _> = serde_json::from_slice(&header[..length]);
    keys.map(drop).map_err(|error| {
        let expected = "a safetensors file";
        Problem::new(file, "header", json_complaint(&error), expected)
    })
}

struct Distinct<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Distinct<V> {
    type Value = BTreeMap<String, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry()? {
            match map.entry(key) {
                Entry::Vacant(place) => drop(place.insert(value)),
                Entry::Occupied(place) => {
                    let found = format_args!("the key {:?} twice", place.key());
                    return Err(A::Error::custom(found));
                }
            }
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_there_twice_is_named() {
        assert!(serde_json::from_str::<Keys>(r#"{"a":1,"b":[2]}"#).is_ok());
        let twice = serde_json::from_str::<Keys>(r#"{"a":1,"b":2,"a":3}"#);
        let text = twice.err().unwrap().to_string();
        assert!(text.starts_with(r#"the key "a" twice"#), "{text}");
    }
}
