//! The frames of an HTTP/2 connection (RFC 9113, 4.1) and what they may cost.
//!
//! A frame that brings no part of a request costs a client next to nothing and us an answer, or work. The HTTP library bounds some of
//! them (streams that are reset before they are accepted, header blocks, CONTINUATION) and serves the others, such as PING and
//! SETTINGS, for ever. So each connection has a budget: a burst, so many a second, and ten for each HEADERS or DATA frame that it is
//! sent, since a client may well answer each with window updates, a ping, or a reset.

use tokio::time::Instant;

use super::limits::Limits;

/// How an HTTP/2 client begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const GO_AWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ENHANCE_YOUR_CALM: u32 = 0xb;
/// A DATA frame of so many bytes brings a part of a request.
const DATA_MIN: usize = 64;
/// Frames that one of ours allows.
const EACH_SENT: u64 = 10;
/// Frames that ours may have allowed in advance.
const ALLOWED_MAX: u64 = 100_000;
const SAID: &[u8] = b"too many frames that carry nothing";

/// What a connection's frames have cost.
pub(super) struct Frames {
    /// Bytes of the preface that have been seen; `None` once it is known to be no HTTP/2.
    preface: Option<usize>,
    received: Parser,
    sent: Parser,
    last_stream: u32,
    left: u64,
    burst: u64,
    per_second: u64,
    filled: Instant,
}

impl Frames {
    pub(super) fn new(limits: &Limits) -> Frames {
        Frames {
            preface: Some(0),
            received: Parser::default(),
            sent: Parser::default(),
            last_stream: 0,
            left: limits.frames_burst,
            burst: limits.frames_burst,
            per_second: limits.frames_per_second,
            filled: Instant::now(),
        }
    }

    fn is_http2(&self) -> bool {
        self.preface == Some(PREFACE.len())
    }

    /// Counts what came. `false` once the budget is spent.
    pub(super) fn received(&mut self, mut bytes: &[u8]) -> bool {
        if let Some(seen) = self.preface.filter(|seen| *seen < PREFACE.len()) {
            let (expected, taken) = (&PREFACE[seen..], bytes.len().min(PREFACE.len() - seen));
            let is_preface = expected.starts_with(&bytes[..taken]);
            self.preface = is_preface.then_some(seen + taken);
            bytes = &bytes[taken..];
        }
        if !self.is_http2() {
            return true;
        }
        let (mut cost, mut last_stream) = (0, self.last_stream);
        self.received.feed(bytes, |frame| {
            let carries = frame.kind == DATA && (frame.length >= DATA_MIN || frame.flags & END_STREAM != 0);
            cost += u64::from(!carries);
            if frame.kind == HEADERS {
                last_stream = last_stream.max(frame.stream);
            }
        });
        self.last_stream = last_stream;
        if cost > self.left {
            self.fill();
        }
        let fits = cost <= self.left;
        self.left = self.left.saturating_sub(cost);
        fits
    }

    fn fill(&mut self) {
        let now = Instant::now();
        let passed = u64::try_from((now - self.filled).as_millis()).unwrap_or(u64::MAX);
        let earned = passed.saturating_mul(self.per_second) / 1000;
        if earned > 0 {
            self.left = self.left.max(self.left.saturating_add(earned).min(self.burst));
            self.filled = now;
        }
    }

    /// Counts what was sent.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        if !self.is_http2() {
            return;
        }
        let mut answers = 0;
        self.sent.feed(bytes, |frame| answers += u64::from(matches!(frame.kind, DATA | HEADERS)));
        self.left = self.left.max(self.left.saturating_add(answers * EACH_SENT).min(ALLOWED_MAX));
    }

    /// A GOAWAY frame that says what was wrong; `None` while another frame is half sent.
    pub(super) fn go_away(&self) -> Option<Vec<u8>> {
        if !self.sent.is_between_frames() {
            return None;
        }
        let length = u8::try_from(8 + SAID.len()).ok()?;
        let mut frame = vec![0, 0, length, GO_AWAY, 0, 0, 0, 0, 0];
        frame.extend_from_slice(&self.last_stream.to_be_bytes());
        frame.extend_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
        frame.extend_from_slice(SAID);
        Some(frame)
    }
}

/// The head of a frame.
struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Frame {
    const HEAD: usize = 9;

    fn of(head: [u8; Frame::HEAD]) -> Frame {
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Frame { length, kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1) }
    }
}

/// Finds the heads of frames in bytes that come in pieces.
#[derive(Default)]
struct Parser {
    head: [u8; Frame::HEAD],
    have: usize,
    /// Bytes of the payload that are still to come.
    payload: usize,
}

impl Parser {
    fn is_between_frames(&self) -> bool {
        self.have == 0 && self.payload == 0
    }

    fn feed(&mut self, mut bytes: &[u8], mut found: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let skipped = self.payload.min(bytes.len());
            self.payload -= skipped;
            bytes = &bytes[skipped..];
            let taken = (Frame::HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == Frame::HEAD {
                let frame = Frame::of(self.head);
                (self.have, self.payload) = (0, frame.length);
                found(frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits() -> Limits {
        Limits { frames_burst: 5, frames_per_second: 10, ..Limits::default() }
    }

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![0, 0, u8::try_from(length).unwrap(), kind, flags, 0, 0, 0, 1];
        frame.resize(Frame::HEAD + length, 7);
        frame
    }

    fn http2() -> Frames {
        let mut frames = Frames::new(&limits());
        assert!(frames.received(&PREFACE[..10]) && frames.received(&PREFACE[10..]));
        frames
    }

    /// How many of a hundred such frames are taken.
    fn taken(frames: &mut Frames, frame: &[u8]) -> usize {
        (0..100).take_while(|_| frames.received(frame)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_carry_nothing_have_a_budget() {
        let table = [
            ("PING", frame(6, 0, 8), 5),
            ("SETTINGS", frame(4, 0, 0), 5),
            ("PRIORITY", frame(2, 0, 5), 5),
            ("RST_STREAM", frame(3, 0, 4), 5),
            ("WINDOW_UPDATE", frame(8, 0, 4), 5),
            ("CONTINUATION", frame(9, 0, 1), 5),
            ("HEADERS", frame(HEADERS, 5, 1), 5),
            ("empty DATA", frame(DATA, 0, 0), 5),
            ("small DATA", frame(DATA, 0, 63), 5),
            ("DATA", frame(DATA, 0, 64), 100),
            ("the end of a request", frame(DATA, END_STREAM, 0), 100),
            ("a kind to come", frame(99, 0, 3), 5),
        ];
        for (name, frame, expected) in table {
            assert_eq!(taken(&mut http2(), &frame), expected, "{name}");
            let mut in_pieces = http2();
            let piece_by_piece = (0..100).take_while(|_| frame.iter().all(|byte| in_pieces.received(&[*byte])));
            assert_eq!(piece_by_piece.count(), expected, "{name}, byte by byte");
        }
        let mut http1 = Frames::new(&limits());
        assert!(http1.received(b"PRI") && http1.received(b"NT / HTTP/1.1\r\n\r\n"));
        assert_eq!(taken(&mut http1, &frame(6, 0, 8)), 100, "what is no HTTP/2 has no frames");
    }

    #[tokio::test(start_paused = true)]
    async fn time_and_answers_allow_more() {
        let ping = frame(6, 0, 8);
        let mut frames = http2();
        assert_eq!(taken(&mut frames, &ping), 5);
        tokio::time::advance(Duration::from_millis(300)).await;
        assert_eq!(taken(&mut frames, &ping), 3);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(taken(&mut frames, &ping), 5, "never more than the burst");
        frames.sent(&frame(6, 1, 8));
        assert_eq!(taken(&mut frames, &ping), 0, "an answer to a ping is no answer to a request");
        frames.sent(&frame(HEADERS, 4, 20));
        frames.sent(&frame(DATA, 0, 200));
        assert_eq!(taken(&mut frames, &ping), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_answered_unless_a_frame_is_half_sent() {
        let mut frames = http2();
        frames.received(&frame(HEADERS, 5, 1));
        let said = frames.go_away().unwrap();
        assert_eq!(said[..17], [0, 0, 42, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0xb]);
        assert_eq!(said.len(), 9 + 42);
        frames.sent(&frame(DATA, 0, 200)[..100]);
        assert_eq!(frames.go_away(), None);
    }
}
