//! A stream of events, one flush each, as an engine that makes one token at a time.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::{Instant, Interval, interval_at};

use super::chat::PROMPT_TOKENS;
use super::replica::Running;

/// The three different pieces of a stream.
pub(super) struct Pieces {
    first: Bytes,
    middle: Bytes,
    /// The finish reason, the usage if it was asked for, `[DONE]`.
    last: Bytes,
}

impl Pieces {
    pub(super) fn new(id: &str, model: &str, chunks: u32, wants_usage: bool) -> Pieces {
        let head = format!(
            r#"data: {{"id":"{id}","object":"chat.completion.chunk","created":1700000000,"model":{},"choices":["#,
            Value::from(model),
        );
        let choice = |delta: &str, reason: &str| {
            format!("{head}{{\"index\":0,\"delta\":{{{delta}}},\"finish_reason\":{reason}}}]}}\n\n")
        };
        let mut last = choice("", r#""stop""#);
        if wants_usage {
            let total = PROMPT_TOKENS + chunks;
            last.push_str(&format!(
                "{head}],\"usage\":{{\"prompt_tokens\":{PROMPT_TOKENS},\"completion_tokens\":{chunks},\"total_tokens\":{total}}}}}\n\n"
            ));
        }
        last.push_str("data: [DONE]\n\n");
        Pieces {
            first: choice(r#""role":"assistant","content":"So""#, "null").into(),
            middle: choice(r#""content":" on""#, "null").into(),
            last: last.into(),
        }
    }
}

/// A stream on its way. Dropped early, it counts as aborted.
pub(super) struct Events {
    running: Running,
    pieces: Pieces,
    chunks: u32,
    sent: u32,
    turn: Turn,
}

/// When the next piece may go.
enum Turn {
    /// When the one before has been flushed: hyper flushes when the body has nothing for it.
    Flushed(bool),
    /// When its time has come.
    Every(Interval),
}

impl Events {
    pub(super) fn new(running: Running, pieces: Pieces, chunks: u32, gap: Duration) -> Events {
        let turn = match gap.is_zero() {
            true => Turn::Flushed(false),
            false => Turn::Every(interval_at(Instant::now() + gap, gap)),
        };
        Events { running, pieces, chunks, sent: 0, turn }
    }

    /// The next piece; `None` after the last. The last one goes together with the last event that has text.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.sent > self.chunks {
            self.running.finish();
            return Poll::Ready(None);
        }
        if (1..self.chunks).contains(&self.sent) {
            ready!(self.turn.poll(cx));
        }
        let piece = match self.sent {
            sent if sent == self.chunks => &self.pieces.last,
            0 => &self.pieces.first,
            _ => &self.pieces.middle,
        };
        self.sent += 1;
        Poll::Ready(Some(piece.clone()))
    }
}

impl Turn {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Turn::Every(interval) => interval.poll_tick(cx).map(|_| ()),
            Turn::Flushed(flushed) => {
                *flushed = !*flushed;
                if !*flushed {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}
