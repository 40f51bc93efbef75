//! A client as plain as a client can be: one connection, one call.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::net::SimNet;

/// What is asked of whom.
pub(crate) struct Ask<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) token: &'a str,
    /// The request's id, or nothing.
    pub(crate) id: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) body: String,
    /// For the whole call.
    pub(crate) within: Duration,
    /// Hang up after so many pieces of the answer's body.
    pub(crate) hang_up_after: Option<usize>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    pub(crate) end: End,
}

/// How an answer's body ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As HTTP says it should.
    Complete,
    /// We left.
    HungUp,
    /// The connection broke.
    Broken,
}

/// Makes one call. Errors: why there was no answer; whether it took effect is not known.
pub(crate) async fn ask(net: &SimNet, ask: Ask<'_>) -> Result<Answer, String> {
    let within = ask.within;
    match timeout(within, exchange(net, ask)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {within:?}")),
    }
}

async fn exchange(net: &SimNet, ask: Ask<'_>) -> Result<Answer, String> {
    let stream = net.connect_to(ask.host, ask.port).await.map_err(|error| format!("cannot connect: {error}"))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| format!("no handshake: {error}"))?;
    // Ends with the call: whoever gives up hangs up.
    let mut connected = tokio::task::JoinSet::new();
    connected.spawn(connection);
    let mut request = Request::builder()
        .method(ask.method)
        .uri(ask.path)
        .header("host", format!("{}:{}", ask.host, ask.port))
        .header("authorization", format!("Bearer {}", ask.token))
        .header("content-type", ask.content_type);
    if !ask.id.is_empty() {
        request = request.header("x-request-id", ask.id);
    }
    let request = request.body(Full::new(Bytes::from(ask.body))).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| format!("no answer: {error}"))?;
    let (head, mut incoming) = response.into_parts();
    let mut body = BytesMut::new();
    let mut pieces = 0;
    let end = loop {
        if ask.hang_up_after == Some(pieces) {
            break End::HungUp;
        }
        match incoming.frame().await {
            Some(Ok(frame)) => body.extend_from_slice(frame.data_ref().map_or(&[], |data| &**data)),
            Some(Err(_)) => break End::Broken,
            None => break End::Complete,
        }
        pieces += 1;
    };
    Ok(Answer { status: head.status.as_u16(), body: body.freeze(), end })
}
