//! A replica that answers probes, and every call with exactly the pieces it was given.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// What calls are answered with from now on, and what they were asked.
#[derive(Clone, Default)]
pub(crate) struct Script(Arc<Mutex<Inner>>);

struct Inner {
    /// The head; chunked pieces follow it if it says so. An empty piece is a pause.
    head: String,
    pieces: Vec<Vec<u8>>,
    end: End,
    /// How many pauses are over.
    go_on: Arc<Semaphore>,
    /// How many calls are in one.
    paused: usize,
    /// Calls in which a text occurs get this whole answer instead.
    poison: Option<(String, String)>,
    requests: Vec<String>,
}

impl Default for Inner {
    fn default() -> Inner {
        Inner {
            head: String::new(),
            pieces: Vec::new(),
            end: End::Proper,
            go_on: Arc::new(Semaphore::new(0)),
            paused: 0,
            poison: None,
            requests: Vec::new(),
        }
    }
}

/// What follows the last piece of an answer.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The end of the body.
    #[default]
    Proper,
    /// The end of the connection.
    Cut,
    /// Nothing, and the connection stays open.
    Silence,
}

impl Script {
    /// A stream of events in these pieces.
    pub(crate) fn stream(&self, pieces: &[&[u8]], ends: bool) {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
        let pieces = pieces.iter().filter(|piece| !piece.is_empty()).map(|piece| piece.to_vec()).collect();
        self.set(head.to_owned(), pieces, if ends { End::Proper } else { End::Cut });
    }

    /// A stream of events in these pieces, with a pause wherever one is empty.
    pub(crate) fn paused_stream(&self, pieces: &[&str], end: End) {
        let pieces = pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect();
        self.pieces("200 OK", "text/event-stream", pieces, end);
    }

    /// All of this head, a pause, and then this end.
    pub(crate) fn paused_head(&self, head: &str, end: End) {
        self.set(head.to_owned(), vec![Vec::new()], end);
    }

    /// How many calls wait in a pause.
    pub(crate) fn open_calls(&self) -> usize {
        self.0.lock().unwrap().paused
    }

    /// Ends a pause, or the next one.
    pub(crate) fn go_on(&self) {
        self.0.lock().unwrap().go_on.add_permits(1);
    }

    /// An answer of this content type in these pieces.
    pub(crate) fn pieces(&self, status: &str, content_type: &str, pieces: Vec<Vec<u8>>, end: End) {
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n");
        self.set(head, pieces, end);
    }

    /// A whole answer.
    pub(crate) fn whole(&self, status: &str, body: &str) {
        self.whole_with(status, "content-type: application/json\r\n", body);
    }

    /// A whole answer with these lines in its head.
    pub(crate) fn whole_with(&self, status: &str, lines: &str, body: &str) {
        let length = body.len();
        self.set(
            format!("HTTP/1.1 {status}\r\n{lines}content-length: {length}\r\n\r\n{body}"),
            Vec::new(),
            End::Proper,
        );
    }

    /// From now on calls in which `text` occurs get `answer`, all of its bytes, and the connection closes.
    pub(crate) fn poison(&self, text: &str, answer: &str) {
        self.0.lock().unwrap().poison = Some((text.to_owned(), answer.to_owned()));
    }

    fn set(&self, head: String, pieces: Vec<Vec<u8>>, end: End) {
        let mut inner = self.0.lock().unwrap();
        (inner.head, inner.pieces, inner.end) = (head, pieces, end);
    }

    /// The calls that came, heads and bodies.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.0.lock().unwrap().requests.clone()
    }

    /// Opens the port and returns the URL.
    pub(crate) async fn serve(&self) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = script.clone();
                tokio::spawn(async move { script.connection(stream).await });
            }
        });
        url
    }

    async fn connection(&self, mut stream: TcpStream) {
        while let Some(request) = read_request(&mut stream).await {
            if request.starts_with("GET ") {
                let body = "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0\n";
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap_or_default();
                continue;
            }
            let go_on = self.0.lock().unwrap().go_on.clone();
            let (head, pieces, end) = {
                let mut inner = self.0.lock().unwrap();
                let poison = inner.poison.as_ref().filter(|(text, _)| request.contains(text));
                let poison = poison.map(|(_, answer)| (answer.clone(), Vec::new(), End::Cut));
                inner.requests.push(request);
                poison.unwrap_or_else(|| (inner.head.clone(), inner.pieces.clone(), inner.end))
            };
            stream.set_nodelay(true).unwrap();
            let _ = stream.write_all(head.as_bytes()).await;
            for piece in &pieces {
                if piece.is_empty() {
                    self.0.lock().unwrap().paused += 1;
                    let mut nothing = [0];
                    let goes_on = tokio::select! {
                        pause = go_on.acquire() => pause.map(|pause| pause.forget()).is_ok(),
                        // The other side has left.
                        _ = stream.read(&mut nothing) => false,
                    };
                    self.0.lock().unwrap().paused -= 1;
                    if goes_on { continue } else { return }
                }
                let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
                chunk.extend_from_slice(piece);
                chunk.extend_from_slice(b"\r\n");
                let _ = stream.write_all(&chunk).await;
                tokio::task::yield_now().await;
            }
            match end {
                End::Proper => {}
                End::Cut => return,
                // Until the other side gives up.
                End::Silence => {
                    let _ = stream.read(&mut [0]).await;
                    return;
                }
            }
            if head.contains("chunked") {
                let _ = stream.write_all(b"0\r\n\r\n").await;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return Some(text);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
