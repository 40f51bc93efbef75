//! The body of an answer on its way to the socket.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};

use super::peer::Connected;
use super::streams::Taking;

/// On HTTP/2, so much of an answer is given at a time: what the client does not take stays where it can be dropped.
const PIECE_MAX: usize = 16 * 1024;

/// A request in progress: from its head's end to its answer's last byte.
pub(super) struct InProgress(Arc<Connected>);

impl InProgress {
    /// Begins one; `None` if the connection is being closed.
    pub(super) fn begin(connected: &Arc<Connected>, multiplexed: bool) -> Option<InProgress> {
        connected.activity.begin_request(multiplexed).then(|| InProgress(connected.clone()))
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.activity.end_request();
    }
}

/// An answer's body that counts its request as in progress to the last byte, and notes whether an HTTP/2 client takes it.
pub(super) struct Answer<B> {
    /// `None` if the port itself answers.
    body: Option<B>,
    /// Of the body, and not given yet.
    rest: Bytes,
    taking: Option<Arc<Taking>>,
    _request: InProgress,
}

impl<B> Answer<B> {
    pub(super) fn new(body: B, taking: Option<Arc<Taking>>, request: InProgress) -> Answer<B> {
        Answer { body: Some(body), rest: Bytes::new(), taking, _request: request }
    }

    /// What a connection is told for which there was no place.
    pub(super) fn full(taking: Option<Arc<Taking>>, request: InProgress) -> Response<Answer<B>> {
        const TEXT: &[u8] = br#"{"error":{"message":"this node serves as many connections as it can: try again in a second, or another node","type":"server_error","code":"connections_exhausted"}}"#;
        let mut answer =
            Response::new(Answer { body: None, rest: Bytes::from_static(TEXT), taking, _request: request });
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        answer
    }

    fn give(&mut self) -> Bytes {
        let Some(taking) = &self.taking else { return std::mem::take(&mut self.rest) };
        taking.gave();
        self.rest.split_to(self.rest.len().min(PIECE_MAX))
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let answer = &mut *self;
        if !answer.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(answer.give()))));
        }
        let Some(body) = &mut answer.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        match polled {
            Poll::Pending => {
                if let Some(taking) = &answer.taking {
                    taking.owes();
                }
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    answer.rest = data;
                    Poll::Ready(Some(Ok(Frame::data(answer.give()))))
                }
                Err(trailers) => Poll::Ready(Some(Ok(trailers))),
            },
            ended @ Poll::Ready(_) => ended,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.as_ref().map(http_body::Body::size_hint));
        let Some(body) = body else { return SizeHint::with_exact(rest) };
        let mut hint = SizeHint::new();
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(body.lower() + rest);
        hint
    }
}
