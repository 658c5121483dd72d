//! Passes the elements of a list (`Elements`) and the keys and values of a table (`Fields`) to serde, one after the other;
//! reports unknown keys, and gives placeholders for what is missing.

use crate::recipe::nearest::nearest;
use crate::recipe::path::KeyPath;
use crate::recipe::placeholder::Placeholder;
use crate::recipe::reader::{Reader, Refusal};
use crate::recipe::report::Report;
use crate::recipe::tree::Node;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess};

/// The elements of a list, then placeholders up to `len`.
pub struct Elements<'a> {
    report: &'a Report<'a>,
    path: KeyPath,
    nodes: &'a [Node],
    at: usize,
    len: usize,
}

impl<'a> Elements<'a> {
    /// The elements of the list that `reader` stands at, `len` of them.
    pub fn new(reader: Reader<'a>, nodes: &'a [Node], len: usize) -> Self {
        let Reader { report, path, .. } = reader;
        Self {
            report,
            path,
            nodes,
            at: 0,
            len,
        }
    }
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Refusal;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refusal> {
        if self.at == self.len {
            return Ok(None);
        }
        let path = self.path.index(self.at);
        let node = self.nodes.get(self.at);
        self.at += 1;
        let value = match node {
            Some(node) => seed.deserialize(Reader {
                report: self.report,
                node,
                path: path.clone(),
            }),
            None => seed.deserialize(Placeholder::silent()),
        };
        value
            .map(Some)
            .map_err(|refusal| refusal.reported(self.report, &path))
    }
}

/// A key that a struct or map gets, with the value found for it.
struct Field<'a> {
    name: &'a str,
    path: KeyPath,
    node: Option<&'a Node>,
}

/// The keys and values of a table.
pub struct Fields<'a> {
    report: &'a Report<'a>,
    fields: std::vec::IntoIter<Field<'a>>,
    next: Option<Field<'a>>,
}

impl<'a> Fields<'a> {
    /// All keys of a struct, also the missing ones; unknown keys of the table are reported.
    ///
    /// `tagged`: the table is a choice, its key `kind` is read already.
    pub fn of_struct(reader: &Reader<'a>, names: &'static [&'static str], tagged: bool) -> Self {
        let entries = reader.node.entries();
        let mut fields: Vec<Field<'a>> = names
            .iter()
            .map(|name| Field {
                name,
                path: reader.path.key(name),
                node: reader.node.entry(name).map(|entry| &entry.node),
            })
            .collect();
        for entry in entries
            .iter()
            .filter(|entry| !(tagged && entry.key == "kind"))
        {
            if names.contains(&entry.key.as_str()) {
                continue;
            }
            let path = reader.path.key(&entry.key);
            let meant = nearest(&entry.key, names.iter().copied());
            report_unknown(reader, &path, names, meant);
            // The value of a misspelt key is read as that of the key meant, so that its type is checked too; rules
            // wait until the name is right.
            let meant = fields.iter_mut().find(|field| Some(field.name) == meant);
            if let Some(field) = meant.filter(|field| field.node.is_none()) {
                reader.report.silence(&field.path);
                (field.path, field.node) = (path, Some(&entry.node));
            }
        }
        Self::new(reader.report, fields)
    }

    /// All keys of a map.
    pub fn of_map(reader: &Reader<'a>) -> Self {
        let entries = reader.node.entries().iter();
        let fields = entries.map(|entry| Field {
            name: &entry.key,
            path: reader.path.key(&entry.key),
            node: Some(&entry.node),
        });
        Self::new(reader.report, fields.collect())
    }

    fn new(report: &'a Report<'a>, fields: Vec<Field<'a>>) -> Self {
        Self {
            report,
            fields: fields.into_iter(),
            next: None,
        }
    }
}

fn report_unknown(reader: &Reader<'_>, path: &KeyPath, names: &[&str], meant: Option<&str>) {
    match (meant, names) {
        (Some(meant), _) => {
            let advice = format!("did you mean {meant}?");
            reader
                .report
                .add_with_advice(path, "an unknown key", "a known one", advice);
        }
        (None, []) => reader
            .report
            .add(path, "an unknown key", "no key besides kind"),
        (None, names) => {
            let expected = format!("one of the keys {}", names.join(", "));
            reader.report.add(path, "an unknown key", expected);
        }
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Refusal;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refusal> {
        self.next = self.fields.next();
        let Some(field) = &self.next else {
            return Ok(None);
        };
        let name: StrDeserializer<'_, Refusal> = field.name.into_deserializer();
        seed.deserialize(name)
            .map(Some)
            .map_err(|refusal| refusal.reported(self.report, &field.path))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refusal> {
        let field = self
            .next
            .take()
            .expect("serde asks for a value after its key");
        let value = match field.node {
            Some(node) => {
                let path = field.path.clone();
                seed.deserialize(Reader {
                    report: self.report,
                    node,
                    path,
                })
            }
            None => seed.deserialize(Placeholder::missing(self.report, &field.path)),
        };
        value.map_err(|refusal| refusal.reported(self.report, &field.path))
    }
}
