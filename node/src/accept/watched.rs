//! A socket that notes its doings, and ends when an HTTP/2 client floods it with frames.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::cut::Cut;
use super::frames::Frames;
use super::peer::Connected;

/// A socket, behind TLS if there is any.
pub(super) struct Watched<I> {
    io: I,
    connected: Arc<Connected>,
    frames: Frames,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Watched<I> {
    pub(super) fn new(io: I, connected: Arc<Connected>) -> Watched<I> {
        let frames = Frames::new(connected.limits());
        Watched { io, connected, frames }
    }

    fn wrote(&mut self, polled: &Poll<io::Result<usize>>, slices: &[io::IoSlice<'_>]) {
        self.connected.activity.wrote(polled.is_pending());
        let Poll::Ready(Ok(mut written)) = *polled else { return };
        for slice in slices {
            let taken = written.min(slice.len());
            self.frames.sent(&slice[..taken]);
            written -= taken;
        }
    }

    /// Tells the client why, if nothing is half written and the socket takes it at once.
    fn go_away(&mut self, cx: &mut Context<'_>) -> io::Error {
        self.connected.cut(Cut::Frames);
        if let Some(frame) = self.frames.go_away()
            && matches!(Pin::new(&mut self.io).poll_write(cx, &frame), Poll::Ready(Ok(_)))
        {
            let _ = Pin::new(&mut self.io).poll_flush(cx);
        }
        io::Error::other("the client sent too many HTTP/2 frames that carry nothing")
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let read = &buf.filled()[before..];
        if !read.is_empty() {
            self.connected.activity.read_some();
            if !self.frames.received(read) {
                return Poll::Ready(Err(self.go_away(cx)));
            }
        }
        polled
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(&polled, &[io::IoSlice::new(buf)]);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(&polled, bufs);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
