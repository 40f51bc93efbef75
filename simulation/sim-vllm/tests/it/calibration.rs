//! Times against the recorded calibration (one H200, vLLM 0.26): within 25 %, over prompt length, prefix hit and
//! batch size. Time is tokio's, paused, so this measures the model of the engine and no machine.

use std::time::Duration;

use serde_json::{Value, json};
use sim_vllm::{Config, Replica};
use tokio::time::Instant;

use crate::client::{Answer, post, send};

/// The most by which a time may differ.
const TOLERANCE: f64 = 0.25;

/// Prompt tokens, time to first token in ms without and with a prefix hit, tokens of that hit.
const FIRST_TOKEN: [(usize, f64, f64, u64); 8] = [
    (128, 17.65, 17.61, 112),
    (512, 21.21, 21.52, 496),
    (1_024, 41.78, 20.01, 1_008),
    (2_048, 56.82, 25.21, 2_032),
    (4_096, 127.33, 34.35, 4_080),
    (8_192, 227.46, 34.53, 8_176),
    (16_384, 512.63, 49.18, 16_368),
    (32_768, 1_299.69, 70.19, 32_752),
];

/// Sequences at once (512 tokens of prompt, 128 of output), median time between tokens in ms while all of them
/// decode, median time to first token in ms when all arrive at once.
const BATCH: [(usize, f64, f64); 8] = [
    (1, 4.805, 21.5),
    (8, 5.172, 112.6),
    (16, 5.153, 209.8),
    (32, 5.615, 395.1),
    (64, 6.529, 702.4),
    (128, 8.619, 1_193.6),
    (256, 13.163, 1_750.5),
    (512, 30.876, 3_550.9),
];

/// Sequences, prompt tokens, and how many prompt tokens a second are computed when all arrive at once.
const PREFILL: [(usize, usize, f64); 3] = [(16, 8_192, 36_909.0), (64, 2_048, 41_477.0), (8, 32_768, 25_831.0)];

fn check(what: &str, measured: f64, recorded: f64) {
    let off = measured / recorded - 1.0;
    assert!(off.abs() <= TOLERANCE, "{what}: {measured:.2} against {recorded:.2}, {:+.0} %", off * 100.0);
}

/// A prompt of `length` token ids that shares nothing with another `number`.
fn prompt(length: usize, number: usize) -> Value {
    (0..length).map(|at| ((number * 7_919 + at * 31 + at / 32) % 150_000) as u32).collect()
}

async fn stream(replica: Replica, prompt: Value, max_tokens: usize) -> (Instant, Answer) {
    let body = json!({"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": true, "stream": true,
        "stream_options": {"include_usage": true}});
    (Instant::now(), send(&replica, &post("/v1/completions", &body)).await)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::test(start_paused = true)]
async fn time_to_first_token_over_prompt_length_and_prefix_hit() {
    let replica = Replica::start(Config::default());
    for (number, (length, cold, hit, cached)) in FIRST_TOKEN.into_iter().enumerate() {
        for (expected, expected_cached) in [(cold, 0), (hit, cached)] {
            let (begin, answer) = stream(replica.clone(), prompt(length, number), 4).await;
            let measured = ms(answer.events()[0].at - begin);
            let usage = &answer.chunks().pop().unwrap()["usage"];
            assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], expected_cached);
            check(&format!("first token after {length} tokens, {expected_cached} cached"), measured, expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn times_over_batch_size() {
    for (size, between, first) in BATCH {
        let replica = Replica::start(Config::default());
        let calls: Vec<_> =
            (0..size).map(|number| tokio::spawn(stream(replica.clone(), prompt(512, number), 128))).collect();
        let (mut firsts, mut times) = (Vec::new(), Vec::new());
        for call in calls {
            let (begin, answer) = call.await.unwrap();
            // The last two events are usage and the end.
            let events = answer.events();
            let at: Vec<Instant> = events[..events.len() - 2].iter().map(|event| event.at).collect();
            firsts.push(ms(at[0] - begin));
            times.push(at);
        }
        // Steady is while every sequence decodes.
        let from = times.iter().map(|at| at[0]).max().unwrap();
        let to = times.iter().map(|at| at[at.len() - 1]).min().unwrap();
        let gaps = times.iter().flat_map(|at| at.windows(2)).filter(|pair| pair[0] >= from && pair[1] <= to);
        let gaps: Vec<f64> = gaps.map(|pair| ms(pair[1] - pair[0])).collect();
        // Timers fire on whole milliseconds, so the mean says more than the median.
        check(&format!("between tokens of {size}"), gaps.iter().sum::<f64>() / gaps.len() as f64, between);
        check(&format!("first token of {size}"), median(firsts), first);
    }
}

#[tokio::test(start_paused = true)]
async fn prefill_rate_of_a_full_batch() {
    for (size, length, rate) in PREFILL {
        let replica = Replica::start(Config::default());
        let begin = Instant::now();
        let calls: Vec<_> =
            (0..size).map(|number| tokio::spawn(stream(replica.clone(), prompt(length, number), 1))).collect();
        for call in calls {
            call.await.unwrap();
        }
        check(&format!("{size} prompts of {length}"), (size * length) as f64 / begin.elapsed().as_secs_f64(), rate);
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_prompt_slows_running_decodes_as_recorded() {
    // 64 decodes, then a cold prompt of 32k: its first token after 1,330 ms, and gaps of 411 ms at most for the others.
    let replica = Replica::start(Config::default());
    let calls: Vec<_> = (0..64).map(|number| tokio::spawn(stream(replica.clone(), prompt(512, number), 400))).collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (begin, long) = stream(replica.clone(), prompt(32_768, 99), 4).await;
    check("first token of the long prompt", ms(long.events()[0].at - begin), 1_330.0);
    let mut worst = Duration::ZERO;
    for call in calls {
        let events = call.await.unwrap().1.events();
        worst = events
            .windows(2)
            .filter(|pair| pair[0].at >= begin)
            .map(|pair| pair[1].at - pair[0].at)
            .max()
            .unwrap()
            .max(worst);
    }
    check("worst gap of the others", ms(worst), 411.2);
}
