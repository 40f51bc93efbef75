//! A client that measures: raw HTTP/1.1 on one thread, as many connections as asked.
//!
//! In a closed loop every connection sends its next call when the last one is answered: the gateway runs as fast as it
//! can. In an open loop calls start on a schedule whatever happens to those before. Latency counts from a call's first
//! byte to the last byte of its answer. Every answer is read to its end and checked; a wrong one counts as an error.

mod answer;
mod call;
mod closed;
mod connection;
mod events;
mod failure;
mod framing;
mod open;
mod processor;
mod tally;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use call::Calls;
use tally::Tally;

/// Call a gateway on 127.0.0.1 and print what came of it as JSON
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The gateway's port
    #[arg(long)]
    port: u16,
    /// How long to start new calls, in seconds
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Closed loop: so many connections, each with one call at a time
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Closed loop: spread the first calls over so many milliseconds
    #[arg(long, default_value_t = 0)]
    ramp_ms: u64,
    /// Open loop instead: so many calls a second
    #[arg(long)]
    rate: Option<f64>,
    /// Ask for streams; an answer with fewer events is an error
    #[arg(long, value_name = "EVENTS")]
    stream: Option<u32>,
    /// Bytes of a call's body
    #[arg(long, default_value_t = 1024)]
    body_bytes: usize,
    /// The model to ask for
    #[arg(long, default_value = "mock")]
    model: String,
    /// The path to call
    #[arg(long, default_value = "/v1/chat/completions")]
    path: String,
    /// API keys, one a line; each call carries one of them at random
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// What chance starts from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A call that takes longer has failed, in seconds
    #[arg(long, default_value_t = 30.0)]
    timeout: f64,
    /// How long to wait for the last answers, in seconds
    #[arg(long, default_value_t = 12.0)]
    grace: f64,
}

/// What every call of a run shares.
struct Run {
    port: u16,
    calls: Calls,
    /// Events a stream must have; `None` for JSON.
    stream: Option<u32>,
    timeout: Duration,
    /// No call starts after this.
    end: Instant,
    /// Nothing is waited for after this.
    deadline: Instant,
    tally: RefCell<Tally>,
}

/// Runs the load and prints its result. Errors: the arguments make no sense.
pub(crate) async fn run(args: Args) -> Result<(), String> {
    let keys = args.keys.as_deref().map_or_else(|| Ok(Vec::new()), read_keys)?;
    let calls = Calls::new(&args.path, args.port, &args.model, args.stream.is_some(), args.body_bytes, keys);
    let end = Instant::now() + seconds(args.seconds)?;
    let run = Rc::new(Run {
        port: args.port,
        calls,
        stream: args.stream,
        timeout: seconds(args.timeout)?,
        end,
        deadline: end + seconds(args.grace)?,
        tally: RefCell::default(),
    });
    match args.rate {
        Some(rate) if rate > 0.0 => open::drive(&run, rate, args.seed).await,
        Some(rate) => return Err(format!("--rate {rate} is not above zero")),
        None => closed::drive(&run, args.connections, Duration::from_millis(args.ramp_ms), args.seed).await,
    }
    let processor_seconds = processor::used().map_err(|error| format!("cannot read own processor time: {error}"))?;
    println!("{}", run.tally.borrow_mut().report(args.seconds, processor_seconds));
    Ok(())
}

fn seconds(number: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(number).map_err(|error| format!("{number} seconds: {error}"))
}

fn read_keys(file: &Path) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}
