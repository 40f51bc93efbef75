//! Where a body ends: by its length, by chunks, or with the connection.

use super::failure::Failure;

/// Longer lines of a chunked body are malformed.
const LINE_BYTES_MAX: usize = 256;

/// How a body is framed, and how much of it has come.
pub(super) enum Framing {
    /// So many bytes are missing.
    Length(usize),
    /// `transfer-encoding: chunked`.
    Chunked(Chunked),
    /// Until the connection closes.
    ToClose,
}

/// Within a chunked body.
#[derive(Default)]
pub(super) struct Chunked {
    place: Place,
    line: Vec<u8>,
}

#[derive(Default)]
enum Place {
    /// In the line that says how long the next chunk is.
    #[default]
    Size,
    /// So many bytes of a chunk are missing.
    Data(usize),
    /// In the line end after a chunk.
    End,
    /// In the lines after the last chunk.
    Trailers,
}

impl Framing {
    /// Passes the body's bytes among `bytes` to `take`. Returns whether the body is complete.
    pub(super) fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8])) -> Result<bool, Failure> {
        match self {
            Framing::ToClose => {
                take(bytes);
                Ok(false)
            }
            Framing::Length(missing) => {
                let mine = bytes.len().min(*missing);
                take(&bytes[..mine]);
                *missing -= mine;
                Ok(*missing == 0)
            }
            Framing::Chunked(chunked) => chunked.feed(bytes, take),
        }
    }
}

impl Chunked {
    fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8])) -> Result<bool, Failure> {
        while !bytes.is_empty() {
            if let Place::Data(missing) = &mut self.place {
                let (data, rest) = bytes.split_at(bytes.len().min(*missing));
                take(data);
                bytes = rest;
                *missing -= data.len();
                if *missing == 0 {
                    self.place = Place::End;
                }
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                self.keep(bytes)?;
                return Ok(false);
            };
            self.keep(&bytes[..end])?;
            bytes = &bytes[end + 1..];
            if self.end_line()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), Failure> {
        self.line.extend_from_slice(part);
        if self.line.len() > LINE_BYTES_MAX { Err(Failure::Chunk) } else { Ok(()) }
    }

    /// A line is complete. Returns whether it was the last.
    fn end_line(&mut self) -> Result<bool, Failure> {
        let line = std::str::from_utf8(&self.line).map_err(|_| Failure::Chunk)?.trim_end();
        self.place = match self.place {
            Place::Size => {
                let digits = line.split(';').next().unwrap_or_default().trim();
                match usize::from_str_radix(digits, 16).map_err(|_| Failure::Chunk)? {
                    0 => Place::Trailers,
                    size => Place::Data(size),
                }
            }
            Place::Trailers if line.is_empty() => return Ok(true),
            Place::Trailers => Place::Trailers,
            Place::End | Place::Data(_) if line.is_empty() => Place::Size,
            Place::End | Place::Data(_) => return Err(Failure::Chunk),
        };
        self.line.clear();
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body and whether it was complete, when its bytes come in pieces of this size.
    fn read(mut framing: Framing, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, bool), Failure> {
        let (mut body, mut complete) = (Vec::new(), false);
        for piece in bytes.chunks(piece) {
            complete = framing.feed(piece, |part| body.extend_from_slice(part))?;
        }
        Ok((body, complete))
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let chunked = || Framing::Chunked(Chunked::default());
        for piece in [1, 2, 3, 5, 100] {
            let cases = [
                (Framing::Length(5), "hello", "hello", true),
                (Framing::Length(5), "hell", "hell", false),
                (Framing::ToClose, "hello", "hello", false),
                (chunked(), "5\r\nhello\r\n0\r\n\r\n", "hello", true),
                (chunked(), "3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nt: v\r\n\r\n", "hello", true),
                (chunked(), "5\r\nhello\r\n", "hello", false),
            ];
            for (framing, bytes, body, complete) in cases {
                assert_eq!(
                    read(framing, bytes.as_bytes(), piece).unwrap(),
                    (body.into(), complete),
                    "{bytes:?} by {piece}"
                );
            }
        }
    }

    #[test]
    fn a_malformed_chunk_is_noticed() {
        for bytes in ["x\r\n", "5\r\nhelloo\r\n0\r\n\r\n", "\r\n"] {
            let read = read(Framing::Chunked(Chunked::default()), bytes.as_bytes(), 100);
            assert!(matches!(read, Err(Failure::Chunk)), "{bytes:?}");
        }
    }
}
