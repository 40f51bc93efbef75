//! A call as a form: its texts are read as the fields of a JSON object are, with the same rules, and its files stay beside them. What a replica
//! gets is written anew, so it cannot read another form than was read here; of a file that it gets, only the bytes are the client's.

use std::fmt::{self, Write};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use raft::resources::ENGINE_FIELDS;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;

use super::parts::{Parts, Value};
use super::{CallBody, fields};
use crate::gateway::call_id::CallId;
use crate::gateway::endpoint::Endpoint;
use crate::gateway::estimate::Speech;
use crate::gateway::refusal::Refusal;

/// The part with what is spoken.
const FILE: &str = "file";

/// What a form has beside its texts.
#[derive(Debug)]
pub(super) struct Form {
    /// Nobody outside knows it in advance, so no file has it.
    boundary: String,
    files: Vec<File>,
}

#[derive(Debug)]
struct File {
    /// The part's.
    name: String,
    /// Ours, with the extension that the client gave.
    file_name: String,
    media_type: &'static str,
    bytes: Bytes,
}

/// Reads a form. Errors: it is none, a part is not what it must be, or the file is missing.
pub(super) async fn read(
    bytes: Bytes,
    headers: &HeaderMap,
    endpoint: &Endpoint,
    id: &CallId,
) -> Result<CallBody, Refusal> {
    let mut parts = Parts::of(bytes, headers)?;
    let (mut texts, mut files, mut speech) = (String::from("{"), Vec::new(), None);
    while let Some(part) = parts.next().await? {
        let name = part.name;
        match part.value {
            Value::Text(_) if name == FILE => {
                return Err(Refusal::field(FILE, "`file` must be a file: give its part a filename"));
            }
            // Some servers read `a[b]` as a member of `a`.
            Value::Text(_) if steers_by_member(&name) => {}
            Value::Text(text) => {
                let comma = if texts.len() > 1 { "," } else { "" };
                let _ = write!(texts, "{comma}{}:{}", Json::from(name), Json::from(text));
            }
            Value::File(_) if name != FILE && fields::is_known(&name, endpoint) => {
                return Err(Refusal::body(format!("the form's part `{name}` must be a text: it has a filename")));
            }
            Value::File(_) if steers_by_member(&name) => {}
            Value::File(file) => {
                if name == FILE && speech.replace(Speech::of(&file.bytes)).is_some() {
                    return Err(Refusal::field(FILE, "`file` is there twice: send it once"));
                }
                let (file_name, media_type) = (plain_name(&file.name), media_type(&file.media_type));
                files.push(File { name, file_name, media_type, bytes: file.bytes.into() });
            }
        }
    }
    drop(parts);
    let Some(speech) = speech else { return Err(Refusal::field(FILE, "`file` is missing: send what is spoken")) };
    texts.push('}');
    let mut body = CallBody::scan_in_steps(texts.into(), endpoint).await?;
    // Each window of the file is answered by itself.
    body.choices = body.choices.saturating_mul(speech.windows());
    body.speech = Some(speech);
    body.form = Some(Form { boundary: format!("tollgate-{}", id.own_text()), files });
    Ok(body)
}

fn steers_by_member(name: &str) -> bool {
    name.split_once(['[', '.']).is_some_and(|(object, _)| ENGINE_FIELDS.contains(&object))
}

/// A file name without anything in it but an extension, which tells some servers the format.
fn plain_name(name: &str) -> String {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let is_plain = |extension: &String| {
        (1..=8).contains(&extension.len()) && extension.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    extension.filter(is_plain).map_or_else(|| "file".to_owned(), |extension| format!("file.{extension}"))
}

fn media_type(written: &str) -> &'static str {
    const KNOWN: [&str; 20] = [
        "audio/aac",
        "audio/flac",
        "audio/m4a",
        "audio/mp3",
        "audio/mp4",
        "audio/mpeg",
        "audio/mpga",
        "audio/ogg",
        "audio/opus",
        "audio/vnd.wave",
        "audio/wav",
        "audio/wave",
        "audio/webm",
        "audio/x-flac",
        "audio/x-m4a",
        "audio/x-wav",
        "video/mp4",
        "video/mpeg",
        "video/ogg",
        "video/webm",
    ];
    let essence = written.split(';').next().unwrap_or_default().trim();
    let known = KNOWN.into_iter().find(|known| essence.eq_ignore_ascii_case(known));
    known.unwrap_or("application/octet-stream")
}

impl Form {
    /// The form for a replica, with the texts of this JSON object.
    pub(super) fn write(&self, texts: &[u8]) -> Bytes {
        let Texts(texts) = serde_json::from_slice(texts).expect("an object that was scanned is JSON");
        let files: usize = self.files.iter().map(|file| file.bytes.len() + 512).sum();
        let written: usize = texts.iter().map(|(name, text)| name.len() + text.len() + 256).sum();
        let mut form = Vec::with_capacity(files + written + 256);
        let mut part = |head: &str, bytes: &[u8]| {
            form.extend_from_slice(
                format!("--{}\r\nContent-Disposition: form-data; {head}\r\n\r\n", self.boundary).as_bytes(),
            );
            form.extend_from_slice(bytes);
            form.extend_from_slice(b"\r\n");
        };
        for (name, text) in &texts {
            part(&format!("name=\"{name}\""), text.as_bytes());
        }
        for File { name, file_name, media_type, bytes } in &self.files {
            part(&format!("name=\"{name}\"; filename=\"{file_name}\"\r\nContent-Type: {media_type}"), bytes);
        }
        form.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        form.into()
    }

    pub(super) fn content_type(&self) -> HeaderValue {
        let written = HeaderValue::try_from(format!("multipart/form-data; boundary={}", self.boundary));
        written.expect("letters, digits and a hyphen are a header value")
    }

    /// Forgets the files, after they were written.
    pub(super) fn forget(&mut self) {
        self.files = Vec::new();
    }
}

/// The members of an object as texts, in their order, several of one name too.
struct Texts(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Texts, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some((name, value)) = members.next_entry::<String, Json>()? {
            let text = if let Json::String(text) = value { text } else { value.to_string() };
            texts.push((name, text));
        }
        Ok(Texts(texts))
    }
}

#[cfg(test)]
mod tests;
