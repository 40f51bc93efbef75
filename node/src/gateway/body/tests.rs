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
        (
            r#"{"stream":true,"n":2}"#,
            r#"{"model":"served","stream_options":{"include_usage":true,"continuous_usage_stats":true},"stream":true,"n":2}"#,
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
        let rewritten = scan(body).unwrap().rewrite("served", &Steering::default(), chat(), None);
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
            r#"{"model":"m","max_tokens":9,"max_completion_tokens":4}"#,
        ),
        ("/v1/chat/completions", r#"{"max_tokens":null,"model":"m"}"#, r#"{"max_tokens":9,"model":"m"}"#),
        (
            "/v1/chat/completions",
            r#"{"min_tokens":12,"model":"m"}"#,
            r#"{"max_completion_tokens":9,"min_tokens":9,"model":"m"}"#,
        ),
        // What bounds nothing there is not taken for a bound.
        (
            "/v1/completions",
            r#"{"max_output_tokens":3,"model":"m"}"#,
            r#"{"max_tokens":9,"max_output_tokens":3,"model":"m"}"#,
        ),
        ("/v1/responses", r#"{"model":"m","max_output_tokens":1e9}"#, r#"{"model":"m","max_output_tokens":9}"#),
        ("/v1/messages", r#"{"max_tokens":"9_9.0","model":"m"}"#, r#"{"max_tokens":9,"model":"m"}"#),
        ("/v1/embeddings", r#"{"model":"m"}"#, r#"{"model":"m"}"#),
    ];
    for (path, body, expected) in table {
        let endpoint = Endpoint::at(path).unwrap();
        let scanned = CallBody::scan(Bytes::from_static(body.as_bytes()), endpoint).unwrap();
        let rewritten = scanned.rewrite("m", &Steering::default(), endpoint, Some(9));
        assert_eq!(std::str::from_utf8(&rewritten).unwrap(), expected, "{path} {body}");
    }
}

#[test]
fn a_replica_gets_numbers_and_flags_in_one_form() {
    let table = [
        (r#"{"model":"m","max_tokens":100.0,"n":"1"}"#, r#"{"model":"m","max_tokens":100,"n":1}"#),
        (r#"{"model":"m","n":1e0,"min_tokens":"1_000"}"#, r#"{"model":"m","n":1,"min_tokens":1000}"#),
        (r#"{"model":"m","\u006e":true,"max_tokens":null}"#, r#"{"model":"m","\u006e":1,"max_tokens":null}"#),
        (
            r#"{"model":"m","stream":"off","stream_options":null}"#,
            r#"{"model":"m","stream":false,"stream_options":null}"#,
        ),
        (
            r#"{"model":"m","stream":"yes","stream_options":{"include_usage":0,"x":[1]}}"#,
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true,"x":[1],"continuous_usage_stats":true}}"#,
        ),
        // Of two options of one name Python takes the last, and the replica is sent one.
        (
            r#"{"model":"m","stream_options":{"include_usage":"t","include_usage":"f"}}"#,
            r#"{"model":"m","stream_options":{"include_usage":false}}"#,
        ),
        // What no replica reads as a number stays as it is.
        (r#"{"model":"m","seed":"5","top_k":4.0}"#, r#"{"model":"m","seed":"5","top_k":4.0}"#),
    ];
    for (body, expected) in table {
        let rewritten = scan(body).unwrap().rewrite("m", &Steering::default(), chat(), None);
        assert_eq!(std::str::from_utf8(&rewritten).unwrap(), expected, "{body}");
    }
}

#[test]
fn fields_that_steer_the_engine_are_taken_out() {
    let table = [
        (r#"{"priority":1}"#, r#"{"model":"m"}"#),
        (r#"{"priority":1,"model":"m"}"#, r#"{"model":"m"}"#),
        (r#"{"model":"m","priority":1}"#, r#"{"model":"m"}"#),
        (r#"{ "priority" : 1 , "model":"m" , "cache_salt":"x" }"#, r#"{ "model":"m" }"#),
        (r#"{"priority":1,"request_id":"r","model":"m"}"#, r#"{"model":"m"}"#),
        (r#"{"model":"m","priority":1,"request_id":"r"}"#, r#"{"model":"m"}"#),
        (r#"{"priority":1,"request_id":"r"}"#, r#"{"model":"m"}"#),
        (
            r#"{"a":1,"priority":{"x":[1,"}"]},"b":2,"vllm_xargs":{},"kv_transfer_params":{"a":1},"model":"m"}"#,
            r#"{"a":1,"b":2,"model":"m"}"#,
        ),
        (r#"{"model":"m","reque\u0073t_id":"r"}"#, r#"{"model":"m"}"#),
        // Inside a field it steers nothing.
        (r#"{"model":"m","metadata":{"priority":1}}"#, r#"{"model":"m","metadata":{"priority":1}}"#),
    ];
    for (body, expected) in table {
        let rewritten = scan(body).unwrap().rewrite("m", &Steering::default(), chat(), None);
        assert_eq!(std::str::from_utf8(&rewritten).unwrap(), expected, "{body}");
    }
}

#[test]
fn what_is_no_call_is_refused() {
    let table = [
        ("", "the request body is empty: send a JSON object"),
        ("[]", "the request body is not a JSON object"),
        ("\"x\"", "the request body is not a JSON object"),
        ("{\"a\":1", "the request body is not valid JSON: it ends too early at byte 6, in or after the field \"a\""),
        (
            "{\"a\":1} x",
            "the request body is not valid JSON: something follows the object at byte 8, in or after the field \"a\"",
        ),
        (
            "{\"temperature\":NaN}",
            "the request body is not valid JSON: a value is missing at byte 15, in or after the field \"temperature\"",
        ),
        ("{\"model\":7}", "`model` must be a string"),
        ("{\"model\":\"a\",\"model\":\"a\"}", "`model` is there twice: send it once"),
        (r#"{"model":"a","mod\u0065l":"b"}"#, "`model` is there twice: send it once"),
        (r#"{"n":1,"n":8}"#, "`n` is there twice: send it once"),
        (r#"{"n":1,"\u006e":8}"#, "`n` is there twice: send it once"),
        (r#"{"stream":false,"stream":true}"#, "`stream` is there twice: send it once"),
        (r#"{"messages":[],"x":1,"messages":[1]}"#, "`messages` is there twice: send it once"),
        (r#"{"n":1.5}"#, "`n` must be an integer"),
        (r#"{"n":"many"}"#, "`n` must be an integer"),
        (r#"{"n":0}"#, "`n` must be at least 1"),
        (r#"{"n":-1}"#, "`n` must be at least 1"),
        (r#"{"n":16385}"#, "`n` must be at most 16384"),
        (r#"{"max_tokens":-1}"#, "`max_tokens` must be at least 0"),
        (r#"{"max_tokens":1e30}"#, "`max_tokens` is too large"),
        (r#"{"max_completion_tokens":[9]}"#, "`max_completion_tokens` must be an integer"),
        (r#"{"stream":"maybe"}"#, "`stream` must be true or false"),
        (r#"{"stream":" true"}"#, "`stream` must be true or false"),
        (r#"{"stream_options":[]}"#, "`stream_options` must be an object"),
        (
            r#"{"stream_options":{"include_usage":"maybe"}}"#,
            "`stream_options` is wrong: `include_usage` must be true or false",
        ),
    ];
    for (body, message) in table {
        assert_eq!(scan(body).unwrap_err().to_string(), message, "{body}");
    }
}

#[test]
fn sizes_are_read_where_replicas_read_them() {
    let read = |path: &str, body: &'static str| {
        let scanned = CallBody::scan(Bytes::from_static(body.as_bytes()), Endpoint::at(path).unwrap()).unwrap();
        (scanned.max_tokens, scanned.choices)
    };
    let table = [
        ("/v1/chat/completions", r#"{"max_tokens":"4","n":2,"best_of":3,"messages":[1]}"#, (Some(4), 3)),
        ("/v1/chat/completions", r#"{"max_tokens":4,"max_completion_tokens":9}"#, (Some(9), 1)),
        ("/v1/chat/completions", r#"{"max_tokens":9,"max_completion_tokens":4.0}"#, (Some(4), 1)),
        ("/v1/chat/completions", r#"{"max_tokens":9,"max_completion_tokens":null}"#, (Some(9), 1)),
        ("/v1/chat/completions", r#"{"max_output_tokens":9,"n":" 8.0 "}"#, (None, 8)),
        ("/v1/responses", r#"{"max_output_tokens":"1_0","max_tokens":3}"#, (Some(10), 1)),
        ("/v1/messages", r#"{"max_tokens":true}"#, (Some(1), 1)),
        ("/v1/embeddings", r#"{"n":"what","max_tokens":-4}"#, (None, 1)),
        ("/v1/completions", r#"{"prompt":["a","b"],"n":2}"#, (Some(16), 4)),
        ("/v1/completions", r#"{"prompt":"a","max_tokens":null}"#, (None, 1)),
        ("/v1/completions", r#"{"prompt":"a","max_tokens":0,"echo":true}"#, (Some(1), 1)),
        ("/v1/completions", r#"{"prompt":[1,2,3]}"#, (Some(16), 1)),
        ("/v1/completions", r#"{"prompt":[true,2.0,3]}"#, (Some(16), 1)),
        ("/v1/completions", r#"{"prompt":["1",2]}"#, (Some(16), 2)),
        ("/v1/completions", r#"{"prompt":[[1,2],[3]]}"#, (Some(16), 2)),
        ("/v1/completions", r#"{"prompt":[]}"#, (Some(16), 1)),
        ("/v1/completions", r#"{"prompt":["a"],"prompt_embeds":["x","y"]}"#, (Some(16), 3)),
        ("/v1/completions", r#"{"prompt_embeds":["x","y"]}"#, (Some(16), 2)),
        ("/v1/chat/completions/batch", r#"{"messages":[[],[],[]],"n":2}"#, (None, 6)),
    ];
    for (path, body, expected) in table {
        assert_eq!(read(path, body), expected, "{path} {body}");
    }
}

#[test]
fn a_flag_streams_where_the_replica_reads_it() {
    let streams = |path: &str, body: &'static str| {
        CallBody::scan(Bytes::from_static(body.as_bytes()), Endpoint::at(path).unwrap()).unwrap().streams
    };
    for flag in
        [r#"{"stream":true}"#, r#"{"stream":"true"}"#, r#"{"stream":1}"#, r#"{"stream":"on"}"#, r#"{"stream":1.0}"#]
    {
        assert!(streams("/v1/chat/completions", flag) && streams("/v1/messages", flag), "{flag}");
        assert!(!streams("/v1/embeddings", flag), "{flag}");
    }
    assert!(!streams("/v1/completions", r#"{"stream":null}"#));
}
