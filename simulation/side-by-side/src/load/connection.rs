//! A connection to the gateway, kept from call to call.

use std::net::Ipv4Addr;
use std::rc::Rc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::Run;
use super::answer::Answer;
use super::failure::Failure;

/// A connection; opened when it is needed.
pub(super) struct Connection {
    run: Rc<Run>,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    /// The next call's bytes.
    pub(super) request: Vec<u8>,
}

impl Connection {
    pub(super) fn new(run: Rc<Run>) -> Connection {
        Connection { run, stream: None, buffer: Vec::with_capacity(8192), request: Vec::with_capacity(2048) }
    }

    /// Sends the request, waits for the answer and tells the tally. Returns whether it was a good one.
    pub(super) async fn call(&mut self) -> bool {
        let began = Instant::now();
        let run = self.run.clone();
        let answer = timeout(run.timeout, self.exchange()).await.unwrap_or(Err(Failure::Timeout));
        let mut tally = run.tally.borrow_mut();
        match answer {
            Ok(answer) => {
                if answer.closes {
                    self.stream = None;
                }
                tally.record(answer, &run, began)
            }
            Err(failure) => {
                self.stream = None;
                tally.fail(&failure);
                false
            }
        }
    }

    /// One try, or two if the first was on a connection that the gateway was closing.
    async fn exchange(&mut self) -> Result<Answer, Failure> {
        let is_used = self.stream.is_some();
        match self.attempt().await {
            Err(failure) if is_used && failure.is_stale() => {
                self.stream = None;
                self.attempt().await
            }
            outcome => outcome,
        }
    }

    async fn attempt(&mut self) -> Result<Answer, Failure> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(connect(self.run.port).await.map_err(|error| Failure::Connect(error.kind()))?),
        };
        stream.write_all(&self.request).await.map_err(|error| Failure::Write(error.kind()))?;
        Answer::read(stream, &mut self.buffer, self.run.stream.is_some()).await
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures the real network")]
async fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
