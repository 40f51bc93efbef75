//! A small HTTP client over an in-memory connection, which keeps what it saw and when.

use serde_json::{Value, json};
use sim_vllm::Replica;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::Instant,
};

/// What came back, as far as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The answer ended as HTTP says; false when the connection was cut before.
    pub(crate) complete: bool,
    /// Length of the body at each read, and when.
    pub(crate) reads: Vec<(Instant, usize)>,
}

/// One server-sent event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) at: Instant,
    pub(crate) name: Option<String>,
    pub(crate) data: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let text = self.text();
        let mut end = 0;
        text.split_inclusive("\n\n")
            .filter(|block| block.ends_with("\n\n"))
            .map(|block| {
                end += block.len();
                let at = self.reads.iter().find(|(_, length)| *length >= end).map_or(Instant::now(), |(at, _)| *at);
                let line = |key: &str| block.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
                Event { at, name: line("event: "), data: line("data: ").unwrap_or_default() }
            })
            .collect()
    }

    /// The JSON of the events that have some.
    pub(crate) fn chunks(&self) -> Vec<Value> {
        self.events().iter().filter_map(|event| serde_json::from_str(&event.data).ok()).collect()
    }

    /// What a streamed chat answer says, of one kind (`content` or `reasoning`).
    pub(crate) fn streamed(&self, kind: &str) -> String {
        self.chunks()
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"][kind].as_str().map(str::to_owned))
            .collect()
    }
}

/// A POST of JSON.
pub(crate) fn post(path: &str, body: &Value) -> Vec<u8> {
    post_with(path, "", body)
}

/// The same with header lines, each ending in CRLF.
pub(crate) fn post_with(path: &str, headers: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: sim\r\n{headers}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: sim\r\n\r\n").into_bytes()
}

/// A chat request with one message.
pub(crate) fn chat(text: &str, more: Value) -> Value {
    let mut body = json!({"model": "openai/gpt-oss-20b", "messages": [{"role": "user", "content": text}]});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// A connection to a replica.
pub(crate) fn connect(replica: &Replica) -> DuplexStream {
    let (near, far) = tokio::io::duplex(1 << 20);
    let replica = replica.clone();
    tokio::spawn(async move { replica.serve_connection(far).await });
    near
}

/// Sends bytes on a new connection and reads the answer.
pub(crate) async fn send(replica: &Replica, request: &[u8]) -> Answer {
    exchange(&mut connect(replica), request).await
}

/// Sends bytes and reads the answer to its end (or to the end of the connection).
pub(crate) async fn exchange(io: &mut DuplexStream, request: &[u8]) -> Answer {
    // A peer that is gone already shows when reading.
    let _ = io.write_all(request).await;
    let no_body = request.starts_with(b"HEAD ");
    let mut seen = Vec::new();
    let mut answer = Answer { status: 0, headers: vec![], body: vec![], complete: false, reads: vec![] };
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = io.read(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            return answer;
        }
        seen.extend_from_slice(&buffer[..count]);
        read_so_far(&seen, no_body, &mut answer);
        answer.reads.push((Instant::now(), answer.body.len()));
        if answer.complete {
            return answer;
        }
    }
}

fn read_so_far(seen: &[u8], no_body: bool, answer: &mut Answer) {
    let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") else { return };
    let head = String::from_utf8_lossy(&seen[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).and_then(|status| status.parse().ok());
    let Some(status) = status else { return };
    if status == 100 {
        return read_so_far(&seen[end + 4..], no_body, answer);
    }
    answer.status = status;
    answer.headers =
        lines.filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let rest = &seen[end + 4..];
    if answer.header("transfer-encoding") == Some("chunked") {
        (answer.body, answer.complete) = dechunk(rest);
    } else {
        let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        answer.body = rest.to_vec();
        answer.complete = no_body || rest.len() >= length;
    }
}

fn dechunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(line) = rest.windows(2).position(|window| window == b"\r\n") else { return (body, false) };
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        let end = line + 2 + size;
        if rest.len() < end + 2 {
            return (body, false);
        }
        body.extend_from_slice(&rest[line + 2..end]);
        rest = &rest[end + 2..];
    }
}
