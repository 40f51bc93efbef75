//! Events of a stream that wait for what a later event says.

use std::collections::VecDeque;

use bytes::Bytes;

/// More than this is not held back.
const HELD_MAX: usize = 1024 * 1024;

/// What waits, in order. Empty unless an event is awaited.
#[derive(Default)]
pub(super) struct Held {
    /// Pieces, and of those that begin just before the end of an object where a field is to be added: that it is.
    pieces: Vec<(Bytes, bool)>,
    bytes: usize,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Holds an event whose object ends at `end` and will get another field there.
    pub(super) fn open(&mut self, event: &Bytes, end: usize) {
        self.push(event.slice(..end), false);
        self.push(event.slice(end..), true);
    }

    /// Holds what comes after it.
    pub(super) fn follow(&mut self, bytes: Bytes) {
        self.push(bytes, false);
    }

    fn push(&mut self, bytes: Bytes, gets_field: bool) {
        self.bytes += bytes.len();
        self.pieces.push((bytes, gets_field));
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes > HELD_MAX
    }

    /// Lets everything go on, with `field` where it belongs.
    pub(super) fn release(&mut self, field: Option<&Bytes>, out: &mut VecDeque<Bytes>) {
        self.bytes = 0;
        for (bytes, gets_field) in self.pieces.drain(..) {
            out.extend(field.filter(|_| gets_field).cloned());
            if !bytes.is_empty() {
                out.push_back(bytes);
            }
        }
    }
}
