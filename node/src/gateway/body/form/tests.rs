use http::header::CONTENT_TYPE;
use raft::doors::OsChance;

use super::*;
use crate::gateway::body::Steering;
use crate::gateway::progress::HiddenUsage;

const B: &str = "xyz";

fn endpoint() -> &'static Endpoint {
    Endpoint::at("/v1/audio/transcriptions").unwrap()
}

fn text(name: &str, value: &str) -> String {
    format!("--{B}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn file(head: &str, bytes: &str) -> String {
    format!("--{B}\r\nContent-Disposition: form-data; {head}\r\n\r\n{bytes}\r\n")
}

fn spoken() -> String {
    file("name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav", "RIFF....")
}

fn end() -> String {
    format!("--{B}--\r\n")
}

async fn read_as(media_type: &str, form: impl Into<Vec<u8>>) -> Result<CallBody, Refusal> {
    let mut headers = HeaderMap::new();
    if !media_type.is_empty() {
        headers.insert(CONTENT_TYPE, media_type.parse().unwrap());
    }
    let id = CallId::of(&headers, &OsChance);
    read(Bytes::from(form.into()), &headers, endpoint(), &id).await
}

async fn read_form(form: impl Into<Vec<u8>>) -> Result<CallBody, Refusal> {
    read_as("multipart/form-data; boundary=xyz", form).await
}

/// What a replica gets, with the boundary of these tests.
fn written(body: &CallBody, output_max: Option<u64>) -> String {
    let bytes = body.rewrite("acme/whisper", &Steering::default(), endpoint(), output_max);
    let media_type = body.content_type();
    let boundary = media_type.to_str().unwrap().strip_prefix("multipart/form-data; boundary=").unwrap();
    assert!(boundary.starts_with("tollgate-") && boundary.len() == 41, "{boundary}");
    String::from_utf8_lossy(&bytes).replace(boundary, B)
}

#[tokio::test]
async fn a_form_is_read_wherever_its_model_is_and_written_with_the_replicas_name_of_it() {
    let rest = [text("language", "en"), text("timestamp_granularities[]", "word")].concat();
    let again = text("timestamp_granularities[]", "segment");
    let model = text("model", "qwen");
    let orders = [
        [model.clone(), rest.clone(), again.clone(), spoken(), end()],
        [spoken(), model.clone(), rest.clone(), again.clone(), end()],
        [rest.clone(), spoken(), again.clone(), model.clone(), end()],
    ];
    for form in orders {
        let body = read_form(form.concat()).await.unwrap();
        assert_eq!((body.model.as_deref(), body.streams, body.choices), (Some("qwen"), false, 1));
        let written = written(&body, None);
        let file = file("name=\"file\"; filename=\"file.wav\"\r\nContent-Type: audio/wav", "RIFF....");
        assert!(written.ends_with(&[file, end()].concat()), "{written}");
        for part in [&text("model", "acme/whisper"), &rest, &again] {
            assert!(written.contains(part.as_str()), "{written}");
        }
        assert!(written.find(&rest) < written.find(&again), "{written}");
    }
    let unnamed = read_form([spoken(), end()].concat()).await.unwrap();
    assert!(unnamed.model.is_none() && written(&unnamed, None).contains(&text("model", "acme/whisper")));
}

#[tokio::test]
async fn a_stream_is_asked_for_usage_and_a_bound_is_told() {
    let flags = |fields: &[(&str, &str)]| {
        let texts: String = fields.iter().map(|(name, value)| text(name, value)).collect();
        read_form([texts, spoken(), end()].concat())
    };
    let (last, running) = ("stream_include_usage", "stream_continuous_usage_stats");
    let hides = |last, running| HiddenUsage { last, running };
    let table = [
        (vec![("stream", "true")], hides(true, true)),
        (vec![("stream", "True"), (last, "true")], hides(false, true)),
        (vec![("stream", "1"), (last, "yes"), (running, "on")], hides(false, false)),
        (vec![("stream", "true"), (last, "false"), (running, "true")], hides(true, true)),
    ];
    for (fields, hidden) in table {
        let body = flags(&fields).await.unwrap();
        assert!(body.streams);
        assert_eq!(body.hidden_usage(endpoint()), hidden, "{fields:?}");
        let written = written(&body, Some(100));
        for (name, value) in [("stream", "true"), (last, "true"), (running, "true"), ("max_completion_tokens", "100")] {
            let value = if name == "stream" && fields[0].1 == "true" { fields[0].1 } else { value };
            assert_eq!(written.matches(&format!("name=\"{name}\"")).count(), 1, "{written}");
            assert!(written.contains(&text(name, value)), "{written}");
        }
    }
    let plain = flags(&[("stream", "false"), ("max_completion_tokens", "300"), ("temperature", "0.2")]).await.unwrap();
    let written = written(&plain, Some(100));
    assert!(written.contains(&text("max_completion_tokens", "100")) && written.contains(&text("temperature", "0.2")));
    assert!(!written.contains("usage"), "{written}");
}

#[tokio::test]
async fn what_steers_the_engine_does_not_reach_a_replica_and_what_is_unknown_does() {
    let steering = [&ENGINE_FIELDS[..], &["vllm_xargs[x]", "priority.x"]].concat();
    let texts: String = steering.iter().map(|name| text(name, "7")).collect();
    let hostile = file("name=\"vllm_xargs[f]\"; filename=\"f\"", "7");
    // vLLM's other fields of speech.
    let usual = [
        "language",
        "to_language",
        "prompt",
        "response_format",
        "timestamp_granularities[]",
        "use_beam_search",
        "n",
        "length_penalty",
        "include_stop_str_in_output",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "frequency_penalty",
        "repetition_penalty",
        "presence_penalty",
    ];
    let usual: String = usual.iter().map(|name| text(name, "1")).collect();
    let odd = [text("hotwords", "Tollgate\r\n--xy\"; name=\"model\""), text("x.y[z]-1_", "")].concat();
    let attached = file("name=\"speaker\"; filename=\"../../s.P-3\"\r\nContent-Type: text/html", "him");
    let body =
        read_form([texts, hostile, usual.clone(), odd.clone(), spoken(), attached, end()].concat()).await.unwrap();
    let written = written(&body, None);
    assert!(steering.iter().all(|name| !written.contains(&format!("name=\"{name}"))), "{written}");
    assert!(written.contains(&[usual, odd].concat()), "{written}");
    let head = "name=\"speaker\"; filename=\"file\"\r\nContent-Type: application/octet-stream";
    assert!(written.contains(&file(head, "him")), "{written}");
}

#[tokio::test]
async fn only_bytes_of_a_file_are_the_clients() {
    let table = [
        ("filename=\"a.wav\"", "file.wav"),
        ("filename=\"A.MP3\"", "file.mp3"),
        ("filename=\"/etc/passwd\"", "file"),
        ("filename=\"..\\..\\x.m4a\"", "file.m4a"),
        ("filename=\"a\\\"; name=\\\"model.ogg\"", "file.ogg"),
        ("filename=\"\"", "file"),
        ("filename*=UTF-8''%e2%82%ac.wav", "file"),
        ("filename=\"a.w\u{e4}v\"", "file"),
        ("filename=\"a.averylongextension\"", "file"),
    ];
    let bytes = "any\r\n--xy\r\n\0bytes";
    for (head, expected) in table {
        let form = [file(&format!("name=\"file\"; {head}\r\nX-Odd: 1"), bytes), end()].concat();
        let written = written(&read_form(form).await.unwrap(), None);
        let head = format!("name=\"file\"; filename=\"{expected}\"\r\nContent-Type: application/octet-stream");
        assert_eq!(written, [text("model", "acme/whisper"), file(&head, bytes), end()].concat(), "{head}");
    }
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_or_costs_too_much_is_refused_with_its_reason() {
    let with = |parts: &str| [parts, &spoken(), &end()].concat();
    let table = [
        ("no form at all", "{}".to_owned(), "incomplete"),
        ("nothing", String::new(), "incomplete"),
        ("no part", end(), "`file` is missing"),
        ("no file", [text("model", "m"), end()].concat(), "`file` is missing"),
        ("the file as a text", with(&text("file", "RIFF")), "`file` must be a file"),
        ("two files", with(&spoken()), "`file` is there twice"),
        ("two models", with(&[text("model", "a"), text("model", "b")].concat()), "`model` is there twice"),
        ("two streams", with(&[text("stream", "1"), text("stream", "0")].concat()), "`stream` is there twice"),
        ("a model in a file", with(&file("name=\"model\"; filename=\"m\"", "m")), "`model` must be a text"),
        ("no last boundary", spoken(), "incomplete"),
        ("cut in a value", spoken()[..spoken().len() - 4].to_owned(), "incomplete"),
        ("cut in a head", "--xyz\r\nContent-Disp".to_owned(), "incomplete"),
        ("another boundary", with("").replace("--xyz", "--abc"), "incomplete"),
        ("a longer boundary", with("").replace("--xyz--", "--xyzz--"), "incomplete"),
        ("no disposition", with("--xyz\r\nX: 1\r\n\r\nx\r\n"), "no Content-Disposition"),
        (
            "an attachment",
            with("--xyz\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\nx\r\n"),
            "no Content-Disposition",
        ),
        ("no name", with(&file("x=\"y\"", "x")), "has no name"),
        ("an empty name", with(&text("", "x")), "has no name"),
        ("a name with a quote", with(&text("a\\\"b", "x")), "has no name"),
        ("a name with a line break", with(&text("a\tb", "x")), "has no name"),
        ("a name in two alphabets", with(&text("m\u{43e}del", "x")), "has no name"),
        ("a long name", with(&text(&"n".repeat(129), "x")), "has no name"),
        (
            "a form in a form",
            with(&file("name=\"a\"\r\nContent-Type: Multipart/mixed; boundary=q", "--q--")),
            "a form itself",
        ),
        (
            "base 64",
            with(&file("name=\"a\"\r\nContent-Transfer-Encoding: base64", "YQ==")),
            "Content-Transfer-Encoding",
        ),
        ("a long head", with(&file(&format!("name=\"a\"\r\nX: {}", "x".repeat(9000)), "x")), "longer than 8 KiB"),
        ("an endless head", format!("--xyz\r\nX: {}", "x".repeat(1_000_000)), "longer than 8 KiB"),
        ("a long preamble", [&"x".repeat(1_000_000), with("").as_str()].concat(), "longer than 8 KiB"),
        ("many lines in a head", with(&file(&format!("name=\"a\"{}", "\r\nX: 1".repeat(40)), "x")), "cannot be read"),
        ("a head that is none", with("--xyz\r\nContent Disposition\r\n\r\nx\r\n"), "cannot be read"),
        ("many parts", with(&text("a", "b").repeat(64)), "more than 64 parts"),
        (
            "much text",
            with(&[text("a", &"\u{1}".repeat(600_000)), text("b", &"b".repeat(600_000))].concat()),
            "more than 1048576 bytes",
        ),
        ("no number", with(&text("n", "many")), "`n` must be an integer"),
        ("no flag", with(&text("stream", "maybe")), "`stream` must be true or false"),
        ("no flag either", with(&text("stream_include_usage", "2")), "`stream_include_usage` must be true or false"),
    ];
    for (what, form, expected) in table {
        let refusal = read_form(form).await.expect_err(what);
        assert_eq!(refusal.status(), 400, "{what}");
        assert!(refusal.to_string().contains(expected), "{what}: {refusal}");
    }
    let latin =
        [b"--xyz\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\n\xe9\r\n", with("").as_bytes()].concat();
    assert!(read_form(latin).await.unwrap_err().to_string().contains("`prompt` is not UTF-8"));
}

#[tokio::test]
async fn a_body_must_say_that_it_is_a_form_and_how_its_parts_are_told_apart() {
    let form = [spoken(), end()].concat();
    let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
    let table = [
        ("", "one Content-Type"),
        ("application/json", "not `multipart/form-data`"),
        ("application/x-www-form-urlencoded", "not `multipart/form-data`"),
        ("multipart/mixed; boundary=xyz", "not `multipart/form-data`"),
        ("multipart/form-data", "no boundary"),
        ("multipart/form-data; boundary=", ""),
        ("multipart/form-data; boundary=\"a\u{7f}b\"", ""),
        ("multipart/form-data; boundary=\"a<b\"", "its boundary is none"),
        ("multipart/form-data; boundary=\"xyz \"", "its boundary is none"),
        (&long, "its boundary is none"),
    ];
    for (media_type, expected) in table {
        let Ok(_) = HeaderValue::from_str(media_type) else { continue };
        let refusal = read_as(media_type, form.clone()).await.expect_err(media_type);
        assert_eq!(refusal.status(), 400, "{media_type}");
        assert!(refusal.to_string().contains(expected), "{media_type}: {refusal}");
    }
    for media_type in ["Multipart/Form-Data; charset=utf-8; boundary=\"xyz\"", "multipart/form-data;boundary=xyz"] {
        assert!(read_as(media_type, form.clone()).await.is_ok(), "{media_type}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever is in a file, a replica gets it; where the pieces of the body end makes no difference.
    #[test]
    fn a_file_arrives_as_it_was(
        parts in proptest::collection::vec(proptest::sample::select(vec!["\r\n", "--", "--xyz", "\r", "\r\n--xy", "\0", "data"]), 0..40),
        length in 65_300_usize..65_700,
    ) {
        let mut text = parts.concat();
        while text.contains("\r\n--xyz") {
            text = text.replace("\r\n--xyz", "");
        }
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len() + length, b'\n');
        bytes.extend_from_slice(b"\r\n-");
        let head = "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
        let form = [head.as_bytes(), &bytes, b"\r\n--xyz--\r\n"].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(read_form(form)).unwrap();
        proptest::prop_assert_eq!(&body.form.unwrap().files[0].bytes, &bytes);
    }
}
