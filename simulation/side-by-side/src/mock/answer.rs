//! One request at one replica, and the kinds of body it may be answered with.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::json;

use super::events::Events;
use super::replica::Replica;
use super::{chat, control, metrics};

/// What is sent.
pub(super) enum Body {
    Whole(Full<Bytes>),
    Events(Events),
}

/// Answers a request that came to `replicas[index]`.
pub(super) async fn answer(
    replicas: &[Replica],
    index: usize,
    request: Request<Incoming>,
) -> Result<Response<Body>, hyper::Error> {
    let replica = &replicas[index];
    let (head, body) = request.into_parts();
    Ok(match (&head.method, head.uri.path()) {
        (&Method::POST, "/v1/chat/completions") => chat::answer(replica, body).await?,
        (&Method::GET, "/v1/models") => json(StatusCode::OK, chat::models().to_string()),
        (&Method::GET, "/health") => whole(StatusCode::OK, "text/plain", Bytes::new()),
        (&Method::GET, "/version") => json(StatusCode::OK, json!({"version": "0.11.0"}).to_string()),
        (&Method::GET, "/metrics") => whole(StatusCode::OK, metrics::CONTENT_TYPE, metrics::exposition(replica)),
        (&Method::GET, "/stats") => json(StatusCode::OK, control::stats(replicas)),
        (&Method::POST, "/control") => control::set(replicas, &body.collect().await?.to_bytes()),
        _ => json(StatusCode::NOT_FOUND, json!({"detail": "Not Found"}).to_string()),
    })
}

pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    whole(status, "application/json", body)
}

fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    respond(status, content_type, Body::Whole(Full::new(body.into())))
}

pub(super) fn respond(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Body::Whole(whole) => Pin::new(whole).poll_frame(cx),
            Body::Events(events) => events.poll_piece(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Body::Whole(whole) => whole.size_hint(),
            Body::Events(_) => http_body::SizeHint::default(),
        }
    }
}
