//! What a gateway scrapes to know how busy a replica is.

use super::replica::Replica;

/// Of the Prometheus text format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Calls at once with which the cache would be full.
const CALLS_OF_A_FULL_CACHE: f64 = 1024.0;

/// The families of vLLM that endpoint pickers read.
pub(super) fn exposition(replica: &Replica) -> String {
    let counts = replica.counts();
    let (running, finished) = (counts.running.get(), counts.finished.get());
    #[expect(clippy::cast_precision_loss, reason = "thousands of calls at most")]
    let cache_usage = (running as f64 / CALLS_OF_A_FULL_CACHE).min(1.0);
    let mut text = String::with_capacity(2048);
    let mut family = |name: &str, kind: &str, labels: &str, value: &dyn std::fmt::Display| {
        text.push_str(&format!(
            "# HELP vllm:{name} Of a replica that does nothing.\n# TYPE vllm:{name} {kind}\n\
             vllm:{name}{{model_name=\"mock\",engine=\"0\"{labels}}} {value}\n"
        ));
    };
    family("num_requests_running", "gauge", "", &running);
    family("num_requests_waiting", "gauge", "", &0);
    family("kv_cache_usage_perc", "gauge", "", &cache_usage);
    family("cache_config_info", "gauge", ",block_size=\"16\",num_gpu_blocks=\"4096\"", &1);
    family("prefix_cache_queries_total", "counter", "", &(finished * 256));
    family("prefix_cache_hits_total", "counter", "", &(finished * 128));
    family("prompt_tokens_total", "counter", "", &(finished * 256));
    family("generation_tokens_total", "counter", "", &(finished * 400));
    family("request_success_total", "counter", ",finished_reason=\"stop\"", &finished);
    text
}
