//! What an embedding model serves: `/v1/embeddings`, `/pooling`, score and rerank.
//!
//! A vector is made of the tokens of its text, so texts that share words are near each other.

use std::fmt::Write;

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    Reply,
    call::Call,
    completions::read_prompts,
    errors::ApiError,
    numbers::Numbers,
    template::{read_messages, render},
};
use crate::{
    chance::Chance,
    config::Kind,
    engine::{Job, output::Ending},
    text::encode,
};

/// Coordinates that one token moves.
const COORDINATES: usize = 12;

/// Answers an embedding request.
///
/// # Errors
/// As vLLM refuses it.
pub(crate) async fn embed(call: Call) -> Result<Reply, ApiError> {
    vectors(&call, "embd", "embedding", "embedding").await
}

/// Answers a pooling request: what the model makes of each prompt, whatever that is. Here it is the same as an embedding.
///
/// # Errors
/// As vLLM refuses it.
pub(crate) async fn pool(call: Call) -> Result<Reply, ApiError> {
    vectors(&call, "pool", "pooling", "data").await
}

/// One vector for each prompt, as an `object` that has it under `key`.
async fn vectors(call: &Call, prefix: &str, object: &str, key: &str) -> Result<Reply, ApiError> {
    let fields = call.fields();
    let prompts = if fields.get("messages").is_some() {
        vec![render(&read_messages(fields, call.sight())?, None, false)]
    } else {
        read_prompts(fields.get("input")).map_err(|error| match error.param.as_deref() {
            Some("prompt" | "body.prompt") => ApiError::invalid("body.input", "Field required"),
            _ => error,
        })?
    };
    call.check_model()?;
    let format = fields.text("encoding_format")?.unwrap_or("float");
    if !["float", "base64", "bytes", "bytes_only"].contains(&format) {
        let wrong = "Input should be 'float', 'base64', 'bytes' or 'bytes_only'";
        return Err(ApiError::invalid("body.encoding_format", wrong));
    }
    let numbers = Numbers::read(fields)?;
    let whole = dimensions(call)?;
    let wanted = fields.int("dimensions")?.unwrap_or(whole as i64);
    if wanted < 1 || wanted as usize > whole {
        return Err(ApiError::bad(format!("dimensions must be between 1 and {whole}, got {wanted}.")));
    }
    let id = call.id(prefix);
    let tokens = read_all(call, &id, &prompts).await?;
    let vectors = prompts.iter().map(|prompt| vector(call, prompt, wanted as usize));
    if let "bytes" | "bytes_only" = format {
        let (mut pieces, mut items, mut start) = (Vec::new(), Vec::new(), 0);
        for (index, vector) in vectors.enumerate() {
            let bytes = numbers.write(&vector);
            let end = start + bytes.len();
            items.push(json!({
                "index": index, "embed_dtype": numbers.dtype, "endianness": numbers.endianness, "start": start,
                "end": end, "shape": [vector.len()],
            }));
            pieces.push(bytes.into());
            start = end;
        }
        let metadata = json!({
            "id": id, "created": call.shared.unix_seconds(), "model": call.shared.config.model(), "data": items,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        });
        return Ok(Reply::Bytes((format == "bytes").then_some(metadata), pieces));
    }
    let data: Vec<Value> = vectors
        .enumerate()
        .map(|(index, vector)| {
            let vector =
                if format == "base64" { Value::from(to_base64(&numbers.write(&vector))) } else { json!(vector) };
            json!({"index": index, "object": object, key: vector})
        })
        .collect();
    Ok(Reply::Json(json!({
        "id": id, "object": "list", "created": call.shared.unix_seconds(), "model": call.shared.config.model(),
        "data": data, "usage": usage(tokens),
    })))
}

/// Answers a score request: `text_1` against each of `text_2`.
///
/// # Errors
/// As vLLM refuses it.
pub(crate) async fn score(call: Call) -> Result<Reply, ApiError> {
    let fields = call.fields();
    let first = required(fields.texts("text_1")?, "body.text_1")?;
    let second = required(fields.texts("text_2")?, "body.text_2")?;
    call.check_model()?;
    if first.len() != 1 && first.len() != second.len() {
        return Err(ApiError::bad("Input lengths must be either 1:1, 1:N or N:N"));
    }
    let id = call.id("score");
    let pairs: Vec<(String, String)> =
        second.into_iter().enumerate().map(|(at, text)| (first[at.min(first.len() - 1)].clone(), text)).collect();
    let (scores, tokens) = compare(&call, &id, &pairs).await?;
    let data: Vec<Value> = scores
        .iter()
        .enumerate()
        .map(|(index, score)| json!({"index": index, "object": "score", "score": score}))
        .collect();
    Ok(Reply::Json(json!({
        "id": id, "object": "list", "created": call.shared.unix_seconds(), "model": call.shared.config.model(),
        "data": data, "usage": usage(tokens),
    })))
}

/// Answers a rerank request: `documents` by likeness to `query`, best first.
///
/// # Errors
/// As vLLM refuses it.
pub(crate) async fn rerank(call: Call) -> Result<Reply, ApiError> {
    let fields = call.fields();
    let query = fields.text("query")?.ok_or_else(|| ApiError::invalid("body.query", "Field required"))?.to_owned();
    let documents = required(fields.texts("documents")?, "body.documents")?;
    call.check_model()?;
    let top = fields.int("top_n")?.filter(|top| *top > 0).map_or(documents.len(), |top| top as usize);
    let id = call.id("rerank");
    let pairs: Vec<(String, String)> = documents.iter().map(|text| (query.clone(), text.clone())).collect();
    let (scores, tokens) = compare(&call, &id, &pairs).await?;
    let mut order: Vec<usize> = (0..documents.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let results: Vec<Value> = order
        .into_iter()
        .take(top)
        .map(|at| json!({"index": at, "document": {"text": documents[at], "multi_modal": null}, "relevance_score": scores[at]}))
        .collect();
    Ok(Reply::Json(json!({
        "id": id, "model": call.shared.config.model(), "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "results": results,
    })))
}

fn required(texts: Vec<String>, place: &str) -> Result<Vec<String>, ApiError> {
    if texts.is_empty() { Err(ApiError::invalid(place, "Field required")) } else { Ok(texts) }
}

fn dimensions(call: &Call) -> Result<usize, ApiError> {
    match call.shared.config.kind {
        Kind::Embedding { dimensions, .. } => Ok(dimensions),
        Kind::Generative { .. } => {
            Err(ApiError::status(StatusCode::NOT_FOUND, "The model does not support Embeddings API"))
        }
    }
}

/// The likeness of each pair, and the tokens that were read.
async fn compare(call: &Call, id: &str, pairs: &[(String, String)]) -> Result<(Vec<f64>, usize), ApiError> {
    let length = dimensions(call)?;
    let texts: Vec<(Vec<u32>, Vec<u32>)> = pairs.iter().map(|(a, b)| (encode(a), encode(b))).collect();
    let joined: Vec<Vec<u32>> = texts.iter().map(|(a, b)| [a.as_slice(), b.as_slice()].concat()).collect();
    let tokens = read_all(call, id, &joined).await?;
    let scores = texts
        .iter()
        .map(|(a, b)| {
            let (a, b) = (vector(call, a, length), vector(call, b, length));
            a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        })
        .collect();
    Ok((scores, tokens))
}

/// Lets the engine read the prompts; returns how many tokens they are.
async fn read_all(call: &Call, id: &str, prompts: &[Vec<u32>]) -> Result<usize, ApiError> {
    let context = call.shared.config.context_len();
    for prompt in prompts {
        if prompt.len() > context || prompt.is_empty() {
            let length = prompt.len();
            let message = format!(
                "This model's maximum context length is {context} tokens. However, you requested {length} tokens in the \
                 input for embedding generation. Please reduce the length of the input."
            );
            return Err(ApiError::bad(message));
        }
    }
    if call.shared.engine.is_dead() {
        return Err(ApiError::engine_died());
    }
    let job = |prompt: &Vec<u32>| Job {
        request_id: id.to_owned(),
        client_id: call.client_id.clone(),
        prompt: prompt.clone(),
        output: Vec::new(),
        salt: 0,
        priority: 0,
        max_tokens: 1,
        ends_by_length: false,
    };
    let mut readings: Vec<_> = prompts.iter().map(|prompt| call.shared.engine.submit(job(prompt))).collect();
    for reading in &mut readings {
        if reading.finished().await.ending != Some(Ending::Complete) {
            return Err(ApiError::engine_died());
        }
    }
    Ok(prompts.iter().map(Vec::len).sum())
}

fn usage(tokens: usize) -> Value {
    json!({"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": null})
}

/// A unit vector: every token moves a few coordinates that its id decides.
fn vector(call: &Call, tokens: &[u32], length: usize) -> Vec<f32> {
    let mut vector = vec![0.0f32; length];
    for token in tokens {
        let mut chance = Chance::new(call.shared.config.seed ^ (u64::from(*token) << 20));
        for _ in 0..COORDINATES {
            vector[chance.between(0, length - 1)] += (chance.unit() * 2.0 - 1.0) as f32;
        }
    }
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.iter_mut().for_each(|value| *value /= norm);
    vector
}

/// Bytes in base 64.
fn to_base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let joined = group.iter().fold(0u32, |joined, byte| joined << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            text.push(DIGITS[(joined >> (18 - 6 * digit) & 63) as usize] as char);
        }
        let _ = write!(text, "{}", &"=="[..3 - group.len()]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::to_base64;

    #[test]
    fn base64_is_that_of_everybody() {
        // 1.0 is 00 00 80 3f, -2.0 is 00 00 00 c0.
        let (one, two) = ([0, 0, 0x80, 0x3f], [0, 0, 0, 0xc0]);
        assert_eq!(to_base64(&one), "AACAPw==");
        assert_eq!(to_base64(&[one, two].concat()), "AACAPwAAAMA=");
        assert_eq!(to_base64(&[one, one, one].concat()), "AACAPwAAgD8AAIA/");
    }
}
