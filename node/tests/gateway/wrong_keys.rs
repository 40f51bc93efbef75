//! Guessing keys is slowed down; valid keys are not.

use node::accept::Limits;

use crate::client::Connection;
use crate::world::{World, limits, replica};

const CHAT: &str = "/llm/qwen/v1/chat/completions";
const BODY: &str = r#"{"messages":[{"role":"user","content":"hello"}],"max_tokens":5}"#;

async fn status(connection: &mut Connection, key: &str) -> u16 {
    connection.post(CHAT, &[("authorization", &format!("Bearer {key}"))], BODY).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_wrong_keys_are_answered_429_and_right_ones_are_served_all_the_while() {
    let (_replica, url) = replica(1).await;
    // So slow that nobody earns an attempt while this runs.
    let world = World::start_limited(&[url], Limits { auth_failures_per_second: 1, ..limits() }).await;
    let written = world.context.cluster.standing().applied;
    let (mut guesser, mut caller) = (world.connect().await, world.connect().await);
    let (mut judged, mut limited) = (0, 0);
    for guess in 0..1_000 {
        // Whatever is guessed counts alike.
        let key = match guess % 3 {
            0 => format!("sk-oai-guess_{guess}"),
            1 => format!("token{guess}"),
            _ => "sk-oai-".to_owned(),
        };
        match status(&mut guesser, &key).await {
            401 | 403 => judged += 1,
            429 => limited += 1,
            other => panic!("{other}"),
        }
        if guess % 100 == 99 {
            assert_eq!(status(&mut caller, &world.key).await, 200, "a right key from the same address");
        }
    }
    let burst = usize::try_from(limits().auth_failures_burst).unwrap();
    assert!(judged >= burst && limited > 800, "{judged} judged, {limited} answered 429");
    assert_eq!(status(&mut guesser, &world.key).await, 200, "and on the same connection");
    assert_eq!(world.counter("tollgate_auth_attempts_refused_total"), f64::from(limited));
    let entries = world.context.cluster.standing().applied - written;
    assert!(entries < 100, "{entries} log entries for a thousand guesses and some calls");

    // The second in each case: the first may be the one attempt that the address has earned.
    let _ = guesser.post("/v1/messages", &[("x-api-key", "sk-oai-guess_0")], BODY).await;
    let answer = guesser.post("/v1/messages", &[("x-api-key", "sk-oai-guess_0")], BODY).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "1"), "{answer:?}");
    assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
    let _ = guesser.get("/v1/models", &[("authorization", "Bearer sk-oai-guess_0")]).await;
    let answer = guesser.get("/v1/models", &[("authorization", "Bearer sk-oai-guess_0")]).await;
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_str()),
        (429, Some("too_many_attempts")),
        "{answer:?}"
    );
    let probe = guesser.get("/healthz", &[("authorization", "Bearer sk-oai-guess_0")]).await;
    assert_eq!(probe.status, 200, "a health check is no guess");
    let mut other = Connection::open_from("127.0.0.2", world.address).await;
    assert_eq!(status(&mut other, "sk-oai-guess_0").await, 403, "another address has attempts of its own");
    assert_eq!(other.post(CHAT, &[], BODY).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_behind_a_trusted_proxy_are_told_apart() {
    let (_replica, url) = replica(2).await;
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let limits = Limits { trusted_proxies, ..limits() };
    let world = World::start_limited(&[url], limits).await;
    let mut proxy = world.connect().await;
    let mut guess = async |caller: &str| {
        let headers = [("authorization", "Bearer sk-oai-guess_0"), ("x-forwarded-for", caller)];
        proxy.post(CHAT, &headers, BODY).await.status
    };
    let mut answers = Vec::new();
    for number in 0..300 {
        // What the caller writes itself stands before what the proxy adds.
        answers.push(guess(&format!("198.51.100.{}, 192.0.2.1", number % 250)).await);
    }
    assert_eq!((answers[0], answers[299]), (403, 429));
    assert_eq!(guess("192.0.2.2").await, 403);
}
