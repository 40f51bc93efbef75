//! Calls from peers: accepts connections, answers requests.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader, BufWriter, WriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::frame::{self, FRAME_MAX, invalid};
use super::greeting::Lane;
use super::message::{Numbered, Request, Response, SnapshotHead};
use super::{Peers, handshake, snapshot};
use crate::codec;
use crate::doors::{BoxFuture, BoxStream, Listener};
use crate::ids::NodeId;

/// Connections at a time. Each of a cluster's nodes needs one, one more while a snapshot travels, and for
/// a moment both of an old and a new one; strangers on the network must not take more.
const CONNECTIONS: usize = 64;
/// Requests under way on one connection: above what a peer's handle lets through. Beyond it the connection is
/// not read.
const REQUESTS: usize = 1024;
/// A connection on which nothing arrives for so long is closed; a peer that lives dials again.
const IDLE: Duration = Duration::from_secs(120);
/// How long one write may take before the peer counts as dead.
const WRITE: Duration = Duration::from_secs(5);

/// Who answers requests.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Answers one.
    fn answer(&self, from: NodeId, request: Request) -> BoxFuture<'_, Response>;

    /// Installs a snapshot that arrived whole.
    fn install(&self, from: NodeId, head: SnapshotHead, snapshot: Vec<u8>) -> BoxFuture<'_, Response>;
}

/// Accepts connections for ever. Dropping it closes them all.
pub(crate) async fn serve(mut listener: Box<dyn Listener>, peers: Arc<Peers>, handler: Arc<dyn Handler>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a peer connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if connections.len() >= CONNECTIONS {
            tracing::warn!(%address, limit = CONNECTIONS, "too many peer connections: one more is closed");
            continue;
        }
        let (peers, handler) = (Arc::clone(&peers), Arc::clone(&handler));
        connections.spawn(async move {
            match handshake::answer(peers.shared(), stream).await {
                Ok((stream, from, Lane::Calls)) => calls(stream, from, handler).await,
                Ok((stream, from, Lane::Snapshot)) => snapshot::receive(stream, from, &*handler).await,
                Err(error) => Err(error),
            }
            .unwrap_or_else(|error| tracing::info!(%address, %error, "a peer connection ended"));
        });
    }
}

async fn calls(stream: BoxStream, from: NodeId, handler: Arc<dyn Handler>) -> io::Result<()> {
    let (reader, writer) = tokio::io::split(stream);
    let mut reader = BufReader::with_capacity(16 << 10, reader);
    let (answers, ready) = mpsc::channel(REQUESTS);
    // Dropped with this connection, and with them what they wait for.
    let mut tasks = JoinSet::new();
    tasks.spawn(write_answers(writer, ready));
    let permits = Arc::new(Semaphore::new(REQUESTS));
    loop {
        let frame = match timeout(IDLE, frame::read(&mut reader, FRAME_MAX)).await {
            Ok(frame) => frame?,
            Err(_) => return Ok(()),
        };
        let Some(frame) = frame else { return Ok(()) };
        let Numbered { number, body } = codec::decode::<Numbered<Request>>(&frame).map_err(invalid)?;
        let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
        let (answers, handler) = (answers.clone(), Arc::clone(&handler));
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let body = handler.answer(from, body).await;
            let _ = answers.send(codec::encode(&Numbered { number, body })).await;
            drop(permit);
        });
    }
}

async fn write_answers(writer: WriteHalf<BoxStream>, mut ready: mpsc::Receiver<Vec<u8>>) {
    let mut writer = BufWriter::with_capacity(16 << 10, writer);
    while let Some(frame) = ready.recv().await {
        let written = async {
            writer.write_all(&frame).await?;
            if ready.is_empty() { writer.flush().await } else { Ok(()) }
        };
        if !matches!(timeout(WRITE, written).await, Ok(Ok(()))) {
            return;
        }
    }
}
