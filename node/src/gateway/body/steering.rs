//! Fields that steer the engine and not the answer: what a replica gets of them is the gateway's, and what an administrator lets
//! callers of the model set.

use actors::Permit;
use raft::resources::CacheIsolation;
use sha2::{Digest, Sha256};

use super::CallBody;
use super::fields::{Field, Role};
use crate::gateway::endpoint::{Endpoint, Kind};

const PRIORITY: &str = "priority";
const CACHE_SALT: &str = "cache_salt";

/// What steers the engine for one call. The default lets nothing through and adds nothing.
#[derive(Clone, Debug, Default)]
pub(in crate::gateway) struct Steering {
    /// Fields that the caller may set.
    allowed: Vec<&'static str>,
    /// The subscription's.
    priority: Option<i32>,
    /// The subscription's or the user's. Never empty.
    salt: Option<String>,
    /// Whether the replica's request type has both of them.
    has_fields: bool,
}

impl Steering {
    /// For a call of `permit`.
    pub(in crate::gateway) fn of(permit: &Permit, endpoint: &Endpoint) -> Steering {
        let access = permit.subscription();
        let subscription = access.id.to_string();
        let salt = match access.cache_isolation {
            CacheIsolation::None => None,
            CacheIsolation::Subscription => Some(salt(&[&subscription])),
            CacheIsolation::User => Some(salt(&[&subscription, permit.caller().user()])),
        };
        Steering {
            allowed: permit.model().allowed_fields.clone(),
            priority: access.engine_priority,
            salt,
            has_fields: matches!(endpoint.kind, Kind::Chat | Kind::ChatBatch | Kind::Completions | Kind::Responses),
        }
    }

    /// The priority that a replica is told, if it is.
    pub(in crate::gateway) fn priority(&self) -> Option<i32> {
        self.priority
    }

    /// What keeps cached prefixes of this call apart from others', as the replica gets it; empty if nothing does.
    pub(in crate::gateway) fn salt<'a>(&'a self, body: &'a CallBody) -> &'a str {
        match (&self.salt, body.fields.get(CACHE_SALT)) {
            (Some(salt), _) if self.has_fields => salt,
            (_, Some(field)) if self.keeps(field, body) => body.text(field),
            _ => "",
        }
    }

    /// The fields that a replica does not get as the caller wrote them, in the order of the body.
    pub(super) fn removed<'a>(&self, body: &'a CallBody) -> Vec<&'a Field> {
        body.fields.with(Role::Engine).filter(|field| !self.keeps(field, body)).collect()
    }

    /// The fields that a replica gets from the gateway, as JSON.
    pub(super) fn added(&self) -> impl Iterator<Item = String> {
        let priority = self.priority.map(|priority| format!("\"{PRIORITY}\":{priority}"));
        let salt = self.salt.as_ref().map(|salt| format!("\"{CACHE_SALT}\":\"{salt}\""));
        priority.into_iter().chain(salt).filter(|_| self.has_fields)
    }

    fn keeps(&self, field: &Field, body: &CallBody) -> bool {
        let is_ours = self.has_fields
            && match field.name {
                PRIORITY => self.priority.is_some(),
                CACHE_SALT => self.salt.is_some(),
                _ => false,
            };
        // vLLM refuses an empty salt.
        let is_empty_salt = field.name == CACHE_SALT && body.text(field) == "\"\"";
        self.allowed.contains(&field.name) && !is_ours && !is_empty_salt
    }
}

/// A salt of these names: the replica learns none of them. Callers cannot choose their salt, so it need not be a secret.
fn salt(names: &[&str]) -> String {
    let mut hash = Sha256::new_with_prefix("tollgate cache salt");
    for name in names {
        hash.update([0]);
        hash.update(name);
    }
    hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft::resources::ENGINE_FIELDS;

    use super::*;

    /// Of vLLM's fields those that steer the answer, or change nothing for anybody else.
    const ANSWER_FIELDS: [&str; 78] = [
        "add_generation_prompt",
        "add_special_tokens",
        "allowed_token_ids",
        "background",
        "bad_words",
        "best_of",
        "chat_template_kwargs",
        "continue_final_message",
        "documents",
        "early_stopping",
        "echo",
        "enable_response_messages",
        "frequency_penalty",
        "ignore_eos",
        "include",
        "include_reasoning",
        "include_stop_str_in_output",
        "input",
        "instructions",
        "length_penalty",
        "logit_bias",
        "logprob_token_ids",
        "logprobs",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "max_tool_calls",
        "messages",
        "metadata",
        "min_p",
        "min_tokens",
        "model",
        "n",
        "output_config",
        "parallel_tool_calls",
        "presence_penalty",
        "previous_input_messages",
        "previous_response_id",
        "prompt",
        "prompt_embeds",
        "prompt_logprobs",
        "reasoning",
        "reasoning_effort",
        "repetition_detection",
        "repetition_penalty",
        "response_format",
        "return_assistant_tokens_mask",
        "return_prompt_text",
        "return_token_ids",
        "return_token_offsets",
        "return_token_strs",
        "return_tokens_as_token_ids",
        "seed",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "stop",
        "stop_sequences",
        "stop_token_ids",
        "store",
        "stream",
        "stream_options",
        "structured_outputs",
        "suffix",
        "system",
        "temperature",
        "text",
        "thinking_token_budget",
        "tokens",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "truncate_prompt_tokens",
        "truncation",
        "truncation_side",
        "use_beam_search",
        "user",
    ];

    fn rewritten(steering: &Steering, body: &str) -> String {
        let chat = Endpoint::at("/v1/chat/completions").unwrap();
        let body = CallBody::scan(Bytes::copy_from_slice(body.as_bytes()), chat).unwrap();
        String::from_utf8(body.rewrite("m", steering, chat, None).to_vec()).unwrap()
    }

    #[test]
    fn a_replica_gets_what_the_subscription_says_and_what_the_model_allows() {
        let body = r#"{"model":"m","priority":7,"cache_salt":"mine","vllm_xargs":{"a":1},"request_id":"r"}"#;
        let allowing =
            |allowed: &[&'static str]| Steering { allowed: allowed.to_vec(), has_fields: true, ..Steering::default() };
        let ours = |steering| Steering { priority: Some(-3), salt: Some("5a17".to_owned()), ..steering };
        let both = ["priority", "cache_salt"];
        let table = [
            (allowing(&[]), r#"{"model":"m"}"#),
            (allowing(&["vllm_xargs"]), r#"{"model":"m","vllm_xargs":{"a":1}}"#),
            (allowing(&both), r#"{"model":"m","priority":7,"cache_salt":"mine"}"#),
            (ours(allowing(&[])), r#"{"priority":-3,"cache_salt":"5a17","model":"m"}"#),
            (ours(allowing(&both)), r#"{"priority":-3,"cache_salt":"5a17","model":"m"}"#),
            // A request type without these fields gets none of ours.
            (Steering { has_fields: false, ..ours(allowing(&[])) }, r#"{"model":"m"}"#),
        ];
        for (steering, expected) in table {
            assert_eq!(rewritten(&steering, body), expected, "{steering:?}");
        }
        let empty = r#"{"cache_salt":"","model":"m"}"#;
        assert_eq!(rewritten(&allowing(&both), empty), r#"{"model":"m"}"#, "vLLM would refuse it");
    }

    #[test]
    fn a_salt_tells_callers_apart_and_names_none() {
        assert_eq!(salt(&["a/b", "ann"]), salt(&["a/b", "ann"]));
        assert_ne!(salt(&["a/b", "ann"]), salt(&["a/b", "bob"]));
        assert_ne!(salt(&["a/b", "ann"]), salt(&["a/bann"]));
        assert_eq!(salt(&["a/b", "ann"]).len(), 32);
    }

    #[test]
    fn every_field_of_vllms_request_types_is_either_kept_or_taken_out() {
        let types = include_str!("vllm-0.26-requests.txt").lines().filter(|line| !line.starts_with('#'));
        let mut known: Vec<&str> =
            types.filter_map(|line| line.split_once(": ")).flat_map(|(_, fields)| fields.split(' ')).collect();
        known.sort_unstable();
        known.dedup();
        assert!(known.len() > 80, "{known:?}");
        for field in &known {
            let is_engines = ENGINE_FIELDS.contains(field);
            assert_ne!(is_engines, ANSWER_FIELDS.contains(field), "`{field}` steers either the engine or the answer");
            let body = match *field {
                "model" => r#"{"model":"m","x":1}"#.to_owned(),
                field => format!(r#"{{"model":"m","x":1,"{field}":null}}"#),
            };
            let expected = if is_engines { r#"{"model":"m","x":1}"# } else { &body };
            assert_eq!(rewritten(&Steering::default(), &body), expected, "{field}");
        }
        let is_known = |field: &&str| known.contains(field);
        assert!(ANSWER_FIELDS.iter().all(is_known), "a field that vLLM does not have");
        let steering =
            ["priority", "request_id", "cache_salt", "kv_transfer_params", "ec_transfer_params", "vllm_xargs"];
        assert!(steering.iter().all(|field| is_known(field) && ENGINE_FIELDS.contains(field)));
    }
}
