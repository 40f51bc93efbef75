//! A snapshot travels on a connection of its own, in chunks, so that heartbeats never wait behind it.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::time::timeout;

use super::client::{CallError, Peers};
use super::frame::{self, invalid};
use super::greeting::Lane;
use super::handshake;
use super::message::{Numbered, Response, SnapshotChunk, SnapshotHead};
use super::server::Handler;
use crate::codec;
use crate::doors::BoxStream;
use crate::ids::NodeId;
use crate::storage::records::Vote;

/// How many bytes go in one frame.
const CHUNK: usize = 256 << 10;
/// How long one chunk may take before the transfer is given up.
const CHUNK_DEADLINE: Duration = Duration::from_secs(10);
/// The largest snapshot that is taken in: it is held in memory while it is installed.
const SNAPSHOT_MAX: u64 = 2 << 30;

impl Peers {
    /// Sends a snapshot to `node`, which listens on `address`, and waits until it is installed, at most `within`.
    pub(crate) async fn send_snapshot(
        &self,
        node: NodeId,
        address: &str,
        vote: Vote,
        snapshot: Bytes,
        within: Duration,
    ) -> Result<Response, CallError> {
        let sent = async {
            let stream = handshake::dial(self.shared(), node, address, Lane::Snapshot).await?;
            send(stream, vote, &snapshot).await
        };
        match timeout(within, sent).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(CallError::Unreachable { node, why: error.to_string() }),
            Err(_) => Err(CallError::Timeout { node, within }),
        }
    }
}

async fn send(mut stream: BoxStream, vote: Vote, snapshot: &[u8]) -> io::Result<Response> {
    let head = SnapshotHead { vote, length: snapshot.len() as u64 };
    stream.write_all(&codec::encode(&head)).await?;
    for chunk in snapshot.chunks(CHUNK) {
        let frame = codec::encode_raw::<SnapshotChunk>(chunk);
        timeout(CHUNK_DEADLINE, stream.write_all(&frame)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    }
    stream.flush().await?;
    let answer = frame::read(&mut stream, CHUNK).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(codec::decode::<Numbered<Response>>(&answer).map_err(invalid)?.body)
}

/// Takes one snapshot in, has it installed, and answers.
pub(super) async fn receive(stream: BoxStream, from: NodeId, handler: &dyn Handler) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(16 << 10, stream);
    let head = next(&mut stream).await?;
    let head: SnapshotHead = codec::decode(&head).map_err(invalid)?;
    if head.length > SNAPSHOT_MAX {
        let message = format!("snapshot of {} bytes is larger than {SNAPSHOT_MAX}", head.length);
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut snapshot = Vec::new();
    while (snapshot.len() as u64) < head.length {
        let frame = next(&mut stream).await?;
        snapshot.extend_from_slice(codec::decode_raw::<SnapshotChunk>(&frame).map_err(invalid)?);
    }
    let body = handler.install(from, head, snapshot).await;
    stream.write_all(&codec::encode(&Numbered { number: 0, body })).await?;
    stream.shutdown().await
}

async fn next(stream: &mut BufReader<BoxStream>) -> io::Result<Vec<u8>> {
    let frame = timeout(CHUNK_DEADLINE, frame::read(stream, CHUNK)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(frame.ok_or(io::ErrorKind::UnexpectedEof)?)
}
