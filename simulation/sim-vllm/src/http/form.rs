//! Reading a form (`multipart/form-data`): its texts as fields, and its file.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::{StatusCode, request::Parts};
use hyper::body::Incoming;
use multer::Multipart;
use serde_json::{Map, Value};

use super::{
    ReadBody,
    body::Cut,
    errors::{ApiError, detail},
    header, read as read_all,
    respond::Answer,
};

/// Reads a form, or answers why not.
pub(super) async fn read(head: &Parts, body: Incoming) -> Result<ReadBody, Cut> {
    let content_type = header(head, "content-type").unwrap_or_default();
    let Ok(boundary) = multer::parse_boundary(content_type) else {
        let missing = ApiError::invalid("body.file", "Field required");
        return Ok(Err(Answer::json(missing.status, &missing.openai())));
    };
    let bytes = read_all(body).await?;
    Ok(parse(bytes, boundary)
        .await
        .map_err(|_| Answer::json(StatusCode::BAD_REQUEST, &detail("There was an error parsing the body"))))
}

async fn parse(bytes: Bytes, boundary: String) -> Result<(Map<String, Value>, Option<Bytes>), multer::Error> {
    let whole = stream::iter([Ok::<Bytes, Infallible>(bytes)]);
    let mut form = Multipart::new(whole, boundary);
    let (mut fields, mut file) = (Map::new(), None);
    while let Some(part) = form.next_field().await? {
        let name = part.name().unwrap_or_default().to_owned();
        if part.file_name().is_some() {
            let bytes = part.bytes().await?;
            if name == "file" {
                file = Some(bytes);
            }
        } else {
            fields.insert(name, part.text().await?.into());
        }
    }
    Ok((fields, file))
}
