//! Reads an enum of a recipe for serde, from a table `{ kind = "warmup_cosine", peak = 1e-3, … }`, or from the bare name where
//! the variant has no keys of its own; an unknown kind is reported with the nearest known one.

use crate::recipe::fields::Fields;
use crate::recipe::nearest::{nearest, one_of};
use crate::recipe::placeholder::Placeholder;
use crate::recipe::reader::{Reader, Refusal};
use crate::recipe::tree::{Node, Value};
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, VariantAccess,
    Visitor,
};

/// The key that names the variant.
const KIND: &str = "kind";

/// The variant chosen, and what its fields are read from.
pub struct Choice<'a> {
    variant: &'static str,
    reader: Reader<'a>,
    content: Content,
}

#[derive(Clone, Copy, PartialEq)]
enum Content {
    /// A table with the key `kind`.
    Table,
    /// The bare name: no fields.
    Name,
    /// The choice is not understood, which is reported.
    Placeholder,
}

impl<'a> Choice<'a> {
    /// Finds out which of the variants is meant.
    pub fn new(reader: Reader<'a>, variants: &'static [&'static str]) -> Self {
        let content = match &reader.node.value {
            Value::String(_) => Content::Name,
            Value::Table(_) => Content::Table,
            _ => Content::Placeholder,
        };
        let kind = kind_of(&reader, variants);
        match kind.filter(|kind| variants.contains(kind)) {
            Some(variant) => Self {
                variant,
                reader,
                content,
            },
            // Of one that a program has registered, who reads it later finds the name in the report.
            None => Self {
                variant: variants.first().copied().unwrap_or_default(),
                reader,
                content: Content::Placeholder,
            },
        }
    }
}

/// The variant that a table or a bare name chooses, or the kind that a program has registered here; reported if there is none.
pub fn kind_of(reader: &Reader<'_>, variants: &[&'static str]) -> Option<&'static str> {
    let variants = &reader.report.kinds(&reader.path, variants);
    let kind = match &reader.node.value {
        Value::String(name) => known(reader, name, variants),
        Value::Table(_) => kind(reader, variants),
        _ => {
            reader.wrong(one_of(variants));
            None
        }
    };
    kind.inspect(|&kind| reader.report.chose(&reader.path, kind))
}

/// Reads the table of a choice whose key `kind` is known, or the bare name, which is a table without further keys.
pub fn read_choice<T: DeserializeOwned>(reader: Reader<'_>) -> Option<T> {
    let bare = Node {
        span: reader.node.span.clone(),
        inline: true,
        value: Value::Table(Vec::new()),
    };
    let node = match reader.node.value {
        Value::String(_) => &bare,
        _ => reader.node,
    };
    read_tagged(Some(Reader { node, ..reader }))
}

/// Reads the table of a choice whose key `kind` is known; a placeholder where there is no table.
pub fn read_tagged<T: DeserializeOwned>(reader: Option<Reader<'_>>) -> Option<T> {
    let Some(reader) = reader else {
        return T::deserialize(Placeholder::silent()).ok();
    };
    match &reader.node.value {
        Value::Table(_) => reader.read_as(|reader| T::deserialize(Tagged(reader))),
        value => {
            if let Value::String(kind) = value {
                reader.wrong(format!("a table {{ kind = {kind:?}, … }}"));
            }
            T::deserialize(Placeholder::silent()).ok()
        }
    }
}

/// The variant that the key `kind` of a table names.
fn kind(reader: &Reader<'_>, variants: &[&'static str]) -> Option<&'static str> {
    let path = reader.path.key(KIND);
    let variant = match reader.node.entry(KIND) {
        None => {
            reader.report.add(&path, "no such key", one_of(variants));
            None
        }
        Some(entry) => {
            let tag = Reader {
                report: reader.report,
                node: &entry.node,
                path,
            };
            match &entry.node.value {
                Value::String(name) => known(&tag, name, variants),
                _ => {
                    tag.wrong(one_of(variants));
                    None
                }
            }
        }
    };
    if variant.is_none() {
        // Without its kind, nothing can be said about the rest of the table.
        reader.report.silence(&reader.path);
    }
    variant
}

/// The variant of a name; a misspelt one is reported and read as the one meant.
fn known(reader: &Reader<'_>, name: &str, variants: &[&'static str]) -> Option<&'static str> {
    let exact = variants.iter().find(|variant| **variant == name);
    if exact.is_some() {
        return exact.copied();
    }
    let meant = nearest(name, variants.iter().copied());
    let advice = meant
        .map(|meant| format!("did you mean {meant:?}?"))
        .unwrap_or_default();
    let found = reader.report.source.describe(reader.node);
    reader
        .report
        .add_with_advice(&reader.path, found, one_of(variants), advice);
    variants
        .iter()
        .find(|variant| Some(**variant) == meant)
        .copied()
}

impl<'de, 'a> EnumAccess<'de> for Choice<'a> {
    type Error = Refusal;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Refusal> {
        let name: StrDeserializer<'_, Refusal> = self.variant.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Refusal;

    fn unit_variant(self) -> Result<(), Refusal> {
        if self.content == Content::Table {
            // Without known keys, all others than `kind` are reported as unknown.
            Fields::of_struct(&self.reader, &[], true);
        }
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Refusal> {
        match self.content {
            Content::Table => seed.deserialize(Tagged(self.reader)),
            Content::Name => {
                self.reader
                    .wrong(format!("a table {{ kind = {:?}, … }}", self.variant));
                seed.deserialize(Placeholder::silent())
            }
            Content::Placeholder => seed.deserialize(Placeholder::silent()),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refusal> {
        Placeholder::silent().deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        if self.content == Content::Table {
            return visitor.visit_map(Fields::of_struct(&self.reader, fields, true));
        }
        if self.content == Content::Name {
            let keys = fields.join(", ");
            self.reader
                .wrong(format!("a table {{ kind = {:?}, {keys} }}", self.variant));
        }
        Placeholder::silent().deserialize_struct("", fields, visitor)
    }
}

/// The table of a choice, read as the struct inside its variant: the key `kind` is not the struct's.
struct Tagged<'a>(Reader<'a>);

impl<'de> Deserializer<'de> for Tagged<'_> {
    type Error = Refusal;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_map(Fields::of_struct(&self.0, fields, true))
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.0.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
