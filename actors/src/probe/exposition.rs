//! The few series of a replica's `/metrics` that the choice needs. Everything else, malformed text included, is passed over.

/// What a replica reports of its load.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Metrics {
    /// Requests waiting, over all engines.
    pub(crate) waiting: f64,
    /// Requests running, over all engines.
    pub(crate) running: f64,
    /// KV-cache use from 0 to 1, the engines' mean.
    pub(crate) kv_usage: f64,
    /// Tokens the KV caches hold together, if told.
    pub(crate) capacity_tokens: Option<u64>,
    /// The sum of all that the engines count when they work, if they do: it stands still while they do.
    pub(crate) work: Option<f64>,
    /// Tokens that the engines have ever generated, if told.
    pub(crate) generated: Option<f64>,
}

/// Reads an exposition; `None` if none of the series is in it.
pub(crate) fn parse(text: &[u8]) -> Option<Metrics> {
    let mut metrics = Metrics::default();
    let mut usage = Mean::default();
    let mut is_known = false;
    for line in text.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()) {
        let Some((name, labels, value)) = series(line.trim()) else { continue };
        match name {
            "vllm:num_requests_waiting" => metrics.waiting += value.max(0.0),
            "vllm:num_requests_running" => metrics.running += value.max(0.0),
            // The second is what older servers call it.
            "vllm:kv_cache_usage_perc" | "vllm:gpu_cache_usage_perc" => usage.add(value.clamp(0.0, 1.0)),
            "vllm:cache_config_info" => {
                let Some(tokens) = capacity(labels) else { continue };
                metrics.capacity_tokens = Some(metrics.capacity_tokens.unwrap_or(0).saturating_add(tokens));
            }
            name if counts_work(name, labels) => {
                *metrics.work.get_or_insert(0.0) += value;
                if name == GENERATED {
                    *metrics.generated.get_or_insert(0.0) += value;
                }
            }
            _ => continue,
        }
        is_known = true;
    }
    metrics.kv_usage = usage.mean();
    is_known.then_some(metrics)
}

const GENERATED: &str = "vllm:generation_tokens_total";

/// Whether a series counts tokens, steps or requests of an engine. An aborted request may be counted by the server in front of it.
fn counts_work(name: &str, labels: &str) -> bool {
    match name {
        "vllm:prompt_tokens_total"
        | GENERATED
        | "vllm:num_preemptions_total"
        | "vllm:iteration_tokens_total_count"
        | "vllm:iteration_tokens_total_sum" => true,
        "vllm:request_success_total" => label(labels, "finished_reason") != Some("abort"),
        _ => false,
    }
}

#[derive(Default)]
struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / f64::from(self.count) }
    }
}

/// `name{labels} value [timestamp]` of a series of ours; `None` for anything else.
fn series(line: &str) -> Option<(&str, &str, f64)> {
    let line = line.strip_prefix("vllm:").map(|_| line)?;
    let name_end = line.find(|c: char| c == '{' || c.is_ascii_whitespace())?;
    let (name, rest) = line.split_at(name_end);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => rest.rsplit_once('}')?,
        None => ("", rest),
    };
    let value: f64 = value.split_ascii_whitespace().next()?.parse().ok()?;
    value.is_finite().then_some((name, labels, value))
}

/// `block_size` x `num_gpu_blocks`.
fn capacity(labels: &str) -> Option<u64> {
    let number = |name: &str| label(labels, name)?.parse::<u64>().ok().filter(|number| *number > 0);
    number("block_size")?.checked_mul(number("num_gpu_blocks")?)
}

/// The value of the label `name`. Escapes within values are left alone: numbers have none.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = labels;
    loop {
        let (key, after) = rest.split_once("=\"")?;
        let end = end_of_value(after)?;
        if key.trim_matches([',', ' ']) == name {
            return after.get(..end);
        }
        rest = after.get(end + 1..)?;
    }
}

/// Where the closing quote is.
fn end_of_value(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
