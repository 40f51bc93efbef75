//! Reads a request body whole.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use crate::accept;
use crate::gateway::refusal::Refusal;

/// A discarded body is read on for this long at most, so that a client that is still sending gets to see its refusal.
const DISCARD: std::time::Duration = std::time::Duration::from_secs(1);

/// Reads the whole body.
pub(in crate::gateway) async fn read(mut body: accept::Body) -> Result<Bytes, Refusal> {
    let Some(first) = next_data(&mut body).await? else { return Ok(Bytes::new()) };
    let Some(second) = next_data(&mut body).await? else { return Ok(first) };
    let mut whole = BytesMut::with_capacity((first.len() + second.len()) * 2);
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&second);
    while let Some(piece) = next_data(&mut body).await? {
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

async fn next_data(body: &mut accept::Body) -> Result<Option<Bytes>, Refusal> {
    loop {
        if http_body::Body::is_end_stream(body) {
            return Ok(None);
        }
        match body.frame().await {
            None => return Ok(None),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => return Ok(Some(data)),
                Err(_trailers) => {}
            },
            Some(Err(error)) => {
                if matches!(error, accept::BodyError::TooLarge { .. }) {
                    body.discard(DISCARD).await;
                }
                return Err(error.into());
            }
        }
    }
}
