//! Log probabilities: invented, stable for a token, in the two shapes that the API has.

use serde_json::{Map, Value, json};

use super::call::Part;
use crate::text::decode;

/// The probability of a token, and of the alternatives after it: made from its id.
fn logprob(token: u32, rank: usize) -> f64 {
    -0.05 - f64::from(token % 97) / 100.0 - rank as f64 * 1.5
}

/// A token other than the one chosen.
fn alternative(token: u32, rank: usize) -> u32 {
    1_000 + (token.wrapping_mul(31).wrapping_add(rank as u32 * 7)) % 400
}

/// Chat: one entry for each of the tokens `from..to`, with `top` alternatives.
pub(crate) fn chat(part: &Part, from: usize, to: usize, top: usize) -> Value {
    let entry = |token: u32, rank: usize| {
        let text = decode(&[token]);
        json!({"token": text, "logprob": logprob(token, rank), "bytes": text.as_bytes()})
    };
    let content: Vec<Value> = part.script.tokens[from..to]
        .iter()
        .map(|token| {
            let mut chosen = entry(*token, 0);
            let others =
                (0..top).map(|rank| if rank == 0 { entry(*token, 0) } else { entry(alternative(*token, rank), rank) });
            chosen["top_logprobs"] = others.collect();
            chosen
        })
        .collect();
    json!({"content": content})
}

/// Completions: parallel lists; `prompt` tokens come first when they are echoed.
pub(crate) fn completion(tokens: &[u32], echoed: bool, top: usize, mut offset: usize) -> Value {
    let (mut offsets, mut probabilities, mut texts, mut tops) = (vec![], vec![], vec![], vec![]);
    for (at, token) in tokens.iter().enumerate() {
        let text = decode(&[*token]);
        let first = echoed && at == 0;
        offsets.push(offset);
        offset += text.chars().count();
        probabilities.push(if first { Value::Null } else { json!(logprob(*token, 0)) });
        tops.push(if first { Value::Null } else { Value::Object(top_map(*token, &text, top)) });
        texts.push(text);
    }
    json!({"text_offset": offsets, "token_logprobs": probabilities, "tokens": texts, "top_logprobs": tops})
}

fn top_map(token: u32, text: &str, top: usize) -> Map<String, Value> {
    let others = (1..top.max(1)).map(|rank| (decode(&[alternative(token, rank)]), json!(logprob(token, rank))));
    std::iter::once((text.to_owned(), json!(logprob(token, 0)))).chain(others).collect()
}

/// `prompt_logprobs`: null for the first token, then the token itself and the likeliest one.
pub(crate) fn prompt(tokens: &[u32]) -> Value {
    let entry = |token: u32, rank: usize| json!({"logprob": logprob(token, rank), "rank": rank, "decoded_token": decode(&[token])});
    tokens
        .iter()
        .enumerate()
        .map(|(at, token)| {
            if at == 0 {
                return Value::Null;
            }
            let likeliest = alternative(*token, 1);
            let mut map = Map::new();
            map.insert(token.to_string(), entry(*token, 2));
            map.insert(likeliest.to_string(), entry(likeliest, 1));
            Value::Object(map)
        })
        .collect()
}
