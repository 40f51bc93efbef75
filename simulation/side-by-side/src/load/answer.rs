//! One answer, read from a connection to its last byte and checked.

use httparse::Status;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::events::Events;
use super::failure::Failure;
use super::framing::{Chunked, Framing};

/// Headers of an answer; more are malformed.
const HEADERS_MAX: usize = 64;

/// A complete answer.
pub(super) struct Answer {
    status: u16,
    content: Content,
    /// Whether the connection cannot be used again.
    pub(super) closes: bool,
    /// When its last byte was read.
    pub(super) end: Instant,
}

/// What an answer holds.
pub(super) enum Content {
    Whole(Vec<u8>),
    Events(Events),
}

impl Answer {
    /// Reads an answer; `buffer` is scratch space. One to a call for a stream is read as events if its status is 200.
    pub(super) async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>, is_stream: bool) -> Result<Answer, Failure> {
        buffer.clear();
        let mut head = loop {
            if fill(stream, buffer).await? == 0 {
                return Err(if buffer.is_empty() { Failure::Closed } else { Failure::ClosedInHead });
            }
            if let Some(head) = Head::parse(buffer)? {
                break head;
            }
        };
        let mut content = match is_stream && head.status == 200 {
            true => Content::Events(Events::default()),
            false => Content::Whole(Vec::new()),
        };
        let mut start = head.length;
        let end = loop {
            let now = Instant::now();
            if head.framing.feed(&buffer[start..], |bytes| content.feed(bytes, now))? {
                break now;
            }
            (start, _) = (0, buffer.clear());
            if fill(stream, buffer).await? == 0 {
                match head.framing {
                    Framing::ToClose => break now,
                    Framing::Length(_) | Framing::Chunked(_) => return Err(Failure::ClosedInBody),
                }
            }
        };
        Ok(Answer { status: head.status, content, closes: head.closes, end })
    }

    /// What it holds, if it is what was asked for: `events_min` events and `[DONE]`, or a body with usage.
    pub(super) fn check(self, events_min: Option<u32>) -> Result<Content, (Failure, Content)> {
        let failure = match (&self.content, events_min) {
            _ if self.status != 200 => Failure::Status(self.status),
            (Content::Events(events), _) if !events.is_done => Failure::NotDone,
            (Content::Events(events), Some(least)) if events.count < least => Failure::Short(events.count),
            (Content::Whole(body), _) if memchr::memmem::find(body, b"\"usage\"").is_none() => Failure::NoUsage,
            (Content::Whole(_) | Content::Events(_), _) => return Ok(self.content),
        };
        Err((failure, self.content))
    }
}

impl Content {
    fn feed(&mut self, bytes: &[u8], now: Instant) {
        match self {
            Content::Whole(body) => body.extend_from_slice(bytes),
            Content::Events(events) => events.feed(bytes, now),
        }
    }
}

struct Head {
    status: u16,
    framing: Framing,
    closes: bool,
    /// Its bytes.
    length: usize,
}

impl Head {
    /// The head at the start of `bytes`; `None` if it is not complete.
    fn parse(bytes: &[u8]) -> Result<Option<Head>, Failure> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let Status::Complete(length) = response.parse(bytes).map_err(|_| Failure::Head)? else { return Ok(None) };
        let status = response.code.ok_or(Failure::Head)?;
        let mut closes = response.version == Some(0);
        let mut framing = Framing::ToClose;
        for header in response.headers.iter() {
            let value = std::str::from_utf8(header.value).map_err(|_| Failure::Head)?.trim();
            if header.name.eq_ignore_ascii_case("content-length") {
                framing = Framing::Length(value.parse().map_err(|_| Failure::Head)?);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                framing = Framing::Chunked(Chunked::default());
            } else if header.name.eq_ignore_ascii_case("connection") {
                closes |= value.eq_ignore_ascii_case("close");
            }
        }
        closes |= matches!(framing, Framing::ToClose);
        Ok(Some(Head { status, framing, closes, length }))
    }
}

async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<usize, Failure> {
    stream.read_buf(buffer).await.map_err(|error| Failure::Read(error.kind()))
}
