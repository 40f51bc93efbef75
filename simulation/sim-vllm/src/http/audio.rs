//! `/v1/audio/transcriptions` and `/v1/audio/translations`.
//!
//! Speech is cut into windows of 30 seconds, each of which is a prompt of its own; its words are made up, about three tokens a second. A stream
//! tells the windows one after the other, and its usage counts a hundred frames a second, as vLLM does for Whisper. An answer that is not
//! streamed tells the seconds of a transcription, and nothing of a translation.

use std::{collections::VecDeque, fmt::Write};

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    Reply,
    call::{Call, Part, Prompt},
    errors::ApiError,
    events::{DONE, Streaming, Writer, push_json},
    fields::Fields,
    sampling::Sampling,
};
use crate::{
    chance::{self, Chance},
    fault::FaultKind,
    script::Wish,
    text::{SPECIAL, decode, encode, prose},
};

/// Seconds of a window.
const WINDOW: f64 = 30.0;
/// What Whisper's decoder begins with: start, language, task, timestamps or none.
const START_TOKENS: usize = 4;
/// Tokens that are spoken in a second.
const TOKENS_A_SECOND: f64 = 3.0;
/// Frames of the spectrogram in a second.
const FRAMES_A_SECOND: f64 = 100.0;

/// What becomes of speech.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Transcribe,
    Translate,
}

impl Task {
    fn prefix(self) -> &'static str {
        match self {
            Self::Transcribe => "transcribe",
            Self::Translate => "translate",
        }
    }

    fn chunk(self) -> &'static str {
        match self {
            Self::Transcribe => "transcription.chunk",
            Self::Translate => "translation.chunk",
        }
    }
}

/// Answers a request with speech.
///
/// # Errors
/// As vLLM refuses it.
pub(super) async fn answer(call: Call, task: Task) -> Result<Reply, ApiError> {
    let fields = call.fields();
    let Some(file) = call.file.clone() else { return Err(no_file(fields)) };
    let format = fields.text("response_format")?.unwrap_or("json").to_owned();
    if !["json", "text", "srt", "verbose_json", "vtt"].contains(&format.as_str()) {
        let wrong = "Input should be 'json', 'text', 'srt', 'verbose_json' or 'vtt'";
        return Err(ApiError::invalid("body.response_format", wrong));
    }
    let mut sampling = Sampling::read(fields, &["max_completion_tokens"], 1)?;
    let (last, running) = (fields.flag("stream_include_usage")?, fields.flag("stream_continuous_usage_stats")?);
    if (last || running) && !sampling.stream {
        return Err(ApiError::bad("Stream options can only be defined when `stream=True`."));
    }
    (sampling.include_usage, sampling.continuous_usage) = (last, last && running);
    call.check_model()?;
    match format.as_str() {
        "srt" | "vtt" => {
            return Err(ApiError::bad("Currently only support response_format: `text`, `json` or `verbose_json`"));
        }
        "verbose_json" if sampling.stream => {
            return Err(ApiError::bad("verbose_json format doesn't support streaming case"));
        }
        _ => {}
    }
    let seconds = wav_seconds(&file).ok_or_else(|| ApiError::bad("Invalid or unsupported audio file."))?;
    let id = call.id(task.prefix());
    let mut parts = call.start(&id, windows(&call, &file, seconds)?, &sampling, None)?;
    if sampling.stream {
        let writer = SpeechWriter::new(&call, &id, task, &sampling, seconds);
        return Ok(Reply::Events(Box::new(Streaming::new(parts, writer, VecDeque::new()))));
    }
    for part in &mut parts {
        part.finished().await?;
    }
    let texts: Vec<&str> = parts.iter().map(|part| part.script.text(0, part.produced).trim()).collect();
    let text = texts.join(" ");
    Ok(Reply::Json(match (format.as_str(), task) {
        ("verbose_json", _) => json!({
            "duration": seconds.to_string(), "language": fields.text("language")?.unwrap_or("en"), "text": text,
            "segments": segments(&texts), "words": null,
        }),
        (_, Task::Transcribe) if call.fault != Some(FaultKind::MissingUsage) => {
            json!({"text": text, "usage": {"type": "duration", "seconds": seconds.ceil() as u64}})
        }
        _ => json!({"text": text}),
    }))
}

fn no_file(fields: Fields<'_>) -> ApiError {
    match fields.get("file") {
        Some(_) => {
            ApiError::status(StatusCode::UNPROCESSABLE_ENTITY, "Expected 'file' to be a file-like object, not 'str'.")
        }
        None => ApiError::invalid("body.file", "Field required"),
    }
}

/// A prompt for each window, and what is heard in it.
fn windows(call: &Call, file: &Bytes, seconds: f64) -> Result<Vec<Prompt>, ApiError> {
    let mut tokens = vec![SPECIAL; START_TOKENS];
    tokens.extend(encode(call.fields().text("prompt")?.unwrap_or_default()));
    let seed = chance::hash(file, call.shared.config.seed);
    let count = (seconds / WINDOW).ceil().max(1.0) as u64;
    let prompts = (0..count).map(|window| {
        let heard = (seconds - window as f64 * WINDOW).min(WINDOW);
        let words = (heard * TOKENS_A_SECOND).ceil().max(1.0) as usize;
        let text = decode(&prose(&mut Chance::new(seed.wrapping_add(window)), words, true));
        Prompt { tokens: tokens.clone(), wish: Wish::Text(text), reasoning: false }
    });
    Ok(prompts.collect())
}

fn segments(texts: &[&str]) -> Value {
    let segment = |(index, text): (usize, &&str)| {
        let start = index as f64 * WINDOW;
        json!({
            "id": index, "avg_logprob": -0.25, "compression_ratio": 1.5, "end": start + WINDOW, "no_speech_prob": null,
            "seek": 0, "start": start, "temperature": 0.0, "text": text, "tokens": [],
        })
    };
    texts.iter().enumerate().map(segment).collect()
}

/// How long a WAV file is, by its format and the bytes behind its head. `None`: it is none, or cut within its head.
fn wav_seconds(file: &[u8]) -> Option<f64> {
    let number = |at: usize, size: usize| {
        let bytes = file.get(at..at + size)?;
        Some(bytes.iter().rev().fold(0, |number: u64, byte| number << 8 | u64::from(*byte)))
    };
    if !file.starts_with(b"RIFF") || file.get(8..12)? != b"WAVE" {
        return None;
    }
    let (mut at, mut rate) = (12, None);
    loop {
        let (kind, size) = (file.get(at..at + 4)?, number(at + 4, 4)? as usize);
        match kind {
            b"fmt " => rate = Some(number(at + 10, 2)? * number(at + 12, 4)? * (number(at + 22, 2)? / 8)),
            b"data" => {
                let samples = size.min(file.len() - at - 8);
                return rate.filter(|rate| *rate > 0).map(|rate| samples as f64 / rate as f64);
            }
            _ => {}
        }
        at = at.checked_add(8)?.checked_add(size.checked_next_multiple_of(2)?)?;
    }
}

/// Writes `transcription.chunk` and `translation.chunk` events.
struct SpeechWriter {
    /// Everything up to the choices.
    head: String,
    include_usage: bool,
    continuous_usage: bool,
    tells: bool,
    /// Of the whole file.
    frames: usize,
    /// The window that is being told, and how many of its tokens have been.
    window: usize,
    told: usize,
    /// Tokens of the windows before.
    before: usize,
}

impl SpeechWriter {
    fn new(call: &Call, id: &str, task: Task, sampling: &Sampling, seconds: f64) -> Self {
        let mut head = String::from("data: {\"id\":");
        push_json(&mut head, id);
        let created = call.shared.unix_seconds();
        let _ = write!(head, ",\"object\":\"{}\",\"created\":{created},\"model\":", task.chunk());
        push_json(&mut head, call.shared.config.model());
        Self {
            head,
            include_usage: sampling.include_usage,
            continuous_usage: sampling.continuous_usage,
            tells: call.fault != Some(FaultKind::MissingUsage),
            frames: (seconds * FRAMES_A_SECOND).ceil() as usize,
            window: 0,
            told: 0,
            before: 0,
        }
    }

    fn usage(&self, part: &Part) -> Value {
        let (prompt, completion) = (part.prompt.len() + self.frames, self.before + self.told);
        json!({"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion})
    }

    fn event(&mut self, part: &Part) -> Bytes {
        let text = part.script.text(self.told, part.produced);
        let is_next = self.window > 0 && self.told == 0 && !text.is_empty();
        self.told = part.produced;
        let mut event = self.head.clone();
        event.push_str(",\"choices\":[{\"delta\":{\"content\":");
        push_json(&mut event, &format!("{}{text}", if is_next { " " } else { "" }));
        event.push('}');
        if let Some(finish) = part.finish() {
            let _ = write!(event, ",\"finish_reason\":\"{}\",\"stop_reason\":null", finish.as_str());
        }
        event.push_str("}]");
        if self.continuous_usage && self.tells {
            let _ = write!(event, ",\"usage\":{}", self.usage(part));
        }
        event.push_str("}\n\n");
        event.into()
    }
}

impl Writer for SpeechWriter {
    fn advance(&mut self, _: usize, parts: &[Part], _: usize, out: &mut VecDeque<Bytes>) {
        while let Some(part) = parts.get(self.window) {
            if part.produced > self.told || part.ending.is_some() {
                let event = self.event(part);
                out.push_back(event);
            }
            if part.ending.is_none() {
                return;
            }
            (self.before, self.told, self.window) = (self.before + part.produced, 0, self.window + 1);
        }
    }

    fn end(&mut self, parts: &[Part], out: &mut VecDeque<Bytes>) {
        if let (true, true, Some(last)) = (self.include_usage, self.tells, parts.last()) {
            let event = format!("{},\"choices\":[],\"usage\":{}}}\n\n", self.head, self.usage(last));
            out.push_back(event.into());
        }
        out.push_back(DONE);
    }
}
