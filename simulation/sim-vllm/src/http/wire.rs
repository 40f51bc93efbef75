//! The byte stream under HTTP, which can be made to write garbage.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What goes over the wire instead of an answer.
const GARBAGE: &[u8] = b"\x15\x03\x01\x00\x02\x02\x46not http, not anything\xff\xfe\r\n\r\n{{{{";

/// A connection.
pub(crate) struct Wire<IO> {
    io: IO,
    garble: Garble,
}

/// Turns the rest of a connection's output into garbage.
#[derive(Clone)]
pub(crate) struct Garble(Arc<AtomicBool>);

impl Garble {
    pub(crate) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<IO> Wire<IO> {
    pub(crate) fn new(io: IO) -> (Self, Garble) {
        let garble = Garble(Arc::new(AtomicBool::new(false)));
        (Self { io, garble: garble.clone() }, garble)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Wire<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Wire<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.garble.0.load(Ordering::Relaxed) {
            let length = buf.len().min(GARBAGE.len());
            return Pin::new(&mut self.io).poll_write(cx, &GARBAGE[..length]);
        }
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
