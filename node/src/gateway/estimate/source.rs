//! Where the bytes of a medium are: in the body as base 64, or elsewhere, behind a URL or an id.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Where the bytes of a medium are.
pub(super) enum Source<'a> {
    /// In the body.
    Here(Payload<'a>),
    /// Behind a URL or an id, so that nothing is known of it.
    Elsewhere,
}

/// A file in the body.
pub(super) struct Payload<'a> {
    /// The base 64 text, behind the head of a data URL.
    text: Cow<'a, str>,
    /// Where the head ends.
    start: usize,
    /// The media type of a data URL.
    pub(super) media_type: Option<String>,
    /// Bytes of the body that are the file, and no part of the prompt's text.
    pub(super) written: u64,
}

impl Payload<'_> {
    /// The file as base 64.
    pub(super) fn base64(&self) -> &str {
        &self.text[self.start..]
    }
}

/// The object around a medium, in any of the dialects.
#[derive(Deserialize)]
struct Around<'a> {
    #[serde(borrow)]
    url: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    file_data: Option<&'a RawValue>,
}

impl<'a> Source<'a> {
    /// Of a string, or an object that has one. `None`: it is `null`, or nothing at all.
    pub(super) fn of(json: &'a RawValue) -> Option<Source<'a>> {
        match json.get().as_bytes().first() {
            Some(b'"') => Some(Source::of_text(json.get())),
            Some(b'{') => {
                // With a field that is there twice it is unclear which of the two counts.
                let around = serde_json::from_str::<Around<'a>>(json.get()).ok();
                let found = around.and_then(|around| around.file_data.or(around.data).or(around.url));
                Some(found.and_then(Source::of).unwrap_or(Source::Elsewhere))
            }
            Some(b'n') | None => None,
            Some(_) => Some(Source::Elsewhere),
        }
    }

    /// Of a string as it is written, with its quotation marks.
    fn of_text(json: &'a str) -> Source<'a> {
        let inside = json.get(1..json.len().saturating_sub(1)).unwrap_or_default();
        let text = if memchr::memchr(b'\\', inside.as_bytes()).is_none() {
            Cow::Borrowed(inside)
        } else {
            serde_json::from_str::<String>(json).map_or(Cow::Borrowed(inside), Cow::Owned)
        };
        let (start, media_type) = match text.split_once(',') {
            Some((head, _)) if is_scheme(head, "data:") => {
                let media_type = head["data:".len()..].split(';').next().unwrap_or_default().trim();
                (head.len() + 1, Some(media_type.to_ascii_lowercase()))
            }
            _ if is_reference(&text) => return Source::Elsewhere,
            _ => (0, None),
        };
        Source::Here(Payload { text, start, media_type, written: inside.len() as u64 })
    }
}

/// A longer type is not repeated in an error.
const TYPE_MAX: usize = 64;

/// The content of a short string, as a type is one.
pub(super) fn short_text(json: &RawValue) -> Option<String> {
    let text = serde_json::from_str::<String>(json.get()).ok()?;
    Some(text.chars().take(TYPE_MAX).collect())
}

fn is_scheme(text: &str, scheme: &str) -> bool {
    text.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme))
}

/// Whether a text is a URL, which base 64 never is: it has no colon.
fn is_reference(text: &str) -> bool {
    text.as_bytes().iter().take(32).any(|byte| *byte == b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_told_from_references() {
        let here = |file: &str, media_type: &str, written: u64| {
            Some(Some((file.to_owned(), Some(media_type.to_owned()).filter(|name| !name.is_empty()), written)))
        };
        let elsewhere = Some(None);
        let table = [
            (r#""data:image/png;base64,AAAA""#, here("AAAA", "image/png", 26)),
            (r#""DATA:Audio/WAV;codecs=1;base64,AAAA""#, here("AAAA", "audio/wav", 35)),
            (r#"{"url":"data:audio/wav;base64,A\/\/A"}"#, here("A//A", "audio/wav", 28)),
            (r#"{"data":"AAAA","format":"wav"}"#, here("AAAA", "", 4)),
            (r#"{"\u0064ata":"AAAA"}"#, here("AAAA", "", 4)),
            (r#"{"file_data":"AAAA","filename":"a.pdf"}"#, here("AAAA", "", 4)),
            (r#""http://a/b.wav""#, elsewhere.clone()),
            (r#"{"url":"https://a/b.wav"}"#, elsewhere.clone()),
            (r#""file:///b.wav""#, elsewhere.clone()),
            (r#"{"file_id":"file-1"}"#, elsewhere.clone()),
            (r#"{"url":null}"#, elsewhere.clone()),
            (r#"{"url":"data:image/png;base64,AAAA","url":"http://a/b.wav"}"#, elsewhere.clone()),
            ("7", elsewhere),
            ("null", None),
        ];
        for (json, expected) in table {
            let raw: &RawValue = serde_json::from_str(json).unwrap();
            let found = Source::of(raw).map(|source| match source {
                Source::Here(payload) => {
                    Some((payload.base64().to_owned(), payload.media_type.clone(), payload.written))
                }
                Source::Elsewhere => None,
            });
            assert_eq!(found, expected, "{json}");
        }
    }
}
