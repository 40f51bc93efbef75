//! Streaming: what the engine produces becomes events, in whatever dialect a writer knows.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use bytes::Bytes;
use serde_json::Value;

use super::{
    body::{EventSource, engine_died_events},
    call::Part,
};
use crate::engine::output::Ending;

/// A dialect of events.
pub(crate) trait Writer: Send {
    /// Tokens `from..to` of part `index` exist; on the last call its `finish()` is known.
    fn advance(&mut self, index: usize, parts: &[Part], from: usize, out: &mut VecDeque<Bytes>);
    /// Everything is over.
    fn end(&mut self, parts: &[Part], out: &mut VecDeque<Bytes>);
}

/// A stream of events about some parts.
pub(crate) struct Streaming<W> {
    parts: Vec<Part>,
    writer: W,
    queue: VecDeque<Bytes>,
    over: bool,
}

impl<W: Writer> Streaming<W> {
    pub(crate) fn new(parts: Vec<Part>, writer: W, first: VecDeque<Bytes>) -> Self {
        Self { parts, writer, queue: first, over: false }
    }
}

impl<W: Writer> EventSource for Streaming<W> {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Poll::Ready(Some(event));
            }
            if self.over {
                return Poll::Ready(None);
            }
            let mut moved = false;
            for index in 0..self.parts.len() {
                if let Poll::Ready(from) = self.parts[index].poll(cx) {
                    moved = true;
                    if self.parts[index].ending == Some(Ending::EngineDied) {
                        self.over = true;
                        self.queue.push_back(engine_died_events());
                        break;
                    }
                    self.writer.advance(index, &self.parts, from, &mut self.queue);
                }
            }
            if !self.over && self.parts.iter().all(|part| part.ending.is_some()) {
                self.over = true;
                self.writer.end(&self.parts, &mut self.queue);
            }
            if !moved && !self.over {
                return Poll::Pending;
            }
        }
    }
}

/// `data: [DONE]`.
pub(crate) const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// An event with a name.
pub(crate) fn named(name: &str, data: &Value) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// Appends a JSON string.
pub(crate) fn push_json(out: &mut String, text: &str) {
    let plain = text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\' && byte != 0x7f);
    if plain {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&Value::from(text).to_string());
    }
}
