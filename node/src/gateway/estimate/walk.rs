//! Walks through a prompt to where a replica looks for media: the content parts of messages and of what is like a message.
//!
//! The text is read once and nothing is built of it. Whatever is no medium stays text: a picture in the text of a message,
//! in the arguments of a tool or in a field that no replica reads counts by its bytes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::part::part;
use super::source::Source;
use super::tally::{Kind, Tally, Unbounded};
use crate::gateway::endpoint::{self, Endpoint};

/// What is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Messages, and lists of them.
    Messages,
    /// A text, a part, an object with parts, and lists of these.
    Content,
    /// Pictures as texts.
    Pictures,
}

impl Place {
    /// What a field of the prompt has. `None`: text, in which no replica looks for media.
    pub(super) fn of(field: &str, endpoint: &Endpoint) -> Option<Place> {
        use endpoint::Kind;
        match (field, endpoint.kind) {
            ("messages", _) | ("previous_input_messages" | "input", Kind::Responses) => Some(Place::Messages),
            ("system", Kind::Messages) | ("instructions", Kind::Responses) => Some(Place::Content),
            ("images", Kind::Encode) => Some(Place::Pictures),
            ("prompt" | "tools" | "texts", _) => None,
            (_, Kind::Encode) => Some(Place::Content),
            _ => None,
        }
    }
}

/// Adds the media of one field to the tally.
pub(super) fn look(json: &[u8], place: Place, tally: &mut Tally<'_>) {
    let mut reader = serde_json::Deserializer::from_slice(json);
    if (Walk { tally: &mut *tally, place }).deserialize(&mut reader).is_err() {
        tally.has_no_bound(Unbounded::Unreadable);
    }
}

/// Reads a value of the prompt.
pub(super) struct Walk<'t, 'm> {
    pub(super) tally: &'t mut Tally<'m>,
    pub(super) place: Place,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Walk { tally, place } = self;
        if place == Place::Pictures {
            while let Some(picture) = items.next_element::<&RawValue>()? {
                if let Some(source) = Source::of(picture) {
                    tally.add(Kind::Picture, "images", &source);
                }
            }
            return Ok(());
        }
        while items.next_element_seed(Walk { tally: &mut *tally, place })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<(), A::Error> {
        match self.place {
            Place::Messages => message(fields, self.tally),
            Place::Content | Place::Pictures => part(fields, self.tally),
        }
    }
}

/// A field's name.
#[derive(serde::Deserialize)]
pub(super) struct Name<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// A message has parts in its content, and the output of a tool has them there.
fn message<'de, A: MapAccess<'de>>(mut fields: A, tally: &mut Tally<'_>) -> Result<(), A::Error> {
    while let Some(Name(name)) = fields.next_key()? {
        match &*name {
            "content" | "output" => fields.next_value_seed(Walk { tally: &mut *tally, place: Place::Content })?,
            _ => {
                fields.next_value::<IgnoredAny>()?;
            }
        }
    }
    Ok(())
}
