//! `/metrics`: vLLM's names, labels and shapes, as scrapers read them.
//!
//! Of what the recorded server exposes, the Python process metrics, request size summaries, estimated FLOPs and counts
//! of tool parser calls are left out: nothing that routes or scales looks at them.

use std::fmt::Write;

use crate::{
    engine::meters::{Histogram, Meters},
    replica::Shared,
};

/// The exposition text.
pub(crate) fn render(shared: &Shared) -> String {
    let (meters, running, waiting, kv_usage) = shared.engine.meters();
    let mut page =
        Page { text: String::with_capacity(32 << 10), model: shared.config.model(), created: shared.start_seconds() };
    page.gauge("num_requests_running", "Number of requests in model execution batches.", &[("", running as f64)]);
    page.gauge("num_requests_waiting", "Number of requests waiting to be processed.", &[("", waiting as f64)]);
    page.gauge(
        "num_requests_waiting_by_reason",
        "Number of waiting requests by reason.",
        &[("reason=\"capacity\"", waiting as f64), ("reason=\"deferred\"", 0.0)],
    );
    page.gauge(
        "engine_sleep_state",
        "Engine sleep state.",
        &[
            ("sleep_state=\"awake\"", 1.0),
            ("sleep_state=\"weights_offloaded\"", 0.0),
            ("sleep_state=\"discard_all\"", 0.0),
        ],
    );
    page.gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", &[("", kv_usage)]);
    page.counter("prefix_cache_queries", "Prefix cache queries, in tokens.", &[("", meters.prefix_queries)]);
    page.counter("prefix_cache_hits", "Prefix cache hits, in tokens.", &[("", meters.prefix_hits)]);
    page.counter("external_prefix_cache_queries", "External prefix cache queries, in tokens.", &[("", 0)]);
    page.counter("external_prefix_cache_hits", "External prefix cache hits, in tokens.", &[("", 0)]);
    page.counter("mm_cache_queries", "Multi-modal cache queries, in items.", &[("", 0)]);
    page.counter("mm_cache_hits", "Multi-modal cache hits, in items.", &[("", 0)]);
    page.counter("num_preemptions", "Cumulative number of preemptions.", &[("", meters.preemptions)]);
    page.counter("prompt_tokens", "Number of prefill tokens processed.", &[("", meters.prompt_tokens)]);
    page.counter(
        "prompt_tokens_by_source",
        "Number of prompt tokens by source.",
        &[
            ("source=\"local_compute\"", meters.prompt_tokens - meters.prompt_cached),
            ("source=\"local_cache_hit\"", meters.prompt_cached),
            ("source=\"external_kv_transfer\"", 0),
        ],
    );
    page.counter("prompt_tokens_cached", "Number of cached prompt tokens.", &[("", meters.prompt_cached)]);
    page.counter("generation_tokens", "Number of generation tokens processed.", &[("", meters.generation_tokens)]);
    let [stop, length, abort, error] = meters.ended;
    page.counter(
        "request_success",
        "Count of successfully processed requests.",
        &[
            ("finished_reason=\"stop\"", stop),
            ("finished_reason=\"length\"", length),
            ("finished_reason=\"abort\"", abort),
            ("finished_reason=\"error\"", error),
            ("finished_reason=\"repetition\"", 0),
        ],
    );
    histograms(&mut page, &meters);
    cache_config(&mut page, shared);
    http_requests(&mut page.text, shared);
    page.text
}

fn histograms(page: &mut Page<'_>, meters: &Meters) {
    for (name, help, histogram) in [
        ("request_prompt_tokens", "Number of prefill tokens processed.", &meters.prompt_size),
        ("request_generation_tokens", "Number of generation tokens processed.", &meters.generation_size),
        ("iteration_tokens_total", "Number of tokens per engine step.", &meters.iteration),
        ("request_max_num_generation_tokens", "Maximum number of generation tokens.", &meters.max_generation_size),
        ("request_params_n", "The n request parameter.", &meters.param_n),
        ("request_params_max_tokens", "The max_tokens request parameter.", &meters.param_max_tokens),
        ("time_to_first_token_seconds", "Time to first token in seconds.", &meters.first_token),
        ("inter_token_latency_seconds", "Inter-token latency in seconds.", &meters.between_tokens),
        ("request_time_per_output_token_seconds", "Time per output token of a request.", &meters.per_output_token),
        ("e2e_request_latency_seconds", "End to end request latency in seconds.", &meters.end_to_end),
        ("request_queue_time_seconds", "Time spent waiting.", &meters.queue),
        ("request_inference_time_seconds", "Time spent running.", &meters.inference),
        ("request_prefill_time_seconds", "Time spent in prefill.", &meters.prefill),
        ("request_decode_time_seconds", "Time spent in decode.", &meters.decode),
        ("request_prefill_kv_computed_tokens", "New KV tokens computed during prefill.", &meters.prefill_computed),
    ] {
        page.histogram(name, help, histogram);
    }
}

/// The page being written.
struct Page<'a> {
    text: String,
    model: &'a str,
    created: u64,
}

impl Page<'_> {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.text, "# HELP vllm:{name} {help}\n# TYPE vllm:{name} {kind}");
    }

    /// One line; Prometheus clients in Python sort labels, so `extra` may stand before or after the model's name.
    fn line(&mut self, name: &str, extra: &str, value: f64) {
        let model = self.model;
        let labels = match extra.chars().next() {
            None => format!("engine=\"0\",model_name=\"{model}\""),
            Some(first) if first < 'm' => format!("engine=\"0\",{extra},model_name=\"{model}\""),
            Some(_) => format!("engine=\"0\",model_name=\"{model}\",{extra}"),
        };
        let _ = writeln!(self.text, "vllm:{name}{{{labels}}} {}", number(value));
    }

    fn gauge(&mut self, name: &str, help: &str, values: &[(&str, f64)]) {
        self.head(name, help, "gauge");
        for (extra, value) in values {
            self.line(name, extra, *value);
        }
    }

    fn counter(&mut self, name: &str, help: &str, values: &[(&str, u64)]) {
        let total = format!("{name}_total");
        self.head(&total, help, "counter");
        for (extra, value) in values {
            self.line(&total, extra, *value as f64);
        }
        let created = self.created as f64;
        let values: Vec<(&str, f64)> = values.iter().map(|(extra, _)| (*extra, created)).collect();
        self.gauge(&format!("{name}_created"), help, &values);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let mut below = 0;
        let bounds = histogram.bounds.iter().map(|bound| number(*bound)).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&histogram.counts) {
            below += count;
            self.line(&format!("{name}_bucket"), &format!("le=\"{bound}\""), below as f64);
        }
        self.line(&format!("{name}_count"), "", below as f64);
        self.line(&format!("{name}_sum"), "", histogram.sum);
        self.gauge(&format!("{name}_created"), help, &[("", self.created as f64)]);
    }
}

fn cache_config(page: &mut Page<'_>, shared: &Shared) {
    page.head("cache_config_info", "Information of the LLMEngine CacheConfig", "gauge");
    let engine = &shared.config.engine;
    let tokens = engine.num_blocks * engine.block_size;
    let concurrency = tokens as f64 / shared.config.context_len().max(1) as f64;
    let _ = writeln!(
        page.text,
        "vllm:cache_config_info{{_block_size_resolved=\"True\",block_size=\"{}\",cache_dtype=\"auto\",\
         enable_prefix_caching=\"True\",engine=\"0\",gpu_memory_utilization=\"0.8\",is_attention_free=\"False\",\
         kv_cache_max_concurrency=\"{concurrency}\",kv_cache_memory_bytes=\"None\",kv_cache_size_tokens=\"{tokens}\",\
         num_cpu_blocks=\"None\",num_gpu_blocks=\"{}\",num_gpu_blocks_override=\"None\",\
         prefix_caching_hash_algo=\"sha256\",sliding_window=\"None\",user_specified_block_size=\"False\"}} 1.0",
        engine.block_size, engine.num_blocks
    );
}

fn http_requests(text: &mut String, shared: &Shared) {
    text.push_str("# HELP http_requests_total Total number of requests by method, status and handler.\n");
    text.push_str("# TYPE http_requests_total counter\n");
    for ((handler, method, class), count) in shared.http_counts() {
        let count = number(count as f64);
        let _ = writeln!(
            text,
            "http_requests_total{{handler=\"{handler}\",method=\"{method}\",status=\"{class}xx\"}} {count}"
        );
    }
}

/// A number as Python prints a float.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e6 {
        format!("{value:.1}")
    } else if value.abs() >= 1e6 {
        let text = format!("{value:e}");
        match text.split_once('e') {
            Some((mantissa, exponent)) => format!("{mantissa}e+{exponent:0>2}"),
            None => text,
        }
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_look_like_pythons() {
        for (value, text) in [(0.0, "0.0"), (12.0, "12.0"), (0.25, "0.25"), (1_830_144.0, "1.830144e+06")] {
            assert_eq!(number(value), text);
        }
    }
}
