//! The small endpoints: models, tokenizer, health, load, version.

use serde_json::{Value, json};

use super::{
    Reply,
    call::Call,
    errors::ApiError,
    fields::Fields,
    pictures::Sight,
    template::{read_messages, render},
};
use crate::{
    replica::Shared,
    text::{decode, encode, is_token},
};

/// The version that the recordings were made with.
const VERSION: &str = "0.26.0";

/// `GET /v1/models`.
pub(crate) fn list(shared: &Shared) -> Value {
    let created = shared.unix_seconds();
    let models: Vec<Value> = shared
        .config
        .model_names
        .iter()
        .map(|name| {
            let permission = json!({
                "id": format!("modelperm-{}", shared.hex()), "object": "model_permission", "created": created,
                "allow_create_engine": false, "allow_sampling": true, "allow_logprobs": true,
                "allow_search_indices": false, "allow_view": true, "allow_fine_tuning": false, "organization": "*",
                "group": null, "is_blocking": false,
            });
            json!({
                "id": name, "object": "model", "created": created, "owned_by": "vllm",
                "root": format!("/models/{}", shared.config.model()), "parent": null,
                "max_model_len": shared.config.context_len(), "permission": [permission],
            })
        })
        .collect();
    json!({"object": "list", "data": models})
}

/// `GET /version`.
pub(crate) fn version() -> Value {
    json!({"version": VERSION})
}

/// `GET /load`: calls in progress, where they are counted.
pub(crate) fn load(shared: &Shared) -> Value {
    json!({"server_load": if shared.config.enable_server_load_tracking { shared.engine.open() } else { 0 }})
}

/// The tokens of the prompt of a body (`messages`, `prompt`, or `query` with `documents`), as a replica counts them; `None` if it is none.
pub fn prompt_tokens(body: &Value) -> Option<usize> {
    let fields = Fields(body.as_object()?);
    if let Some(query) = fields.text("query").ok()? {
        let documents = fields.texts("documents").ok()?;
        return Some(documents.iter().map(|document| encode(query).len() + encode(document).len()).sum());
    }
    if fields.get("prompt").is_some() {
        return Some(fields.texts("prompt").ok()?.iter().map(|prompt| encode(prompt).len()).sum());
    }
    let messages = read_messages(fields, Sight::none()).ok()?;
    Some(render(&messages, fields.get("tools"), false).len())
}

/// `POST /tokenize`: a prompt, or messages under the chat template.
///
/// # Errors
/// Neither is there.
pub(crate) fn tokenize(call: &Call) -> Result<Reply, ApiError> {
    let fields = call.fields();
    call.check_model()?;
    let tokens = match fields.text("prompt")? {
        Some(prompt) => encode(prompt),
        None => render(&read_messages(fields, call.sight())?, None, false),
    };
    let strings =
        fields.flag("return_token_strs")?.then(|| tokens.iter().map(|token| decode(&[*token])).collect::<Vec<_>>());
    Ok(Reply::Json(json!({
        "count": tokens.len(), "max_model_len": call.shared.config.context_len(), "tokens": tokens, "token_strs": strings,
    })))
}

/// `POST /detokenize`: unknown ids print as nothing.
///
/// # Errors
/// `tokens` is missing or no list.
pub(crate) fn detokenize(call: &Call) -> Result<Reply, ApiError> {
    call.check_model()?;
    let Some(values) = call.fields().list("tokens")? else {
        return Err(ApiError::invalid("body.tokens", "Field required"));
    };
    let tokens: Vec<u32> =
        values.iter().filter_map(Value::as_u64).filter(|id| is_token(*id)).map(|id| id as u32).collect();
    Ok(Reply::Json(json!({"prompt": decode(&tokens)})))
}
