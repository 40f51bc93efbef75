use bytes::Bytes;

use super::*;

fn chat() -> &'static Endpoint {
    Endpoint::at("/v1/chat/completions").unwrap()
}

fn scan(body: &str) -> Result<CallBody, Refusal> {
    CallBody::scan(Bytes::copy_from_slice(body.as_bytes()), chat())
}

#[test]
fn bodies_are_spliced_and_nothing_else_changes() {
    let table = [
        (r#"{"model":"a"}"#, r#"{"model":"served"}"#),
        (r#" {"model" : "a" , "x":[1, 2e3,"\u00e9"]} "#, r#" {"model" : "served" , "x":[1, 2e3,"\u00e9"]} "#),
        (r#"{"mod\u0065l":"a","z":1}"#, r#"{"mod\u0065l":"served","z":1}"#),
        (r#"{}"#, r#"{"model":"served"}"#),
        (r#"{ "messages":[]}"#, r#"{"model":"served", "messages":[]}"#),
        (r#"{"model":null}"#, r#"{"model":"served"}"#),
        (r#"{"model":"served"}"#, r#"{"model":"served"}"#),
        (
            r#"{"model":"a","stream":true}"#,
            r#"{"stream_options":{"include_usage":true,"continuous_usage_stats":true},"model":"served","stream":true}"#,
        ),
        (
            r#"{"stream_options":{"continuous_usage_stats":true},"stream":true,"model":"a"}"#,
            r#"{"stream_options":{"continuous_usage_stats":true,"include_usage":true},"stream":true,"model":"served"}"#,
        ),
        (
            r#"{"stream":true,"stream_options":null,"model":"served"}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},"model":"served"}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},"model":"served"}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},"model":"served"}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":true},"model":"served"}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},"model":"served"}"#,
        ),
        // Running usage is of one choice.
        (
            r#"{"stream":true,"n":2}"#,
            r#"{"model":"served","stream_options":{"include_usage":true},"stream":true,"n":2}"#,
        ),
        (
            r#"{"stream":false,"stream_options":{},"model":"served"}"#,
            r#"{"stream":false,"stream_options":{},"model":"served"}"#,
        ),
        (
            r#"{"stream":true}"#,
            r#"{"model":"served","stream_options":{"include_usage":true,"continuous_usage_stats":true},"stream":true}"#,
        ),
    ];
    for (body, expected) in table {
        let rewritten = scan(body).unwrap().rewrite("served", chat(), None);
        assert_eq!(std::str::from_utf8(&rewritten).unwrap(), expected, "{body}");
    }
}

#[test]
fn an_output_is_bounded_where_the_replica_looks_for_it() {
    let table = [
        ("/v1/chat/completions", r#"{"model":"m"}"#, r#"{"max_completion_tokens":9,"model":"m"}"#),
        ("/v1/chat/completions", r#"{"model":"m","max_tokens":9}"#, r#"{"model":"m","max_tokens":9}"#),
        (
            "/v1/chat/completions",
            r#"{"model":"m","max_tokens":10,"max_completion_tokens":"4"}"#,
            r#"{"model":"m","max_tokens":9,"max_completion_tokens":"4"}"#,
        ),
        ("/v1/chat/completions", r#"{"max_tokens":null,"model":"m"}"#, r#"{"max_tokens":9,"model":"m"}"#),
        ("/v1/completions", r#"{"max_tokens":-1,"model":"m"}"#, r#"{"max_tokens":9,"model":"m"}"#),
        // What bounds nothing there is not taken for a bound.
        (
            "/v1/completions",
            r#"{"max_output_tokens":3,"model":"m"}"#,
            r#"{"max_tokens":9,"max_output_tokens":3,"model":"m"}"#,
        ),
        ("/v1/responses", r#"{"model":"m","max_output_tokens":1e9}"#, r#"{"model":"m","max_output_tokens":9}"#),
        (
            "/v1/messages",
            r#"{"max_tokens":99,"max_tokens":5,"model":"m"}"#,
            r#"{"max_tokens":9,"max_tokens":5,"model":"m"}"#,
        ),
        ("/v1/embeddings", r#"{"model":"m"}"#, r#"{"model":"m"}"#),
    ];
    for (path, body, expected) in table {
        let endpoint = Endpoint::at(path).unwrap();
        let scanned = CallBody::scan(Bytes::from_static(body.as_bytes()), endpoint).unwrap();
        let rewritten = scanned.rewrite("m", endpoint, Some(9));
        assert_eq!(std::str::from_utf8(&rewritten).unwrap(), expected, "{path} {body}");
    }
}

#[test]
fn what_is_no_call_is_refused() {
    let table = [
        ("", "the request body is empty: send a JSON object"),
        ("[]", "the request body is not a JSON object"),
        ("\"x\"", "the request body is not a JSON object"),
        ("{\"a\":1", "the request body is not valid JSON: EOF while parsing an object at line 1 column 6"),
        ("{\"a\":1} x", "the request body is not valid JSON: trailing characters at line 1 column 9"),
        ("{\"model\":7}", "`model` must be a string"),
        ("{\"model\":\"a\",\"model\":\"a\"}", "`model` is there twice"),
        (r#"{"model":"a","mod\u0065l":"b"}"#, "`model` is there twice"),
    ];
    for (body, message) in table {
        assert_eq!(scan(body).unwrap_err().to_string(), message, "{body}");
    }
}

#[test]
fn sizes_are_read_where_replicas_read_them() {
    let body = scan(r#"{"max_tokens":"4","max_completion_tokens":9,"n":2,"best_of":3,"messages":[1]}"#).unwrap();
    assert_eq!((body.max_tokens, body.choices), (Some(9), 3));
    let completions = Endpoint::at("/v1/completions").unwrap();
    let choices =
        |body: &'static str| CallBody::scan(Bytes::from_static(body.as_bytes()), completions).unwrap().choices;
    assert_eq!(choices(r#"{"prompt":["a","b"],"n":2}"#), 4);
    assert_eq!(choices(r#"{"prompt":[1,2,3]}"#), 1);
    assert_eq!(choices(r#"{"prompt":[[1,2],[3]]}"#), 2);
}
