use super::*;

fn metrics(waiting: f64, running: f64, kv_usage: f64, capacity_tokens: Option<u64>) -> Option<Metrics> {
    Some(Metrics { waiting, running, kv_usage, capacity_tokens, work: None, generated: None })
}

#[test]
fn a_vllm_server_is_understood() {
    let text = br#"# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="openai/gpt-oss-20b"} 12.0
vllm:num_requests_waiting{engine="0",model_name="openai/gpt-oss-20b"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="openai/gpt-oss-20b",reason="capacity"} 3.0
vllm:kv_cache_usage_perc{engine="0",model_name="openai/gpt-oss-20b"} 0.4217
vllm:prefix_cache_hits_total{engine="0",model_name="openai/gpt-oss-20b"} 1.207296e+06
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_cpu_blocks="None",num_gpu_blocks="27644",sliding_window="None"} 1.0
python_info{version="3.12"} 1.0
"#;
    assert_eq!(parse(text), metrics(3.0, 12.0, 0.4217, Some(16 * 27_644)));
}

#[test]
fn engines_are_added_up_and_their_cache_use_is_averaged() {
    let text = b"vllm:num_requests_waiting{engine=\"0\"} 1\nvllm:num_requests_waiting{engine=\"1\"} 4\n\
        vllm:kv_cache_usage_perc{engine=\"0\"} 0.2\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.6\n\
        vllm:cache_config_info{engine=\"0\",block_size=\"16\",num_gpu_blocks=\"10\"} 1\n\
        vllm:cache_config_info{engine=\"1\",block_size=\"16\",num_gpu_blocks=\"20\"} 1\n";
    assert_eq!(parse(text), metrics(5.0, 0.0, 0.4, Some(480)));
}

#[test]
fn odd_lines_are_passed_over() {
    let table: &[(&[u8], Option<Metrics>)] = &[
        (b"", None),
        (b"<html>404</html>", None),
        (b"sglang:num_queue_reqs 3\n", None),
        (b"vllm:num_requests_waiting 3\r\n", metrics(3.0, 0.0, 0.0, None)),
        (b"  vllm:num_requests_waiting 3 1712345678901\n", metrics(3.0, 0.0, 0.0, None)),
        (b"vllm:num_requests_waiting{a=\"}\"} 3", metrics(3.0, 0.0, 0.0, None)),
        (b"vllm:num_requests_waiting NaN\n", None),
        (b"vllm:num_requests_waiting +Inf\n", None),
        (b"vllm:num_requests_waiting -4\n", metrics(0.0, 0.0, 0.0, None)),
        (b"vllm:num_requests_waiting{engine=\"0\" 3\n", None),
        (b"vllm:num_requests_waiting\n", None),
        (b"vllm:num_requests_running \xff\nvllm:num_requests_waiting 1", metrics(1.0, 0.0, 0.0, None)),
        // Older servers' name, and a use beyond what there is.
        (b"vllm:gpu_cache_usage_perc 0.5", metrics(0.0, 0.0, 0.5, None)),
        (b"vllm:kv_cache_usage_perc 1.7", metrics(0.0, 0.0, 1.0, None)),
        // Escaped quotes, a capacity not known yet, one that overflows.
        (
            br#"vllm:cache_config_info{x="a\"block_size=\"9",block_size="16",num_gpu_blocks="2"} 1"#,
            metrics(0.0, 0.0, 0.0, Some(32)),
        ),
        (br#"vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1"#, None),
        (br#"vllm:cache_config_info{block_size="16",num_gpu_blocks="9999999999999999999"} 1"#, None),
    ];
    for (text, answer) in table {
        assert_eq!(parse(text), *answer, "{}", String::from_utf8_lossy(text));
    }
}

#[test]
fn what_engines_count_when_they_work_is_added_up() {
    let text = br#"vllm:num_requests_running{engine="0"} 1.0
vllm:prompt_tokens_total{engine="0"} 1000.0
vllm:generation_tokens_total{engine="0"} 20.0
vllm:generation_tokens_total{engine="1"} 3.0
vllm:generation_tokens_created{engine="0"} 1.7e+09
vllm:iteration_tokens_total_bucket{engine="0",le="1.0"} 7.0
vllm:iteration_tokens_total_count{engine="0"} 0.5
vllm:request_success_total{engine="0",finished_reason="stop"} 0.25
vllm:request_success_total{engine="0",finished_reason="abort"} 100000.0
http_requests_total{handler="/health"} 500.0
"#;
    let Metrics { work, generated, .. } = parse(text).unwrap();
    assert_eq!((work, generated), (Some(1023.75), Some(23.0)));
}
