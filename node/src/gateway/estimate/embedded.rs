//! The `source` of pictures and documents in Messages.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::source::{Source, short_text};
use super::tally::Tally;
use super::walk::{Name, Place, Walk};

/// A `source`: one of base 64, a text, parts, a URL or an id.
pub(super) struct Embedded<'de> {
    kind: Option<String>,
    data: Option<&'de RawValue>,
    url: Option<&'de RawValue>,
}

impl<'de> Embedded<'de> {
    /// `None`: it is text, and counts as that.
    pub(super) fn medium(&self) -> Option<Source<'de>> {
        let written = match self.kind.as_deref() {
            Some("text" | "content") => return None,
            Some("url") => self.url,
            _ => self.data.or(self.url),
        };
        Some(written.and_then(Source::of).unwrap_or(Source::Elsewhere))
    }
}

/// Reads a `source`. `None`: it is no object; search results have a text there.
pub(super) struct SourceField<'t, 'm> {
    pub(super) tally: &'t mut Tally<'m>,
}

impl<'de> DeserializeSeed<'de> for SourceField<'_, '_> {
    type Value = Option<Embedded<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for SourceField<'_, '_> {
    type Value = Option<Embedded<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut source = Embedded { kind: None, data: None, url: None };
        while let Some(Name(name)) = fields.next_key()? {
            match &*name {
                "type" => source.kind = short_text(fields.next_value()?),
                "data" => source.data = Some(fields.next_value()?),
                "url" => source.url = Some(fields.next_value()?),
                "content" => {
                    fields.next_value_seed(Walk { tally: &mut *self.tally, place: Place::Content })?;
                }
                _ => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Some(source))
    }
}
