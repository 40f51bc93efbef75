//! A client as plain as a client can be: one call at a time, each on a connection of its own or on one that an earlier call left.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::net::SimNet;

/// Where nobody answers for so long there is nobody.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// A connection is used again within this, as the OpenAI and Anthropic SDKs do: nobody may be at its other end any more.
const KEPT: Duration = Duration::from_secs(5);

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
    /// Keep the connection for the next call to the same port.
    pub(crate) keeps: bool,
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

/// A client, and the connections it keeps.
pub(crate) struct Client {
    net: Rc<SimNet>,
    kept: BTreeMap<(String, u16), Connection>,
}

/// Ends when it is dropped: whoever gives up hangs up.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// When its last answer ended.
    since: Instant,
    _task: JoinSet<hyper::Result<()>>,
}

/// Why there is no answer.
enum Failed {
    /// Nothing was sent.
    Unsent,
    /// Something was, and then this happened.
    Broken(String),
}

impl Client {
    pub(crate) fn new(net: &Rc<SimNet>) -> Client {
        Client { net: net.clone(), kept: BTreeMap::new() }
    }

    /// Makes one call. Errors: why there was no answer; whether it took effect is not known.
    pub(crate) async fn ask(&mut self, ask: &Ask<'_>) -> Result<Answer, String> {
        match timeout(ask.within, self.exchange(ask)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {:?}", ask.within)),
        }
    }

    async fn exchange(&mut self, ask: &Ask<'_>) -> Result<Answer, String> {
        let at = (ask.host.to_owned(), ask.port);
        let is_usable = |kept: &Connection| !kept.sender.is_closed() && kept.since.elapsed() < KEPT;
        if let Some(kept) = self.kept.remove(&at).filter(is_usable) {
            match self.exchange_on(kept, ask).await {
                // The server had closed it before anything was sent.
                Err(Failed::Unsent) => {}
                Err(Failed::Broken(why)) => return Err(why),
                Ok(answer) => return Ok(answer),
            }
        }
        let connection = self.connect(ask).await?;
        self.exchange_on(connection, ask).await.map_err(|failed| match failed {
            Failed::Unsent => "the connection was closed".to_owned(),
            Failed::Broken(why) => why,
        })
    }

    async fn connect(&self, ask: &Ask<'_>) -> Result<Connection, String> {
        let connected = timeout(CONNECT_WITHIN, self.net.connect_to(ask.host, ask.port)).await;
        let connected = connected.map_err(|_| format!("no connection within {CONNECT_WITHIN:?}"))?;
        let stream = connected.map_err(|error| format!("cannot connect: {error}"))?;
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| format!("no handshake: {error}"))?;
        let mut task = JoinSet::new();
        task.spawn(connection);
        Ok(Connection { sender, since: Instant::now(), _task: task })
    }

    async fn exchange_on(&mut self, mut connection: Connection, ask: &Ask<'_>) -> Result<Answer, Failed> {
        let sent = connection.sender.send_request(ask.request().map_err(Failed::Broken)?).await;
        let answered = sent.map_err(|error| match error.is_canceled() {
            true => Failed::Unsent,
            false => Failed::Broken(format!("no answer: {error}")),
        });
        let (head, mut incoming) = answered?.into_parts();
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
        if ask.keeps && end == End::Complete {
            connection.since = Instant::now();
            self.kept.insert((ask.host.to_owned(), ask.port), connection);
        }
        Ok(Answer { status: head.status.as_u16(), body: body.freeze(), end })
    }
}

impl Ask<'_> {
    fn request(&self) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(self.path)
            .header("host", format!("{}:{}", self.host, self.port))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", self.content_type);
        if !self.id.is_empty() {
            // The engine keeps the second; what it gets as the first is the gateway's own.
            request = request.header("x-request-id", self.id).header("x-client-request-id", self.id);
        }
        request.body(Full::new(Bytes::from(self.body.clone()))).map_err(|error| error.to_string())
    }
}
