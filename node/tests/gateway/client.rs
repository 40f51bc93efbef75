//! A client that writes exactly the bytes it is told to and shows exactly what comes back.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

/// An answer, its body unchunked.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    /// The data of each event of a stream.
    pub(crate) fn events(&self) -> Vec<&str> {
        self.body.split("\n\n").filter_map(|event| event.split("data: ").nth(1)).collect()
    }
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Connection {
        let stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        Connection { stream: TcpStream::from_std(stream).unwrap(), read: Vec::new() }
    }

    /// From another address of this machine, such as 127.0.0.2.
    pub(crate) async fn open_from(source: &str, address: SocketAddr) -> Connection {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
        Connection { stream: socket.connect(address).await.unwrap(), read: Vec::new() }
    }

    /// Whether the server has taken all of it.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    pub(crate) async fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send(request("POST", path, headers, body)).await;
        self.answer().await
    }

    pub(crate) async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(request("GET", path, headers, "")).await;
        self.answer().await
    }

    /// Reads until `text` has been seen; what was read stays to be read again.
    pub(crate) async fn read_until(&mut self, text: &str) {
        self.read_until_times(text, 1).await;
    }

    /// How often `text` is in what was read.
    pub(crate) fn count(&self, text: &str) -> usize {
        memchr::memmem::find_iter(&self.read, text.as_bytes()).count()
    }

    /// The same until it has been seen so often.
    pub(crate) async fn read_until_times(&mut self, text: &str, times: usize) {
        while self.count(text) < times {
            assert!(
                self.more().await,
                "the connection closed before {text:?}: {}",
                String::from_utf8_lossy(&self.read)
            );
        }
    }

    /// Reads until there are so many bytes, or the answer is over.
    pub(crate) async fn read_at_least(&mut self, bytes: usize) {
        while self.read.len() < bytes && !self.read.ends_with(b"0\r\n\r\n") && self.more().await {}
    }

    /// What came until the server closed the connection.
    pub(crate) async fn rest(&mut self) -> &[u8] {
        while self.more().await {}
        &self.read
    }

    /// Waits until the server closes the connection; whether it does so within `time`.
    pub(crate) async fn closes_within(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, async { while self.more().await {} }).await.is_ok()
    }

    async fn more(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
        matches!(read.expect("the server is not silent"), Ok(length) if length > 0)
    }

    /// Reads one answer to its end.
    pub(crate) async fn answer(&mut self) -> Answer {
        self.read_until("\r\n\r\n").await;
        let end = memchr::memmem::find(&self.read, b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut answer = Answer { status, headers, body: String::new() };
        let body = if answer.header("transfer-encoding") == "chunked" {
            self.chunks().await
        } else {
            let length = answer.header("content-length").parse().unwrap_or(0);
            self.exactly(length).await
        };
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert!(self.more().await, "the connection closed in the middle of a body");
        }
        self.read.drain(..length).collect()
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            self.read_until("\r\n").await;
            let end = memchr::memmem::find(&self.read, b"\r\n").unwrap() + 2;
            let line = String::from_utf8(self.read.drain(..end).collect()).unwrap();
            let length = usize::from_str_radix(line.trim_end(), 16).unwrap();
            let chunk = self.exactly(length + 2).await;
            if length == 0 {
                return body;
            }
            body.extend_from_slice(&chunk[..length]);
        }
    }
}

pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nhost: gateway\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}
