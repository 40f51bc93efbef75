//! The parts of a form (`multipart/form-data`, RFC 7578), one after the other. The parser is `multer`; here is what a form may cost, and what a
//! part may be: its number, the size of its head and of its text are bounded, and what a replica could read in two ways is refused.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::Stream;
use http::HeaderMap;
use http::header::{self, HeaderName};
use multer::{Error, Field, Multipart};

use crate::gateway::refusal::Refusal;

/// A form of any API here has a dozen.
const PARTS_MAX: usize = 64;
/// Bytes of a part's head.
const HEAD_MAX: usize = 8 * 1024;
/// Bytes of all texts together. Starlette, which vLLM's server is made with, takes as many for each of them.
const TEXTS_MAX: usize = 1024 * 1024;
/// Characters of a part's name.
const NAME_MAX: usize = 128;
/// Characters of a boundary (RFC 2046, section 5.1.1).
const BOUNDARY_MAX: usize = 70;
/// The parser gets so many bytes before other calls have a turn.
const PIECE: usize = 64 * 1024;
/// So many pieces must be enough for the next step: a head, or some of a value.
const PIECES_MAX: usize = 3;

/// One part.
pub(super) struct Part {
    /// Of letters, digits and `_-.[]`.
    pub(super) name: String,
    pub(super) value: Value,
}

/// What is in a part.
pub(super) enum Value {
    Text(String),
    File(File),
}

/// A file as it was sent.
pub(super) struct File {
    /// What the client calls it. Anything may be in it.
    pub(super) name: String,
    /// What the client takes it for, likewise.
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
}

/// A form that is being read.
pub(super) struct Parts {
    form: Multipart<'static>,
    pieces: Arc<AtomicUsize>,
    /// Bytes that the parts to come have at most.
    rest: usize,
    texts: usize,
    count: usize,
}

impl Parts {
    /// Of a whole body. Errors: the head does not say that it is a form, or not how its parts are told apart.
    pub(super) fn of(body: Bytes, headers: &HeaderMap) -> Result<Parts, Refusal> {
        let boundary = boundary(headers)?;
        let (pieces, rest) = (Arc::new(AtomicUsize::new(0)), body.len());
        let feed = Feed { rest: body, pieces: pieces.clone(), is_waiting: false };
        Ok(Parts { form: Multipart::new(feed, boundary), pieces, rest, texts: 0, count: 0 })
    }

    /// The next part, whole. `None`: the form is over, and ended as it should.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, Refusal> {
        self.allow();
        let Some(mut field) = self.form.next_field().await.map_err(refusal)? else { return Ok(None) };
        self.count += 1;
        if self.count > PARTS_MAX {
            return Err(Refusal::body(format!("the form has more than {PARTS_MAX} parts")));
        }
        let head = Head::of(&field)?;
        let mut bytes = Vec::with_capacity(if head.file.is_some() { self.rest } else { 0 });
        loop {
            self.allow();
            let Some(piece) = field.chunk().await.map_err(refusal)? else { break };
            if head.file.is_none() && self.texts + bytes.len() + piece.len() > TEXTS_MAX {
                return Err(Refusal::body(format!("the texts of the form have more than {TEXTS_MAX} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        bytes.shrink_to_fit();
        self.rest -= bytes.len();
        let Head { name, file } = head;
        let value = match file {
            Some((file_name, media_type)) => Value::File(File { name: file_name, media_type, bytes }),
            None => {
                self.texts += bytes.len();
                let text = String::from_utf8(bytes);
                Value::Text(text.map_err(|_| Refusal::body(format!("the form's part `{name}` is not UTF-8")))?)
            }
        };
        Ok(Some(Part { name, value }))
    }

    fn allow(&self) {
        self.pieces.store(PIECES_MAX, Ordering::Relaxed);
    }
}

/// The head of a part.
struct Head {
    name: String,
    /// Of a file: its name and type.
    file: Option<(String, String)>,
}

impl Head {
    fn of(field: &Field<'_>) -> Result<Head, Refusal> {
        let headers = field.headers();
        let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if size > HEAD_MAX {
            return Err(Refusal::body(TOO_LONG));
        }
        let text = |name: HeaderName| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let disposition = text(header::CONTENT_DISPOSITION).unwrap_or_default();
        let kind = disposition.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("form-data") {
            return Err(Refusal::body("a part of the form has no Content-Disposition `form-data`"));
        }
        let name = field.name().unwrap_or_default();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte);
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(is_plain) {
            let what = "a part of the form has no name, or one that no field here has: letters, digits and _-.[] only";
            return Err(Refusal::body(what));
        }
        let media_type = text(header::CONTENT_TYPE).unwrap_or_default();
        if media_type.trim_start().get(.."multipart/".len()).is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/"))
        {
            return Err(Refusal::body(format!("the form's part `{name}` is a form itself: send its parts one by one")));
        }
        let coding = text(HeaderName::from_static("content-transfer-encoding")).unwrap_or_default();
        let is_as_it_is = ["", "7bit", "8bit", "binary"].iter().any(|known| coding.trim().eq_ignore_ascii_case(known));
        if !is_as_it_is {
            let what = format!("the form's part `{name}` has a Content-Transfer-Encoding: send its bytes as they are");
            return Err(Refusal::body(what));
        }
        // Only files have names; the parser does not read the second form (RFC 5987).
        let file_name = field.file_name().or(disposition.contains("filename*").then_some(""));
        Ok(Head { name: name.to_owned(), file: file_name.map(|file| (file.to_owned(), media_type.into_owned())) })
    }
}

const TOO_LONG: &str =
    "the head of a part of the form is longer than 8 KiB, or the boundary that Content-Type names is not in the body";

fn refusal(error: Error) -> Refusal {
    Refusal::body(match error {
        Error::StreamReadFailed(_) => TOO_LONG,
        Error::IncompleteStream | Error::IncompleteHeaders | Error::IncompleteFieldData { .. } => {
            "the form is incomplete: its last boundary is missing, or is not the one that Content-Type names"
        }
        _ => "the head of a part of the form cannot be read",
    })
}

fn boundary(headers: &HeaderMap) -> Result<String, Refusal> {
    let wrong = |what: &str| Refusal::body(format!("the request body must be a form: {what}"));
    let mut types = headers.get_all(header::CONTENT_TYPE).into_iter();
    let (Some(kind), None) = (types.next(), types.next()) else {
        return Err(wrong("send one Content-Type, `multipart/form-data`"));
    };
    let found = kind.to_str().map_err(|_| Error::NoMultipart).and_then(multer::parse_boundary);
    let boundary = found.map_err(|error| match error {
        Error::NoBoundary => wrong("Content-Type has no boundary"),
        _ => wrong("Content-Type is not `multipart/form-data`"),
    })?;
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    let is_sound =
        (1..=BOUNDARY_MAX).contains(&boundary.len()) && boundary.bytes().all(is_legal) && !boundary.ends_with(' ');
    if is_sound { Ok(boundary) } else { Err(wrong("its boundary is none (RFC 2046, section 5.1.1)")) }
}

/// Gives the parser a body in pieces. The parser takes all that is ready, so between two pieces nothing is.
struct Feed {
    rest: Bytes,
    pieces: Arc<AtomicUsize>,
    is_waiting: bool,
}

/// The parser wants more than any step can need.
#[derive(Debug, thiserror::Error)]
#[error("too much of the form is in one place")]
struct TooMuch;

impl Stream for Feed {
    type Item = Result<Bytes, TooMuch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.is_waiting = !self.is_waiting;
        if self.is_waiting {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let left = self.pieces.load(Ordering::Relaxed);
        if left == 0 {
            return Poll::Ready(Some(Err(TooMuch)));
        }
        self.pieces.store(left - 1, Ordering::Relaxed);
        let length = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(self.rest.split_to(length))))
    }
}
