//! What of a call steers a model's engine and not its answer, and what administrators say of it in annotations.

use std::collections::BTreeMap;

use super::fields::Report;

/// On a MaaSModelRef: which of [`ENGINE_FIELDS`] callers of the model may set, comma-separated. Default: none.
pub const ALLOWED_FIELDS_ANNOTATION: &str = "tollgate.dev/allowed-request-fields";
/// On a MaaSSubscription: the `priority` of its calls at the replicas, a 32-bit integer. Lower goes first, as at vLLM. Default: none is sent.
pub const PRIORITY_ANNOTATION: &str = "tollgate.dev/priority";
/// On a MaaSSubscription, or on the Tenant for all of them: who shares cached prefixes. `none` (everybody, the default), `subscription` or `user`.
pub const CACHE_ISOLATION_ANNOTATION: &str = "tollgate.dev/cache-isolation";

/// Fields of a request that steer the engine: in which order it serves, which cache it reads, where it sends what it computed, under
/// which name it knows the call. What one caller writes there reaches others, so a replica does not get it. vLLM's come
/// first, then those of other servers, and what vLLM took formerly.
pub const ENGINE_FIELDS: [&str; 31] = [
    // Order: lower values go first, and others wait.
    "priority",
    "service_tier",
    // The name of a call in the engine, in its logs and in the answer: two calls of one name are one.
    "request_id",
    // Which cached blocks a call may read, and whether others can tell what it asked.
    "cache_salt",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    // Where the cache or an encoder's output is fetched from and sent to.
    "kv_transfer_params",
    "ec_transfer_params",
    // Arguments of the server's plug-ins.
    "vllm_xargs",
    // How pictures, audio and video are loaded and cut: they decide what a prompt costs, beyond every bound.
    "media_io_kwargs",
    "mm_processor_kwargs",
    // Programs that the server runs.
    "chat_template",
    "logits_processors",
    "custom_logit_processor",
    "guided_decoding_backend",
    // Names and places in SGLang, Dynamo and TensorRT-LLM.
    "rid",
    "routing_key",
    "extra_key",
    "session_params",
    "session_id",
    "data_parallel_rank",
    "routed_dp_rank",
    "disagg_prefill_dp_rank",
    "bootstrap_host",
    "bootstrap_port",
    "bootstrap_room",
    "lora_path",
    "lora_request",
    "disaggregated_params",
    "nvext",
];

/// Whose calls share cached prefixes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheIsolation {
    /// Everybody's.
    None,
    /// Those of one subscription.
    Subscription,
    /// Those of one user of one subscription.
    User,
}

/// Reads [`ALLOWED_FIELDS_ANNOTATION`].
pub(super) fn parse_allowed_fields(report: &Report, annotations: &BTreeMap<String, String>) -> Vec<&'static str> {
    let written = annotations.get(ALLOWED_FIELDS_ANNOTATION).map_or("", String::as_str);
    let mut allowed = Vec::new();
    for name in written.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match ENGINE_FIELDS.iter().find(|known| **known == name) {
            Some(known) => allowed.push(*known),
            None => report.error(
                path_of(ALLOWED_FIELDS_ANNOTATION),
                format!("\"{name}\" is no field that is kept from replicas: those are {}", ENGINE_FIELDS.join(", ")),
            ),
        }
    }
    allowed
}

/// Reads [`PRIORITY_ANNOTATION`].
pub(super) fn parse_priority(report: &Report, annotations: &BTreeMap<String, String>) -> Option<i32> {
    let written = annotations.get(PRIORITY_ANNOTATION)?;
    let priority = written.trim().parse().ok();
    if priority.is_none() {
        report
            .error(path_of(PRIORITY_ANNOTATION), format!("\"{written}\" is not an integer of 32 bits: write \"-10\""));
    }
    priority
}

/// Reads [`CACHE_ISOLATION_ANNOTATION`].
pub(super) fn parse_isolation(report: &Report, annotations: &BTreeMap<String, String>) -> Option<CacheIsolation> {
    let written = annotations.get(CACHE_ISOLATION_ANNOTATION)?;
    match written.trim() {
        "none" => Some(CacheIsolation::None),
        "subscription" => Some(CacheIsolation::Subscription),
        "user" => Some(CacheIsolation::User),
        _ => {
            let message = format!("\"{written}\" is not one of none, subscription, user");
            report.error(path_of(CACHE_ISOLATION_ANNOTATION), message);
            None
        }
    }
}

fn path_of(annotation: &str) -> String {
    format!("metadata.annotations.{annotation}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(annotation: &str, written: &str, parse: fn(&Report, &BTreeMap<String, String>) -> T) -> (T, usize) {
        let report = Report::default();
        let annotations = BTreeMap::from([(annotation.to_owned(), written.to_owned())]);
        let value = parse(&report, &annotations);
        (value, report.into_errors().len())
    }

    #[test]
    fn annotations_are_read_and_mistakes_are_told() {
        let allowed = |written| read(ALLOWED_FIELDS_ANNOTATION, written, parse_allowed_fields);
        assert_eq!(allowed(""), (vec![], 0));
        assert_eq!(allowed(" priority, vllm_xargs ,"), (vec!["priority", "vllm_xargs"], 0));
        assert_eq!(allowed("priority,prioritty"), (vec!["priority"], 1));
        assert_eq!(allowed("temperature"), (vec![], 1), "that is never kept back");
        let priority = |written| read(PRIORITY_ANNOTATION, written, parse_priority);
        assert_eq!(priority("-10"), (Some(-10), 0));
        assert_eq!(priority("high"), (None, 1));
        assert_eq!(priority("9999999999"), (None, 1));
        let isolation = |written| read(CACHE_ISOLATION_ANNOTATION, written, parse_isolation);
        assert_eq!(isolation("user"), (Some(CacheIsolation::User), 0));
        assert_eq!(isolation("none"), (Some(CacheIsolation::None), 0));
        assert_eq!(isolation(""), (None, 1));
    }
}
