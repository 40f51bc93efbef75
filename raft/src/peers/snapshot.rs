//! A snapshot travels on a connection of its own, in chunks, so that heartbeats never wait behind it.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::time::{interval, timeout};

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
const CHUNK: usize = 64 << 10;
/// How long one chunk may take before the transfer is given up: a link of 22 KB a second is fast enough. Whoever waits for a chunk that
/// got lost keeps everything else from being replicated to it.
const CHUNK_DEADLINE: Duration = Duration::from_secs(3);
/// The receiver says that it is still there this often...
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// ...and after so long without it there is nobody: a machine that lost its power says nothing, and nothing else is replicated to
/// it before this transfer ends.
const SILENCE: Duration = Duration::from_secs(5);
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

async fn send(stream: BoxStream, vote: Vote, snapshot: &[u8]) -> io::Result<Response> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = async {
        let head = SnapshotHead { vote, length: snapshot.len() as u64 };
        writer.write_all(&codec::encode(&head)).await?;
        for chunk in snapshot.chunks(CHUNK) {
            let frame = codec::encode_raw::<SnapshotChunk>(chunk);
            timeout(CHUNK_DEADLINE, writer.write_all(&frame)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        }
        writer.flush().await
    };
    let mut writing = pin!(writing);
    let mut is_written = false;
    let mut answer = pin!(answer(&mut reader));
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            written = &mut writing, if !is_written => {
                written?;
                is_written = true;
            }
        }
    }
}

/// What the receiver says in the end. Errors: nothing has been heard of it for too long.
async fn answer(reader: &mut ReadHalf<BoxStream>) -> io::Result<Response> {
    loop {
        let frame = timeout(SILENCE, frame::read(reader, CHUNK)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let frame = frame.ok_or(io::ErrorKind::UnexpectedEof)?;
        match codec::decode::<Numbered<Response>>(&frame).map_err(invalid)?.body {
            Response::Installing => {}
            body => return Ok(body),
        }
    }
}

/// Takes one snapshot in, has it installed, and answers.
pub(super) async fn receive(stream: BoxStream, from: NodeId, handler: &dyn Handler) -> io::Result<()> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut installed = pin!(install(reader, from, handler));
    let mut signs = interval(SIGN_OF_LIFE);
    let body = loop {
        tokio::select! {
            biased;
            body = &mut installed => break body?,
            _ = signs.tick() => write(&mut writer, Response::Installing).await?,
        }
    };
    write(&mut writer, body).await?;
    writer.shutdown().await
}

async fn install(reader: ReadHalf<BoxStream>, from: NodeId, handler: &dyn Handler) -> io::Result<Response> {
    let mut reader = BufReader::with_capacity(16 << 10, reader);
    let head = next(&mut reader).await?;
    let head: SnapshotHead = codec::decode(&head).map_err(invalid)?;
    if head.length > SNAPSHOT_MAX {
        let message = format!("snapshot of {} bytes is larger than {SNAPSHOT_MAX}", head.length);
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut snapshot = Vec::new();
    while (snapshot.len() as u64) < head.length {
        let frame = next(&mut reader).await?;
        snapshot.extend_from_slice(codec::decode_raw::<SnapshotChunk>(&frame).map_err(invalid)?);
    }
    Ok(handler.install(from, head, snapshot).await)
}

/// A sender that takes nothing is gone.
async fn write(writer: &mut WriteHalf<BoxStream>, body: Response) -> io::Result<()> {
    let frame = codec::encode(&Numbered { number: 0, body });
    let written = async {
        writer.write_all(&frame).await?;
        writer.flush().await
    };
    timeout(SILENCE, written).await.map_err(|_| io::ErrorKind::TimedOut)?
}

async fn next(stream: &mut BufReader<ReadHalf<BoxStream>>) -> io::Result<Vec<u8>> {
    let frame = timeout(CHUNK_DEADLINE, frame::read(stream, CHUNK)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(frame.ok_or(io::ErrorKind::UnexpectedEof)?)
}
