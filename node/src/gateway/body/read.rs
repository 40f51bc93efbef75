//! Reads a request body whole, decoded, and within the room for bodies.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body as _;
use http_body_util::BodyExt;

use super::budget::BodyHold;
use super::decode::{codings, decode};
use crate::accept;
use crate::gateway::refusal::Refusal;

/// A discarded body is read on for this long at most, so that a client that is still sending gets to see its refusal.
const DISCARD: std::time::Duration = std::time::Duration::from_secs(1);

/// Reads the whole body and undoes its codings. `hold` grows by what is kept, and by as much again for what goes to a replica.
pub(in crate::gateway) async fn read(
    mut body: accept::Body,
    headers: &HeaderMap,
    hold: &mut BodyHold,
) -> Result<Bytes, Refusal> {
    let codings = codings(headers)?;
    let limit = body.limit();
    let bytes = match read_as_sent(&mut body, hold).await {
        Err(refusal @ (Refusal::NoRoom | Refusal::Body(accept::BodyError::TooLarge { .. }))) => {
            body.discard(DISCARD).await;
            return Err(refusal);
        }
        read => read?,
    };
    if codings.is_empty() { Ok(bytes) } else { decode(&codings, bytes, limit, hold).await }
}

async fn read_as_sent(body: &mut accept::Body, hold: &mut BodyHold) -> Result<Bytes, Refusal> {
    // A length beyond the limit is refused by the first piece.
    let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let length = length.filter(|length| *length <= body.limit()).unwrap_or(0);
    // All of it at once, so that no two bodies that are half here wait for one another.
    hold.grow_to(2 * length).await?;
    let Some(first) = next_data(body).await? else { return Ok(Bytes::new()) };
    let Some(second) = next_data(body).await? else { return Ok(first) };
    let mut whole = BytesMut::new();
    let mut pieces = [first, second].into_iter();
    loop {
        let Some(piece) = (match pieces.next() {
            Some(piece) => Some(piece),
            None => next_data(body).await?,
        }) else {
            return Ok(whole.freeze());
        };
        let needed = whole.len() + piece.len();
        if needed > whole.capacity() {
            let capacity = needed.max(2 * whole.capacity()).max(length);
            hold.grow_to(2 * capacity).await?;
            whole.reserve(capacity - whole.len());
        }
        whole.extend_from_slice(&piece);
    }
}

async fn next_data(body: &mut accept::Body) -> Result<Option<Bytes>, Refusal> {
    loop {
        if body.is_end_stream() {
            return Ok(None);
        }
        match body.frame().await {
            None => return Ok(None),
            Some(frame) => match frame?.into_data() {
                Ok(data) => return Ok(Some(data)),
                Err(_trailers) => {}
            },
        }
    }
}
