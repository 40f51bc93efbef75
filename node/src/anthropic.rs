//! What Anthropic's clients expect wherever they ask: error objects, and models in their own form.

use axum::extract::Query;
use http::{HeaderMap, StatusCode, Uri};
use raft::Timestamp;
use serde_json::{Value, json};

/// Items of a page unless the client says otherwise, and the most it may ask for.
const PAGE: usize = 20;
const PAGE_MAX: usize = 1000;

/// Whether a client is one of Anthropic's: each request of theirs names the version of the API.
pub(crate) fn asks(headers: &HeaderMap) -> bool {
    headers.contains_key("anthropic-version")
}

/// `error.type`, by status.
pub(crate) fn error_kind(status: StatusCode) -> &'static str {
    /// "Overloaded", which has no name elsewhere.
    const OVERLOADED: u16 = 529;
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::PAYMENT_REQUIRED => "billing_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::CONFLICT => "conflict_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        StatusCode::GATEWAY_TIMEOUT => "timeout_error",
        status if status.as_u16() == OVERLOADED => "overloaded_error",
        status if status.is_server_error() => "api_error",
        _ => "invalid_request_error",
    }
}

/// The types of error that the clients know.
const ERROR_KINDS: [&str; 11] = [
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "conflict_error",
    "request_too_large",
    "rate_limit_error",
    "api_error",
    "overloaded_error",
    "timeout_error",
];

/// `kind`, if it is a type of error that the clients know.
pub(crate) fn known_error_kind(kind: &str) -> Option<&'static str> {
    ERROR_KINDS.into_iter().find(|known| *known == kind)
}

/// The body of an error, and the data of an error event.
pub(crate) fn error(kind: &str, message: &str, request_id: &str) -> Value {
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id})
}

/// A model, from the item of an OpenAI list.
pub(crate) fn model(item: &Value) -> Value {
    let created = Timestamp(item["created"].as_u64().unwrap_or(0).saturating_mul(1000));
    let name = item["modelDetails"]["displayName"].as_str().or(item["id"].as_str());
    json!({
        "type": "model",
        "id": item["id"],
        "display_name": name,
        "created_at": created.to_string(),
        "lifecycle": "active",
    })
}

/// The page that the query of `uri` asks for (`limit`, and `after_id` or `before_id`) of these items of an OpenAI list. Errors: what is wrong
/// with the query.
pub(crate) fn page(items: &[Value], uri: &Uri) -> Result<Value, String> {
    let Query(query) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| error.to_string())?;
    let (mut limit, mut rest) = (PAGE, items);
    let mut is_backward = false;
    for (name, value) in query.into_iter().filter(|(_, value)| !value.is_empty()) {
        let place = || {
            let found = items.iter().position(|item| item["id"] == value.as_str());
            found.ok_or_else(|| format!("{name}: no model of this list has the id `{}`", value.escape_default()))
        };
        match name.as_str() {
            "limit" => {
                let number = value.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
                limit = number.ok_or_else(|| format!("limit: write a number from 1 to {PAGE_MAX}"))?;
            }
            "after_id" => rest = &items[place()? + 1..],
            "before_id" => (rest, is_backward) = (&items[..place()?], true),
            _ => {}
        }
    }
    let page = if is_backward { &rest[rest.len().saturating_sub(limit)..] } else { &rest[..rest.len().min(limit)] };
    let data: Vec<Value> = page.iter().map(model).collect();
    let id = |model: Option<&Value>| model.map(|model| model["id"].clone());
    Ok(json!({
        "first_id": id(data.first()),
        "last_id": id(data.last()),
        "has_more": page.len() < rest.len(),
        "data": data,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_type_of_their_status() {
        let table = [
            (400, "invalid_request_error"),
            (401, "authentication_error"),
            (402, "billing_error"),
            (403, "permission_error"),
            (404, "not_found_error"),
            (405, "invalid_request_error"),
            (409, "conflict_error"),
            (413, "request_too_large"),
            (422, "invalid_request_error"),
            (429, "rate_limit_error"),
            (500, "api_error"),
            (502, "api_error"),
            (503, "overloaded_error"),
            (504, "timeout_error"),
            (529, "overloaded_error"),
        ];
        for (status, kind) in table {
            assert_eq!(error_kind(StatusCode::from_u16(status).unwrap()), kind, "{status}");
            assert_eq!(known_error_kind(kind), Some(kind));
        }
        assert_eq!(known_error_kind("internal_error"), None, "vLLM says this");
    }

    #[test]
    fn pages_go_forward_and_backward() {
        let items: Vec<Value> = ["a", "b", "c", "d"].iter().map(|id| json!({"id": id, "created": 0})).collect();
        let table = [
            ("", "abcd false"),
            ("limit=2", "ab true"),
            ("limit=2&after_id=b", "cd false"),
            ("after_id=d", " false"),
            ("limit=2&before_id=d", "bc true"),
            ("before_id=b&limit=3", "a false"),
        ];
        for (query, expected) in table {
            let page = page(&items, &format!("/v1/models?{query}").parse().unwrap()).unwrap();
            let ids: String =
                page["data"].as_array().unwrap().iter().filter_map(|model| model["id"].as_str()).collect();
            assert_eq!(format!("{ids} {}", page["has_more"]), expected, "{query}");
            assert_eq!(page["first_id"].as_str().unwrap_or_default(), ids.get(..1).unwrap_or_default(), "{query}");
        }
        for wrong in ["limit=0", "limit=1001", "limit=x", "after_id=e"] {
            assert!(page(&items, &format!("/v1/models?{wrong}").parse().unwrap()).is_err(), "{wrong}");
        }
    }
}
