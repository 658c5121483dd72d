//! Stands in for a value that is missing or wrong, so that deserialising goes on and finds the other problems too.

use crate::recipe::nearest::one_of;
use crate::recipe::path::KeyPath;
use crate::recipe::reader::Refusal;
use crate::recipe::report::Report;
use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, VariantAccess, Visitor,
};

/// Gives every type its plainest value: 0, the empty text, an empty list, the first variant.
#[derive(Clone, Copy, Debug)]
pub struct Placeholder<'a> {
    missing: Option<(&'a Report<'a>, &'a KeyPath)>,
}

impl<'a> Placeholder<'a> {
    /// A placeholder for a value whose problem is reported already.
    pub fn silent() -> Self {
        Self { missing: None }
    }

    /// A placeholder for a missing key: reports what its type expects, unless the key is optional.
    pub fn missing(report: &'a Report<'a>, path: &'a KeyPath) -> Self {
        Self {
            missing: Some((report, path)),
        }
    }

    fn tell(&self, expected: impl Into<String>) {
        if let Some((report, path)) = self.missing {
            report.add(path, "no such key", expected);
        }
    }
}

/// One method per type: what a missing key should have been, and the value that stands in for it.
macro_rules! plain {
    ($($method:ident => $expected:literal, $visit:ident($($value:expr)?);)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
            self.tell($expected);
            visitor.$visit($($value)?)
        })*
    };
}

impl<'de> Deserializer<'de> for Placeholder<'_> {
    type Error = Refusal;

    plain! {
        deserialize_any => "a value", visit_unit();
        deserialize_ignored_any => "a value", visit_unit();
        deserialize_unit => "a value", visit_unit();
        deserialize_bool => "true or false", visit_bool(false);
        deserialize_i8 => "a whole number", visit_i64(0);
        deserialize_i16 => "a whole number", visit_i64(0);
        deserialize_i32 => "a whole number", visit_i64(0);
        deserialize_i64 => "a whole number", visit_i64(0);
        deserialize_u8 => "a whole number", visit_u64(0);
        deserialize_u16 => "a whole number", visit_u64(0);
        deserialize_u32 => "a whole number", visit_u64(0);
        deserialize_u64 => "a whole number", visit_u64(0);
        deserialize_f32 => "a number", visit_f64(0.0);
        deserialize_f64 => "a number", visit_f64(0.0);
        deserialize_char => "a string", visit_char(' ');
        deserialize_str => "a string", visit_str("");
        deserialize_string => "a string", visit_str("");
        deserialize_identifier => "a string", visit_str("");
        deserialize_bytes => "a string", visit_str("");
        deserialize_byte_buf => "a string", visit_str("");
        deserialize_seq => "a list", visit_seq(SeqDeserializer::new(std::iter::empty::<()>()));
        deserialize_map => "a table", visit_map(MapDeserializer::new(std::iter::empty::<((), ())>()));
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_none()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.tell(format!("a list of {len}"));
        visitor.visit_seq(SeqDeserializer::new((0..len).map(|_| Silent)))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.tell(format!("a table with the keys {}", fields.join(", ")));
        visitor.visit_map(MapDeserializer::new(
            fields.iter().map(|field| (*field, Silent)),
        ))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        if let Some((report, path)) = self.missing {
            self.tell(one_of(&report.kinds(path, variants)));
        }
        visitor.visit_enum(AnyContent {
            variant: variants.first().copied().unwrap_or_default(),
        })
    }
}

/// Lets serde's own sequences and maps hold placeholders.
struct Silent;

impl IntoDeserializer<'_, Refusal> for Silent {
    type Deserializer = Placeholder<'static>;

    fn into_deserializer(self) -> Self::Deserializer {
        Placeholder::silent()
    }
}

/// A variant whose fields are all placeholders.
struct AnyContent {
    variant: &'static str,
}

impl<'de> EnumAccess<'de> for AnyContent {
    type Error = Refusal;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Refusal> {
        let name: StrDeserializer<'_, Refusal> = self.variant.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for AnyContent {
    type Error = Refusal;

    fn unit_variant(self) -> Result<(), Refusal> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Refusal> {
        seed.deserialize(Placeholder::silent())
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refusal> {
        Placeholder::silent().deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        Placeholder::silent().deserialize_struct("", fields, visitor)
    }
}
