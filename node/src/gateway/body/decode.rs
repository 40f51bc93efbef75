//! Bodies that are sent compressed (`Content-Encoding`, RFC 9110, section 8.4): decoded in steps, and never beyond the size that
//! a plain body may have.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::{Buf, Bytes};
use http::{HeaderMap, header};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, ReadBuf};

use super::budget::BodyHold;
use crate::accept::BodyError;
use crate::gateway::refusal::Refusal;

/// What is decoded, as `Accept-Encoding` says it.
pub(in crate::gateway) const ACCEPTED: &str = "zstd, gzip, deflate, br";

/// Codings on top of one another. More than one is rare, and each costs a pass.
const CODINGS_MAX: usize = 2;
/// So many bytes are taken, and at most so many are made, before other calls have a turn.
const STEP: usize = 16 * 1024;
/// A zstd body wants no larger window than this, two to the power of it (RFC 9659, section 3).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Coding {
    Zstd,
    Gzip,
    Deflate,
    Brotli,
}

/// The codings of a body in the order in which they were applied. Errors: one is not known here, or they are too many.
pub(super) fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, Refusal> {
    let mut codings = Vec::new();
    for line in headers.get_all(header::CONTENT_ENCODING) {
        let line = line.to_str().map_err(|_| Refusal::UnknownCoding)?;
        for name in line.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name.to_ascii_lowercase().as_str() {
                "identity" => {}
                "zstd" => codings.push(Coding::Zstd),
                "gzip" | "x-gzip" => codings.push(Coding::Gzip),
                "deflate" => codings.push(Coding::Deflate),
                "br" => codings.push(Coding::Brotli),
                _ => return Err(Refusal::UnknownCoding),
            }
        }
    }
    if codings.len() > CODINGS_MAX { Err(Refusal::UnknownCoding) } else { Ok(codings) }
}

/// Decodes `bytes`, the last coding first. Errors: they are not what their coding says, or more than `limit` bytes come out.
pub(super) async fn decode(
    codings: &[Coding],
    mut bytes: Bytes,
    limit: usize,
    hold: &mut BodyHold,
) -> Result<Bytes, Refusal> {
    for coding in codings.iter().rev() {
        let coded = bytes.len();
        let input = Input { left: bytes, turn: STEP };
        bytes = match coding {
            Coding::Zstd => {
                let parameters = [DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX)];
                let mut decoder = ZstdDecoder::with_params(input, &parameters);
                decoder.multiple_members(true);
                read(decoder, coded, limit, hold).await
            }
            Coding::Gzip => {
                let mut decoder = GzipDecoder::new(input);
                decoder.multiple_members(true);
                read(decoder, coded, limit, hold).await
            }
            Coding::Deflate => read(ZlibDecoder::new(input), coded, limit, hold).await,
            Coding::Brotli => read(BrotliDecoder::new(input), coded, limit, hold).await,
        }?;
    }
    Ok(bytes)
}

/// Of `coded` bytes.
async fn read(
    mut decoder: impl AsyncRead + Unpin,
    coded: usize,
    limit: usize,
    hold: &mut BodyHold,
) -> Result<Bytes, Refusal> {
    let mut whole = Vec::new();
    let mut step = vec![0; STEP];
    loop {
        let made = decoder
            .read(&mut step)
            .await
            .map_err(|_| Refusal::body("the request body is not what its Content-Encoding says"))?;
        if made == 0 {
            return Ok(Bytes::from(whole));
        }
        if whole.len() + made > limit {
            return Err(BodyError::TooLarge { limit }.into());
        }
        if whole.len() + made > whole.capacity() {
            let capacity = (2 * whole.capacity()).max(whole.len() + made).min(limit);
            // The body before and after decoding, and what goes to a replica.
            hold.grow_to(coded + 2 * capacity).await?;
            whole.reserve_exact(capacity - whole.len());
        }
        whole.extend_from_slice(&step[..made]);
        tokio::task::yield_now().await;
    }
}

/// What is left to be decoded: after each step it lets others have their turn, also where nothing comes out.
struct Input {
    left: Bytes,
    /// Of this turn.
    turn: usize,
}

impl AsyncBufRead for Input {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let input = self.get_mut();
        if input.turn == 0 {
            input.turn = STEP;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let length = input.left.len().min(input.turn);
        Poll::Ready(Ok(&input.left[..length]))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let input = self.get_mut();
        input.left.advance(amount);
        input.turn -= amount.min(input.turn);
    }
}

impl AsyncRead for Input {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let length = match self.as_mut().poll_fill_buf(cx)? {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(bytes) => {
                let length = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..length]);
                length
            }
        };
        self.consume(length);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
    use http::HeaderValue;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::gateway::body::BodyBudget;

    const LIMIT: usize = 1024 * 1024;

    async fn encoded(coding: Coding, plain: &[u8]) -> Vec<u8> {
        macro_rules! encode {
            ($encoder:ident) => {{
                let mut encoder = $encoder::new(Vec::new());
                encoder.write_all(plain).await.unwrap();
                encoder.shutdown().await.unwrap();
                encoder.into_inner()
            }};
        }
        match coding {
            Coding::Zstd => encode!(ZstdEncoder),
            Coding::Gzip => encode!(GzipEncoder),
            Coding::Deflate => encode!(ZlibEncoder),
            Coding::Brotli => encode!(BrotliEncoder),
        }
    }

    async fn decoded(codings: &[Coding], bytes: Vec<u8>) -> Result<Bytes, Refusal> {
        let mut hold = BodyBudget::new(16 * LIMIT).open("ann");
        let decoding = decode(codings, Bytes::from(bytes), LIMIT, &mut hold);
        tokio::time::timeout(Duration::from_secs(20), decoding).await.expect("it ends")
    }

    const ALL: [Coding; 4] = [Coding::Zstd, Coding::Gzip, Coding::Deflate, Coding::Brotli];

    #[tokio::test]
    async fn what_was_encoded_is_decoded() {
        let text = (0..20_000).map(|number| format!("{number},")).collect::<String>().into_bytes();
        for coding in ALL {
            for plain in [&b""[..], b"{}", &text] {
                let bytes = encoded(coding, plain).await;
                assert_eq!(decoded(&[coding], bytes).await.unwrap(), plain, "{coding:?}");
            }
            let both = encoded(Coding::Zstd, &encoded(coding, &text).await).await;
            assert_eq!(decoded(&[coding, Coding::Zstd], both).await.unwrap(), text, "zstd over {coding:?}");
        }
        // Members one after the other are one body (RFC 1952, section 2.2; RFC 8878, section 3.1).
        for coding in [Coding::Gzip, Coding::Zstd] {
            let twice = [encoded(coding, b"{\"a\":").await, encoded(coding, b"1}").await].concat();
            assert_eq!(decoded(&[coding], twice).await.unwrap(), &b"{\"a\":1}"[..], "{coding:?}");
        }
    }

    #[tokio::test]
    async fn a_bomb_is_refused_at_the_limit_and_garbage_at_once() {
        let bomb = vec![b' '; 64 * LIMIT];
        for coding in ALL {
            let bytes = encoded(coding, &bomb).await;
            assert!(bytes.len() < LIMIT, "{coding:?}: {}", bytes.len());
            let refused = decoded(&[coding], bytes).await.unwrap_err();
            assert!(matches!(refused, Refusal::Body(BodyError::TooLarge { limit: LIMIT })), "{coding:?}: {refused}");
            let mut cut = encoded(coding, &bomb[..LIMIT / 2]).await;
            cut.truncate(cut.len() / 2);
            for garbage in [cut, b"{\"model\":\"m\"}".to_vec()] {
                let refused = decoded(&[coding], garbage).await.unwrap_err();
                assert!(matches!(refused, Refusal::InvalidBody { .. }), "{coding:?}: {refused}");
            }
        }
        // Nothing ever comes out of it.
        let empty = encoded(Coding::Gzip, b"").await.repeat(20_000);
        assert_eq!(decoded(&[Coding::Gzip], empty).await.unwrap(), &b""[..]);
    }

    #[test]
    fn codings_are_named_in_the_order_in_which_they_were_applied() {
        let read = |lines: &[&'static str]| {
            let line = |line: &&'static str| (header::CONTENT_ENCODING, HeaderValue::from_static(line));
            codings(&lines.iter().map(line).collect())
        };
        let table: [(&[&str], &[Coding]); 5] = [
            (&[], &[]),
            (&["identity"], &[]),
            (&["GZip"], &[Coding::Gzip]),
            (&["x-gzip, zstd"], &[Coding::Gzip, Coding::Zstd]),
            (&["br", "deflate"], &[Coding::Brotli, Coding::Deflate]),
        ];
        for (lines, expected) in table {
            assert_eq!(read(lines).unwrap(), expected, "{lines:?}");
        }
        for lines in [&["compress"][..], &["gzip, gzip, gzip"], &["gzip;q=1"], &["*"]] {
            assert!(matches!(read(lines), Err(Refusal::UnknownCoding)), "{lines:?}");
        }
    }
}
