//! Cuts a byte stream into server-sent events without changing it.
//!
//! Whole events go on as the very bytes that came, in as few pieces as they came in. The beginning of an event whose end has
//! not arrived is held back until it has, so that an event can be judged before any of it is passed on, and so that a stream
//! that breaks off never leaves half an event behind. However the bytes are split, the same events are seen and the same
//! bytes come out.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

use super::held::Held;

/// An event larger than this is no event. The last event of a Responses stream repeats the whole answer.
const EVENT_MAX: usize = 8 * 1024 * 1024;

/// One event: its `event:` field and its `data:` lines joined by line feeds.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Event<'a> {
    pub(super) name: &'a [u8],
    pub(super) data: Cow<'a, [u8]>,
}

/// What becomes of an event.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum EventAction {
    /// Its bytes go on.
    Pass,
    /// Its bytes are left out.
    Remove,
    /// Its bytes go on without these bytes of its data, and with another field at the end of its object.
    Edit(Edit),
    /// It and what follows it waits for a field that is to be added to it, and goes on without these bytes of its data.
    Hold(Option<Range<usize>>),
    /// Its bytes are left out, and what waits goes on, with this field or as it is.
    Release(Option<Bytes>),
}

/// What is changed in an event's data.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct Edit {
    /// Bytes that are left out.
    pub(super) cut: Option<Range<usize>>,
    /// A field that is added at the end of the object, with its comma.
    pub(super) added: Option<Bytes>,
}

/// An event was larger than [`EVENT_MAX`].
#[derive(PartialEq, Eq, Debug)]
pub(super) struct TooLarge;

/// The state between two pieces.
#[derive(Default)]
pub(super) struct Scanner {
    /// The beginning of an event whose end has not arrived.
    held: BytesMut,
    /// Where the last line in `held` begins: what is before it needs no second look.
    line: usize,
    /// The last event ended with a carriage return; a line feed that follows is part of its end and goes on if it did.
    after_return: Option<bool>,
    /// Events that are not let go on yet.
    waiting: Held,
}

impl Scanner {
    /// Takes the next piece of the stream, asks `judge` about each event that is now complete, and appends the bytes that go on to `out`.
    pub(super) fn feed(
        &mut self,
        mut piece: Bytes,
        judge: &mut impl FnMut(&Event<'_>) -> EventAction,
        out: &mut VecDeque<Bytes>,
    ) -> Result<(), TooLarge> {
        if piece.is_empty() {
            return Ok(());
        }
        if let Some(goes_on) = self.after_return.take()
            && piece[0] == b'\n'
        {
            let line_feed = piece.split_to(1);
            if goes_on {
                self.pass(line_feed, out);
            }
        }
        if self.held.is_empty() {
            self.cut(piece, judge, out);
        } else {
            self.held.extend_from_slice(&piece);
            while let Some(end) = event_end(&self.held, &mut self.line) {
                let event = self.held.split_to(end.at).freeze();
                self.line = 0;
                self.judge_one(&event, &end, self.held.is_empty(), judge, out);
            }
        }
        if self.held.len() > EVENT_MAX { Err(TooLarge) } else { Ok(()) }
    }

    /// The usual case: nothing is held, so events are slices of the piece, and neighbours that go on stay together.
    fn cut(&mut self, piece: Bytes, judge: &mut impl FnMut(&Event<'_>) -> EventAction, out: &mut VecDeque<Bytes>) {
        let (mut passed, mut start, mut line) = (0, 0, 0);
        while let Some(end) = event_end(&piece[start..], &mut line) {
            let next = start + end.at;
            let action = ask(&piece[start..next], judge);
            if end.with_return && next == piece.len() {
                self.after_return = Some(action.goes_on());
            }
            if action != EventAction::Pass {
                self.pass(piece.slice(passed..start), out);
                self.act(&action, &piece.slice(start..next), out);
                passed = next;
            }
            (start, line) = (next, 0);
        }
        self.pass(piece.slice(passed..start), out);
        self.held.extend_from_slice(&piece[start..]);
        self.line = line;
    }

    fn judge_one(
        &mut self,
        event: &Bytes,
        end: &End,
        is_last: bool,
        judge: &mut impl FnMut(&Event<'_>) -> EventAction,
        out: &mut VecDeque<Bytes>,
    ) {
        let action = ask(event, judge);
        if end.with_return && is_last {
            self.after_return = Some(action.goes_on());
        }
        self.act(&action, event, out);
    }

    /// Does with an event what was decided.
    fn act(&mut self, action: &EventAction, event: &Bytes, out: &mut VecDeque<Bytes>) {
        match action {
            EventAction::Pass => self.pass(event.clone(), out),
            EventAction::Remove => {}
            EventAction::Edit(Edit { cut, added }) => {
                let cut = cut.clone().unwrap_or(0..0);
                let end = if added.is_some() { object_end(event) } else { event.len() };
                self.pass(event.slice(..cut.start), out);
                self.pass(event.slice(cut.end..end), out);
                self.pass(added.clone().unwrap_or_default(), out);
                self.pass(event.slice(end..), out);
            }
            EventAction::Hold(cut) => {
                let cut = cut.clone().unwrap_or(0..0);
                let left = Bytes::from([&event[..cut.start], &event[cut.end..]].concat());
                self.waiting.open(&left, object_end(&left));
            }
            EventAction::Release(field) => self.waiting.release(field.as_ref(), out),
        }
    }

    /// Lets bytes go on, behind those that wait.
    fn pass(&mut self, bytes: Bytes, out: &mut VecDeque<Bytes>) {
        if bytes.is_empty() {
            return;
        }
        if self.waiting.is_empty() {
            out.push_back(bytes);
            return;
        }
        self.waiting.follow(bytes);
        if self.waiting.is_full() {
            self.waiting.release(None, out);
        }
    }

    /// Lets whole events go on that still wait, as they are.
    pub(super) fn give_up(&mut self, out: &mut VecDeque<Bytes>) {
        self.waiting.release(None, out);
    }

    /// The stream has ended. What is held counts as an event if its lines are complete enough to be one.
    pub(super) fn finish(&mut self, judge: &mut impl FnMut(&Event<'_>) -> EventAction, out: &mut VecDeque<Bytes>) {
        let rest = self.held.split().freeze();
        if !rest.is_empty() {
            let action = ask(&rest, judge);
            self.act(&action, &rest, out);
        }
        self.give_up(out);
    }
}

impl EventAction {
    /// Whether the end of the event is among what goes on, now or later.
    fn goes_on(&self) -> bool {
        !matches!(self, EventAction::Remove | EventAction::Release(_))
    }
}

/// Where the object of an event ends: before its last brace.
fn object_end(event: &[u8]) -> usize {
    memchr::memrchr(b'}', event).unwrap_or(event.len())
}

/// Where an event ends.
struct End {
    /// After its blank line.
    at: usize,
    /// The blank line's end is a carriage return, and nothing is known of what follows it.
    with_return: bool,
}

/// The end of the event at the start of `bytes`, if it is there. `line` is where to go on looking: the start of a line.
fn event_end(bytes: &[u8], line: &mut usize) -> Option<End> {
    while let Some(offset) = memchr2(b'\n', b'\r', &bytes[*line..]) {
        let at = *line + offset;
        let is_blank = offset == 0;
        let is_return = bytes[at] == b'\r';
        let next = match bytes.get(at + 1) {
            Some(b'\n') if is_return => at + 2,
            // Whether a line feed follows is not known yet: for a line in the middle that is waited for.
            None if is_return && !is_blank => return None,
            _ => at + 1,
        };
        if is_blank {
            return Some(End { at: next, with_return: is_return && next == at + 1 && next == bytes.len() });
        }
        *line = next;
    }
    None
}

/// Asks `judge` about an event's bytes; what it cuts is told as a part of these. What has no data (a comment, a lone blank line) passes
/// unasked.
fn ask(bytes: &[u8], judge: &mut impl FnMut(&Event<'_>) -> EventAction) -> EventAction {
    let Some(event) = parse(bytes) else { return EventAction::Pass };
    let mut action = judge(&event);
    if let EventAction::Edit(Edit { cut, .. }) | EventAction::Hold(cut) = &mut action {
        match &event.data {
            Cow::Borrowed(data) => {
                let offset = data.as_ptr() as usize - bytes.as_ptr() as usize;
                *cut = cut.take().map(|part| offset + part.start..offset + part.end);
            }
            // Nobody writes a chunk in several lines, and nothing is lost if somebody does: the caller sees more than it asked for.
            Cow::Owned(_) => return EventAction::Pass,
        }
    }
    action
}

fn parse(bytes: &[u8]) -> Option<Event<'_>> {
    let mut rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let (mut name, mut data): (&[u8], Option<Cow<'_, [u8]>>) = (b"", None);
    while !rest.is_empty() {
        let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        let skipped = if rest[end..].starts_with(b"\r\n") { 2 } else { usize::from(end < rest.len()) };
        rest = &rest[end + skipped..];
        if let Some(value) = field(line, b"data") {
            data = Some(match data {
                None => Cow::Borrowed(value),
                Some(before) => Cow::Owned([&before, value].join(&b'\n')),
            });
        } else if let Some(value) = field(line, b"event") {
            name = value;
        }
    }
    data.map(|data| Event { name, data })
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(name)?;
    match rest {
        [] => Some(rest),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream with everything that may be in one: comments, names, several data lines, characters of two to four bytes, a field
    /// without a colon, a blank line too many, an event that is removed in the middle and one at the end.
    const STREAM: &str = "\u{feff}data: {\"a\":\"é€😀\"}\n\n: keep-alive\n\nevent: x\ndata: one\ndata: two\nid: 7\n\n\
        data: remove me\n\n\ndata\n\ndata:no space\n\nevent: y\ndata: remove me\n\ndata: [DONE]\n\n";

    fn run(pieces: &[&[u8]]) -> (Vec<u8>, Vec<String>) {
        let (mut scanner, mut out, mut seen) = (Scanner::default(), VecDeque::new(), Vec::new());
        let mut judge = |event: &Event<'_>| {
            let data = String::from_utf8(event.data.to_vec()).expect("events are whole, so characters are");
            let action = if data == "remove me" { EventAction::Remove } else { EventAction::Pass };
            seen.push(format!("{}|{data}", String::from_utf8_lossy(event.name)));
            action
        };
        for piece in pieces {
            assert_eq!(scanner.feed(Bytes::copy_from_slice(piece), &mut judge, &mut out), Ok(()));
        }
        scanner.finish(&mut judge, &mut out);
        (out.iter().flatten().copied().collect(), seen)
    }

    #[test]
    fn however_a_stream_is_split_the_same_bytes_come_out() {
        for line_end in ["\n", "\r\n", "\r"] {
            let stream = STREAM.replace('\n', line_end);
            let removed =
                ["data: remove me\n\n", "event: y\ndata: remove me\n\n"].map(|event| event.replace('\n', line_end));
            let expected = stream.replace(&removed[1], "").replace(&removed[0], "");
            let stream = stream.as_bytes();
            let whole = run(&[stream]);
            assert_eq!(String::from_utf8(whole.0.clone()).unwrap(), expected);
            assert_eq!(
                whole.1,
                ["|{\"a\":\"é€😀\"}", "x|one\ntwo", "|remove me", "|", "|no space", "y|remove me", "|[DONE]"]
            );
            for first in 0..=stream.len() {
                for second in first..=stream.len() {
                    let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                    assert_eq!(run(&pieces), whole, "{line_end:?} split at {first} and {second}");
                }
            }
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(run(&bytes), whole, "{line_end:?} byte by byte");
        }
    }

    #[test]
    fn a_whole_event_is_passed_on_at_once_and_as_one_piece() {
        let (mut scanner, mut out) = (Scanner::default(), VecDeque::new());
        let piece = Bytes::from_static(b"data: 1\n\ndata: 2\n\ndata: 3\n");
        scanner.feed(piece.clone(), &mut |_| EventAction::Pass, &mut out).unwrap();
        assert_eq!(out, [piece.slice(..18)]);
        assert_eq!(out[0].as_ptr(), piece.as_ptr(), "not copied");
    }

    #[test]
    fn a_stream_that_never_ends_its_event_is_given_up() {
        let (mut scanner, mut out) = (Scanner::default(), VecDeque::new());
        let piece = Bytes::from(vec![b'x'; EVENT_MAX]);
        assert_eq!(scanner.feed(piece, &mut |_| EventAction::Pass, &mut out), Ok(()));
        assert_eq!(scanner.feed(Bytes::from_static(b"x"), &mut |_| EventAction::Pass, &mut out), Err(TooLarge));
    }

    #[test]
    fn the_end_of_a_stream_ends_its_last_event() {
        assert_eq!(run(&[b"data: [DONE]"]), (b"data: [DONE]".to_vec(), vec!["|[DONE]".to_owned()]));
    }
}
