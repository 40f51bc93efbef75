//! Frames on a stream: a record's header says how long it is, so records follow each other as they are.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::codec::{self, DecodeError};

/// The largest frame: an append of the most entries the core sends at once, all of the largest size, is below it.
pub(super) const FRAME_MAX: usize = 48 << 20;

/// The next record's bytes, or `None` if the other side closed between two. Errors: the stream, or not a record.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin), max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut frame = vec![0; codec::HEADER];
    if stream.read(&mut frame[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut frame[1..]).await?;
    let length = codec::header(&frame).map_err(invalid)?.length;
    if length > max {
        let message = format!("frame of {length} bytes is longer than {max}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    // Memory is taken as bytes arrive, not because the other side says so.
    let taken = (&mut *stream).take(length as u64).read_to_end(&mut frame).await?;
    if taken < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(frame))
}

/// A frame that is not what it should be.
pub(super) fn invalid(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
