//! One content part: which media it has, whatever its type and the order of its fields.

use serde::de::{IgnoredAny, MapAccess};
use serde_json::value::RawValue;

use super::embedded::{Embedded, SourceField};
use super::source::{Source, short_text};
use super::tally::{Kind, Tally, Unbounded};
use super::walk::{Name, Place, Walk};

/// Parts that stand for a medium: in chats, in Responses and in Messages. What vLLM 0.26 does not take, other servers do.
const MEDIA_TYPES: [(&str, Kind); 18] = [
    ("image_url", Kind::Picture),
    ("image_pil", Kind::Picture),
    ("input_image", Kind::Picture),
    ("computer_screenshot", Kind::Picture),
    ("image", Kind::Picture),
    ("input_audio", Kind::Audio),
    ("audio_url", Kind::Audio),
    ("audio", Kind::Audio),
    ("video_url", Kind::Video),
    ("input_video", Kind::Video),
    ("video", Kind::Video),
    ("file", Kind::Document),
    ("input_file", Kind::Document),
    ("document", Kind::Document),
    ("container_upload", Kind::Document),
    ("image_embeds", Kind::Embeddings),
    ("audio_embeds", Kind::Embeddings),
    ("prompt_embeds", Kind::Embeddings),
];

/// Fields that hold a medium whatever the part's type is: vLLM looks for them where a type is missing or a `uuid` is there.
const MEDIA_FIELDS: [(&str, Kind); 9] = [
    ("image_url", Kind::Picture),
    ("image_pil", Kind::Picture),
    ("input_audio", Kind::Audio),
    ("audio_url", Kind::Audio),
    ("video_url", Kind::Video),
    ("file", Kind::Document),
    ("image_embeds", Kind::Embeddings),
    ("audio_embeds", Kind::Embeddings),
    ("prompt_embeds", Kind::Embeddings),
];

/// Parts that are text, and parts that have parts.
const TEXT_TYPES: [&str; 16] = [
    "text",
    "input_text",
    "output_text",
    "refusal",
    "thinking",
    "redacted_thinking",
    "reasoning_text",
    "summary_text",
    "tool_use",
    "tool_result",
    "tool_reference",
    "search_result",
    "system_content",
    "developer_content",
    "message",
    "computer_call_output",
];

/// What is found in a part before its type is known, which may be its last field.
#[derive(Default)]
struct Part<'de> {
    kind: Option<String>,
    /// Media were added, or the part is one whose content is text.
    is_counted: bool,
    /// A medium that the replica may know already by its `uuid`.
    remembered: Option<(Kind, &'static str)>,
    has_uuid: bool,
    files: Vec<Source<'de>>,
    sources: Vec<Embedded<'de>>,
    data: Option<&'de RawValue>,
}

/// Reads a part and adds its media to the tally.
pub(super) fn part<'de, A: MapAccess<'de>>(mut fields: A, tally: &mut Tally<'_>) -> Result<(), A::Error> {
    let mut part = Part::default();
    while let Some(Name(name)) = fields.next_key()? {
        match &*name {
            "type" => part.kind = short_text(fields.next_value()?),
            "uuid" => part.has_uuid |= fields.next_value::<&RawValue>()?.get() != "null",
            "content" | "output" => fields.next_value_seed(Walk { tally: &mut *tally, place: Place::Content })?,
            "source" => part.sources.extend(fields.next_value_seed(SourceField { tally: &mut *tally })?),
            "data" => part.data = Some(fields.next_value()?),
            "file_data" | "file_url" | "file_id" => part.files.extend(file(&name, fields.next_value()?)),
            name => match MEDIA_FIELDS.iter().find(|(known, _)| *known == name) {
                Some((known, kind)) => match Source::of(fields.next_value()?) {
                    Some(source) => {
                        tally.add(*kind, known, &source);
                        part.is_counted = true;
                    }
                    None => part.remembered = Some((*kind, *known)),
                },
                None => {
                    fields.next_value::<IgnoredAny>()?;
                }
            },
        }
    }
    part.end(tally);
    Ok(())
}

impl Part<'_> {
    fn end(self, tally: &mut Tally<'_>) {
        let kind = self.kind.as_deref();
        let medium = MEDIA_TYPES.iter().find(|(name, _)| Some(*name) == kind);
        if let (None, Some(kind)) = (medium, kind)
            && !TEXT_TYPES.contains(&kind)
        {
            tally.has_no_bound(Unbounded::UnknownType(kind.to_owned()));
        }
        let (name, kind) = medium.copied().unwrap_or(("file", Kind::Document));
        let mut is_counted = self.is_counted;
        for source in &self.files {
            tally.add(kind, name, source);
            is_counted = true;
        }
        for source in &self.sources {
            if let Some(source) = source.medium() {
                tally.add(kind, name, &source);
            }
            is_counted = true;
        }
        if let (Kind::Embeddings, Some(source)) = (kind, self.data.and_then(Source::of)) {
            tally.add(kind, name, &source);
            is_counted = true;
        }
        match (is_counted, medium, self.remembered) {
            (false, Some((name, kind)), _) => tally.add(*kind, name, &Source::Elsewhere),
            (false, None, Some((kind, name))) if self.has_uuid => tally.add(kind, name, &Source::Elsewhere),
            _ => {}
        }
    }
}

/// `file_data` is base 64 or a data URL, `file_url` a URL of any kind, `file_id` says nothing.
fn file<'de>(name: &str, json: &'de RawValue) -> Option<Source<'de>> {
    let source = Source::of(json)?;
    if name == "file_id" { Some(Source::Elsewhere) } else { Some(source) }
}
