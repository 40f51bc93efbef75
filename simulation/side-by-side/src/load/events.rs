//! Events of a stream, counted and timed as they come.

use tokio::time::Instant;

/// As much of a line as is needed to know it.
const LINE_BYTES_MAX: usize = 16;

/// What has come of a stream.
#[derive(Default)]
pub(super) struct Events {
    /// Events with data, `[DONE]` not among them.
    pub(super) count: u32,
    /// When the first was complete.
    pub(super) first: Option<Instant>,
    /// Microseconds from one to the next. Those read together have 0.
    pub(super) gaps_us: Vec<u32>,
    /// Whether `[DONE]` has come.
    pub(super) is_done: bool,
    line: Vec<u8>,
    last: Option<Instant>,
}

impl Events {
    /// Takes the next bytes of the body, which were read at `now`.
    pub(super) fn feed(&mut self, mut bytes: &[u8], now: Instant) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.keep(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.end_line(now);
        }
        self.keep(bytes);
    }

    fn keep(&mut self, part: &[u8]) {
        let room = LINE_BYTES_MAX - self.line.len();
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn end_line(&mut self, now: Instant) {
        match self.line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) {
            None => {}
            Some(b"[DONE]") => self.is_done = true,
            Some(_) => {
                self.count += 1;
                self.first.get_or_insert(now);
                if let Some(last) = self.last.replace(now) {
                    self.gaps_us.push(super::tally::microseconds(now - last));
                }
            }
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_however_they_are_cut() {
        let stream = b": hello\n\ndata: {\"a\":\"data: no\"}\n\nevent: x\ndata:{}\r\n\r\ndata: [DONE]\n\n";
        for piece in [1, 2, 7, 1000] {
            let mut events = Events::default();
            for bytes in stream.chunks(piece) {
                events.feed(bytes, Instant::now());
            }
            assert_eq!((events.count, events.gaps_us.len(), events.is_done), (2, 1, true), "by {piece}");
        }
    }
}
