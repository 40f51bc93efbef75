//! Web pages that call from a browser: what it asks first, what it lets the page see, and that a Tenant decides both.

use serde_json::{Value, json};

use crate::client::{Answer, request};
use crate::scripted::{End, Script};
use crate::world::{PLENTY, World};

const CHAT: &str = "/llm/qwen/v1/chat/completions";
const APP: &str = "https://app.example.com";
const LOCAL: &str = "http://localhost:3000";

type Headers<'a> = Vec<(&'a str, &'a str)>;

async fn ask(world: &World, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut connection = world.connect().await;
    connection.send(request(method, path, headers, body)).await;
    connection.answer().await
}

/// What a browser asks before a page of `origin` may send `method` with the headers that SDKs send.
async fn preflight(world: &World, path: &str, origin: &str, method: &str) -> Answer {
    let names = "authorization,content-type,x-stainless-lang,x-stainless-retry-count";
    let headers =
        [("origin", origin), ("access-control-request-method", method), ("access-control-request-headers", names)];
    ask(world, "OPTIONS", path, &headers, "").await
}

/// Every header of CORS in an answer, but for what may be read.
fn cors(answer: &Answer) -> Vec<String> {
    let is_of_cors = |name: &str| name.starts_with("access-control-") && name != "access-control-expose-headers";
    let mut lines: Vec<String> = answer
        .headers
        .iter()
        .filter(|(name, _)| is_of_cors(name))
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    lines.sort();
    lines
}

fn vary(answer: &Answer) -> Vec<&str> {
    answer.headers.iter().filter(|(name, _)| name == "vary").map(|(_, value)| value.as_str()).collect()
}

async fn world_of(script: &Script) -> World {
    World::start(&[script.serve().await], PLENTY).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_told_what_a_page_of_an_allowed_origin_may_send() {
    let script = Script::default();
    let world = world_of(&script).await;
    let refused = preflight(&world, CHAT, APP, "POST").await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (403, &json!("origin_not_allowed")), "no Tenant");
    // From now on, without a restart.
    world.allow_origins(&[APP, LOCAL]).await;
    let table = [
        (CHAT, "POST", "POST"),
        ("/v1/chat/completions/", "POST", "POST"),
        ("/v1/completions", "POST", "POST"),
        ("/v1/responses", "POST", "POST"),
        ("/v1/messages", "POST", "POST"),
        ("/v1/messages/count_tokens", "POST", "POST"),
        ("/v1/embeddings", "POST", "POST"),
        ("/llm/qwen/v1/models", "GET", "GET, HEAD"),
        ("/v1/models", "GET", "GET, HEAD"),
        ("/v1/models/acme/qwen", "GET", "GET, HEAD"),
        ("/maas-api/v1/api-keys", "POST", "GET, HEAD, POST, DELETE"),
        ("/maas-api/v1/api-keys/1", "DELETE", "GET, HEAD, POST, DELETE"),
        ("/", "GET", "GET, HEAD"),
        // The browser sees for itself that this is not among them.
        (CHAT, "DELETE", "POST"),
    ];
    for (path, method, methods) in table {
        for origin in [APP, LOCAL] {
            let answer = preflight(&world, path, origin, method).await;
            let expected = [
                "access-control-allow-headers: authorization, content-type, x-stainless-lang, x-stainless-retry-count"
                    .to_owned(),
                format!("access-control-allow-methods: {methods}"),
                format!("access-control-allow-origin: {origin}"),
                "access-control-max-age: 600".to_owned(),
            ];
            assert_eq!((answer.status, cors(&answer)), (204, expected.to_vec()), "{path} {answer:?}");
            let varies = ["access-control-request-method", "access-control-request-headers", "origin"];
            assert_eq!((vary(&answer), answer.body.as_str()), (varies.to_vec(), ""), "{answer:?}");
            assert!(!answer.header("x-request-id").is_empty(), "{answer:?}");
        }
    }
    assert_eq!(script.requests(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_is_told_nothing_and_its_calls_are_as_ever() {
    let script = Script::default();
    script.whole("200 OK", r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
    let world = world_of(&script).await;
    world.allow_origins(&[APP]).await;
    let bearer = format!("Bearer {}", world.key);
    // As browsers see it, all of these are other origins.
    let others = [
        "https://evil.example",
        "https://app.example.com.evil.example",
        "https://app.example.com:8443",
        "http://app.example.com",
        "https://sub.app.example.com",
        "https://APP.example.com",
        "https://app.example.com/",
        "null",
        "*",
        "",
    ];
    for origin in others {
        let answer = preflight(&world, CHAT, origin, "POST").await;
        assert_eq!((answer.status, cors(&answer)), (403, vec![]), "{origin} {answer:?}");
        let error = &answer.json()["error"];
        assert_eq!(error["code"], "origin_not_allowed");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(&format!("`{origin}`")) && message.contains("allowedOrigins"), "{message}");
        let answer =
            ask(&world, "POST", CHAT, &[("origin", origin), ("authorization", &bearer)], "{\"messages\":[]}").await;
        assert_eq!((answer.status, cors(&answer), vary(&answer)), (200, vec![], vec!["origin"]), "{origin} {answer:?}");
        assert_eq!(answer.header("access-control-expose-headers"), "");
    }
    // Two origins are none.
    let two = [("origin", APP), ("origin", "https://evil.example"), ("authorization", bearer.as_str())];
    assert_eq!(cors(&ask(&world, "POST", CHAT, &two, "{\"messages\":[]}").await), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_names_the_page_that_may_see_it_and_what_of_its_head() {
    let script = Script::default();
    let world = world_of(&script).await;
    world.allow_origins(&[APP]).await;
    world.subscribe("small", json!([{"limit": 1, "window": "1h"}])).await;
    let small = world.add_key("ann", "small", std::time::Duration::from_secs(60)).await;
    let event = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n";
    let cases = [
        ("200 OK", "POST", CHAT, world.key.as_str(), 200, "ratelimit, ratelimit-policy, x-ratelimit-limit-tokens"),
        ("stream", "POST", CHAT, world.key.as_str(), 200, "ratelimit, ratelimit-policy, x-ratelimit-limit-tokens"),
        ("503 Busy", "POST", CHAT, world.key.as_str(), 503, "retry-after, retry-after-ms"),
        ("400 Bad Request", "POST", CHAT, world.key.as_str(), 400, "ratelimit"),
        ("", "POST", CHAT, "rubbish", 401, "x-ext-auth-reason"),
        ("", "POST", CHAT, "sk-oai-nobody_nothing", 403, "x-ext-auth-reason"),
        // It uses up what there is.
        ("200 OK", "POST", CHAT, small.as_str(), 200, "ratelimit"),
        ("", "POST", CHAT, small.as_str(), 429, "retry-after, retry-after-ms, x-ext-auth-reason"),
        ("", "POST", "/v1/nothing", world.key.as_str(), 404, ""),
        ("", "GET", CHAT, world.key.as_str(), 405, ""),
        ("", "GET", "/llm/qwen/v1/models", world.key.as_str(), 200, ""),
        ("", "GET", "/", world.key.as_str(), 200, ""),
    ];
    for (replica, method, path, key, status, shown) in cases {
        // A replica's own opinion of origins goes nowhere.
        let own = "content-type: application/json\r\nretry-after: 7\r\naccess-control-allow-origin: *\r\naccess-control-allow-credentials: true\r\naccess-control-expose-headers: server\r\nvary: *\r\n";
        match replica {
            "stream" => script.stream(&[event, b"data: [DONE]\n\n"], true),
            _ => script.whole_with(replica, own, r#"{"error":{"message":"m"},"choices":[]}"#),
        }
        let stream = replica == "stream";
        let body = json!({"messages": [], "stream": stream, "max_tokens": 100}).to_string();
        let bearer = format!("Bearer {key}");
        let answer = ask(&world, method, path, &[("origin", APP), ("authorization", &bearer)], &body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let expected = [format!("access-control-allow-origin: {APP}")];
        assert_eq!((cors(&answer), vary(&answer)), (expected.to_vec(), vec!["origin"]), "{answer:?}");
        let exposed: Vec<&str> = answer.header("access-control-expose-headers").split(", ").collect();
        let wanted = shown.split(", ").filter(|name| !name.is_empty()).chain(["x-request-id"]);
        for name in wanted {
            assert!(exposed.contains(&name), "{name} {status}: {answer:?}");
        }
        for name in exposed {
            assert!(!answer.header(name).is_empty(), "{name} is not there: {answer:?}");
        }
    }
    // A stream that another dialect reads, and what the node's public API answers.
    let key = [("origin", APP), ("x-api-key", small.as_str()), ("anthropic-version", "2023-06-01")];
    let answer = ask(&world, "POST", "/llm/qwen/v1/messages", &key, r#"{"max_tokens":9,"messages":[]}"#).await;
    let exposed = answer.header("access-control-expose-headers");
    assert!(
        answer.status == 429 && exposed.contains("request-id") && exposed.contains("anthropic-ratelimit-tokens-limit")
    );
    let answer = ask(&world, "GET", "/healthz", &[("origin", APP)], "").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, APP));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_star_allows_every_page_and_no_page_ever_gets_credentials() {
    let script = Script::default();
    script.pieces("200 OK", "application/json", vec![b"{}".to_vec()], End::Proper);
    let world = world_of(&script).await;
    world.allow_origins(&["*"]).await;
    let bearer = format!("Bearer {}", world.key);
    for origin in [APP, "https://evil.example", "null", "file://"] {
        let answer = preflight(&world, CHAT, origin, "POST").await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, "*"), "{answer:?}");
        let answer =
            ask(&world, "POST", CHAT, &[("origin", origin), ("authorization", &bearer)], "{\"messages\":[]}").await;
        let expected = vec!["access-control-allow-origin: *".to_owned()];
        assert_eq!((answer.status, cors(&answer), vary(&answer)), (200, expected, vec![]), "{answer:?}");
    }
    let answer = ask(&world, "POST", CHAT, &[("authorization", &bearer)], "{\"messages\":[]}").await;
    assert_eq!(cors(&answer), [""; 0], "no page, no word of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_like_a_preflight_is_answered_as_ever() {
    let script = Script::default();
    let world = world_of(&script).await;
    world.allow_origins(&[APP]).await;
    let long = vec!["x-a"; 65].join(",");
    let method = ("access-control-request-method", "POST");
    let named = |names| [("origin", APP), method, ("access-control-request-headers", names)];
    let table: [(&str, Headers<'_>, u16, &str); 9] = [
        (CHAT, vec![("origin", APP)], 405, "method_not_allowed"),
        (CHAT, vec![method], 405, "method_not_allowed"),
        (CHAT, vec![], 405, "method_not_allowed"),
        ("/v1/nothing", vec![], 404, "unknown_url"),
        ("/v1/nothing", vec![("origin", APP), method], 404, "unknown_url"),
        (CHAT, vec![("origin", APP), ("access-control-request-method", "P OST")], 400, "invalid_preflight"),
        (CHAT, named("x y").to_vec(), 400, "invalid_preflight"),
        (CHAT, named(&long).to_vec(), 400, "invalid_preflight"),
        ("/llm/..%2f/v1/models", vec![("origin", APP), method], 400, "invalid_request"),
    ];
    for (path, headers, status, code) in table {
        let answer = ask(&world, "OPTIONS", path, &headers, "").await;
        let found: Value = answer.json()["error"]["code"].clone();
        assert_eq!((answer.status, found), (status, json!(code)), "{path} {headers:?} {answer:?}");
        let origin = headers.iter().find(|(name, _)| *name == "origin").map_or("", |(_, origin)| origin);
        assert_eq!(answer.header("access-control-allow-origin"), origin, "{answer:?}");
    }
    let answer = ask(&world, "OPTIONS", CHAT, &named(" ,,Authorization , x-b,"), "").await;
    assert_eq!(answer.header("access-control-allow-headers"), "authorization, x-b", "{answer:?}");
}
