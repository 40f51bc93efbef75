//! Calls to peers: one connection to each, made when first needed, shared by all calls.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader, BufWriter, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::frame::{self, FRAME_MAX, invalid};
use super::greeting::Lane;
use super::message::{Numbered, Request, Response};
use super::{Acquaintances, PeerTls, handshake};
use crate::codec;
use crate::doors::{BoxStream, Doors};
use crate::ids::NodeId;

/// Calls that wait to be written to one peer. The core sends one append at a time and few votes; proposals are
/// bounded by the handle. Beyond it a call fails at once.
const QUEUE: usize = 1024;
/// A connection on which something was asked and nothing arrives for so long is dead. The leader's heartbeats make that rare.
const SILENCE: Duration = Duration::from_secs(3);
/// How often silence and abandoned calls are looked for.
const CHECK: Duration = Duration::from_millis(500);
/// Between attempts to connect: at first, and at most. Short, because a restarted peer is wanted soon.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// There is no connection, or it broke: the call may or may not have been heard.
    #[error("node {node} is unreachable: {why}")]
    Unreachable {
        /// Which.
        node: NodeId,
        /// Why.
        why: String,
    },
    /// It took too long.
    #[error("node {node} did not answer within {within:?}")]
    Timeout {
        /// Which.
        node: NodeId,
        /// How long.
        within: Duration,
    },
}

/// This node's connections to the others.
pub(crate) struct Peers {
    shared: Arc<Shared>,
    links: Mutex<BTreeMap<NodeId, Link>>,
}

/// What every connection needs.
pub(super) struct Shared {
    pub(super) node: NodeId,
    pub(super) cluster: String,
    pub(super) tls: Option<PeerTls>,
    pub(super) doors: Doors,
    pub(super) acquaintances: Acquaintances,
}

struct Link {
    address: String,
    calls: mpsc::Sender<Call>,
    task: AbortHandle,
}

struct Call {
    request: Request,
    answer: oneshot::Sender<Result<Response, CallError>>,
}

impl Peers {
    /// No connections yet.
    pub(crate) fn new(
        node: NodeId,
        cluster: String,
        tls: Option<PeerTls>,
        doors: Doors,
        acquaintances: Acquaintances,
    ) -> Peers {
        Peers { shared: Arc::new(Shared { node, cluster, tls, doors, acquaintances }), links: Mutex::default() }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Asks `node`, which listens on `address`, and waits at most `within`.
    pub(crate) async fn call(
        &self,
        node: NodeId,
        address: &str,
        request: Request,
        within: Duration,
    ) -> Result<Response, CallError> {
        let (answer, answered) = oneshot::channel();
        let unreachable = |why: &str| CallError::Unreachable { node, why: why.to_owned() };
        self.queue(node, address).try_send(Call { request, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => unreachable("too many calls wait for it"),
            mpsc::error::TrySendError::Closed(_) => unreachable("its connection is closing"),
        })?;
        match timeout(within, answered).await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => Err(unreachable("its connection closed")),
            Err(_) => Err(CallError::Timeout { node, within }),
        }
    }

    /// Closes every connection.
    pub(crate) fn close(&self) {
        for (_, link) in std::mem::take(&mut *self.links.lock().unwrap_or_else(PoisonError::into_inner)) {
            link.task.abort();
        }
    }

    fn queue(&self, node: NodeId, address: &str) -> mpsc::Sender<Call> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(&node) {
            if link.address == address && !link.calls.is_closed() {
                return link.calls.clone();
            }
            link.task.abort();
        }
        let (calls, queue) = mpsc::channel(QUEUE);
        let connection = Connection { shared: Arc::clone(&self.shared), node, address: address.to_owned(), queue };
        let task = tokio::spawn(connection.run()).abort_handle();
        links.insert(node, Link { address: address.to_owned(), calls: calls.clone(), task });
        calls
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.close();
    }
}

/// The connection to one peer, and the calls for it.
struct Connection {
    shared: Arc<Shared>,
    node: NodeId,
    address: String,
    queue: mpsc::Receiver<Call>,
}

impl Connection {
    async fn run(mut self) {
        let mut backoff = BACKOFF.0;
        let mut complained: Option<String> = None;
        // Nothing is dialled before somebody calls, and again only for the next call.
        while let Some(first) = self.queue.recv().await {
            let dialled = handshake::dial(&self.shared, self.node, &self.address, Lane::Calls).await;
            let error = match dialled {
                Ok(stream) => {
                    if complained.take().is_some() {
                        tracing::info!(peer = %self.node, address = %self.address, "peer is reachable again");
                    }
                    backoff = BACKOFF.0;
                    self.serve(stream, first).await
                }
                Err(error) => {
                    self.fail(first, &error);
                    error
                }
            };
            let said = error.to_string();
            if complained.as_ref() != Some(&said) {
                tracing::warn!(peer = %self.node, address = %self.address, error = %said, "no connection to peer");
                complained = Some(said);
            }
            self.pause(backoff, &error).await;
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    fn fail(&self, call: Call, error: &io::Error) {
        let _ = call.answer.send(Err(CallError::Unreachable { node: self.node, why: error.to_string() }));
    }

    /// Waits before the next attempt, with some chance in it; calls that come meanwhile fail at once.
    async fn pause(&mut self, backoff: Duration, error: &io::Error) {
        let millis = u64::try_from(backoff.as_millis()).unwrap_or(u64::MAX);
        let end = Instant::now() + backoff + Duration::from_millis(self.shared.doors.chance.below(millis));
        while let Ok(Some(call)) = tokio::time::timeout_at(end, self.queue.recv()).await {
            self.fail(call, error);
        }
        if self.queue.is_closed() {
            return;
        }
        tokio::time::sleep_until(end).await;
    }

    /// Carries calls until the connection breaks; says why. What was under way fails.
    async fn serve(&mut self, stream: BoxStream, first: Call) -> io::Error {
        let (reader, writer) = tokio::io::split(stream);
        let mut writer = BufWriter::with_capacity(16 << 10, writer);
        let (answers, mut answered) = mpsc::channel(64);
        // Dropped, and so stopped, with this future.
        let mut reading = JoinSet::new();
        reading.spawn(read_answers(reader, answers));
        let mut waiting: BTreeMap<u64, oneshot::Sender<Result<Response, CallError>>> = BTreeMap::new();
        let mut number = 0;
        let mut next = Some(first);
        // Since when something was asked and nothing has been heard. Whether somebody still waits for the answer does not matter:
        // calls that each give up sooner than a dead connection is noticed would keep it for ever.
        let mut unheard_since = None;
        let mut check = interval(CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let error = loop {
            if let Some(call) = next.take() {
                unheard_since.get_or_insert_with(Instant::now);
                number += 1;
                waiting.insert(number, call.answer);
                let frame = codec::encode(&Numbered { number, body: call.request });
                if let Err(error) = self.write(&mut writer, &frame).await {
                    break error;
                }
            }
            tokio::select! {
                biased;
                answer = answered.recv() => match answer {
                    Some(Ok(Numbered { number, body })) => {
                        if let Some(waits) = waiting.remove(&number) {
                            let _ = waits.send(Ok(body));
                        }
                        unheard_since = (!waiting.is_empty()).then(Instant::now);
                    }
                    Some(Err(error)) => break error,
                    None => break io::ErrorKind::UnexpectedEof.into(),
                },
                call = self.queue.recv() => match call {
                    Some(call) => next = Some(call),
                    None => break io::ErrorKind::NotConnected.into(),
                },
                _ = check.tick() => {
                    waiting.retain(|_, waits| !waits.is_closed());
                    if unheard_since.is_some_and(|since: Instant| since.elapsed() > SILENCE) {
                        break io::ErrorKind::TimedOut.into();
                    }
                }
            }
        };
        for (_, waits) in waiting {
            let _ = waits.send(Err(CallError::Unreachable { node: self.node, why: error.to_string() }));
        }
        error
    }

    /// Writes a frame, and flushes when no other waits. A peer that takes nothing is dead.
    async fn write(&self, writer: &mut BufWriter<WriteHalf<BoxStream>>, frame: &[u8]) -> io::Result<()> {
        let written = async {
            writer.write_all(frame).await?;
            if self.queue.is_empty() { writer.flush().await } else { Ok(()) }
        };
        timeout(SILENCE, written).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

async fn read_answers(reader: ReadHalf<BoxStream>, answers: mpsc::Sender<io::Result<Numbered<Response>>>) {
    let mut reader = BufReader::with_capacity(16 << 10, reader);
    loop {
        let answer = match frame::read(&mut reader, FRAME_MAX).await {
            Ok(Some(frame)) => codec::decode(&frame).map_err(invalid),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let broken = answer.is_err();
        if answers.send(answer).await.is_err() || broken {
            return;
        }
    }
}
