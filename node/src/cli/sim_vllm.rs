//! `tollgate sim-vllm`: one simulated vLLM replica on a port.

use std::time::Duration;

use raft::doors::Doors;
use sim_vllm::{ApiKey, Config, Kind, Replica};
use tokio::net::TcpListener;

use super::exit::Failure;
use super::signals::Signals;

/// How long calls in progress go on after a stop signal.
const DRAIN: Duration = Duration::from_secs(2);

/// The context of gpt-oss-20b. A coding agent's first call needs more than the recorded server's 40,960: it sends about 20,000 tokens and
/// asks for up to 32,000.
const GENERATOR: Kind = Kind::Generative { context_len: 131_072, reasoning: true, tool_parser: true };

/// What `--embeddings` runs, of the sizes of BAAI/bge-m3.
const EMBEDDER: Kind = Kind::Embedding { context_len: 8_192, dimensions: 1_024 };

/// Run one simulated vLLM replica
///
/// Speaks vLLM's HTTP API: chat, completions, responses, messages, embeddings, speech, models, health, metrics, with believable
/// timing, prefix caching and preemption. It has no model: the words are made up, their number and price are not.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tollgate sim-vllm --port 8000
  tollgate sim-vllm --port 8001 --model Qwen/Qwen3-8B --speed 10
  tollgate sim-vllm --port 8002 --model BAAI/bge-m3 --embeddings
  tollgate sim-vllm --port 8003 --model openai/whisper-large-v3 --audio
  tollgate dev --replica http://127.0.0.1:8000 --model openai/gpt-oss-20b")]
pub(super) struct Args {
    /// Port on loopback
    #[arg(long, default_value_t = 8000, value_name = "PORT")]
    port: u16,
    /// Listen on another address than loopback
    #[arg(long, default_value = "127.0.0.1", value_name = "HOST")]
    host: String,
    /// Served model name; repeat it for more names of the same model
    #[arg(long, default_value = "openai/gpt-oss-20b", value_name = "NAME")]
    model: Vec<String>,
    /// Embed texts instead of generating them: vectors of 1024 numbers, inputs of up to 8192 tokens
    #[arg(long)]
    embeddings: bool,
    /// Take speech, too: transcriptions and translations of WAV files
    #[arg(long, conflicts_with = "embeddings")]
    audio: bool,
    /// How many times faster than the recorded server
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = parse_speed)]
    speed: f64,
    /// Where all chance comes from: equal seeds and requests give equal answers
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Ask for this key, as vLLM does with --api-key
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let doors = Doors::real();
    let signals = Signals::catch().map_err(|error| Failure::internal(format!("cannot catch signals: {error}")))?;
    let config = Config {
        seed: args.seed,
        model_names: args.model,
        kind: if args.embeddings { EMBEDDER } else { GENERATOR },
        audio: args.audio,
        speed: args.speed,
        api_key: args.api_key.as_deref().map(ApiKey::from),
        start_unix_seconds: doors.clock.wall().seconds(),
        ..Config::default()
    };
    let listener = listen(&format!("{}:{}", args.host, args.port)).await?;
    println!("Simulated vLLM with {} on http://{}:{}. Ctrl-C stops it.", config.model(), args.host, args.port);
    let replica = Replica::start(config);
    replica.serve(listener, signals.stop()).await;
    replica.terminate(DRAIN);
    Ok(())
}

/// Replica number `number` of `tollgate dev`.
pub(super) fn replica(served_name: &str, number: u64, doors: &Doors) -> Config {
    Config {
        seed: number,
        model_names: vec![served_name.to_owned()],
        kind: GENERATOR,
        start_unix_seconds: doors.clock.wall().seconds(),
        ..Config::default()
    }
}

/// Listens as any other program does. Errors: the port is taken.
pub(super) async fn listen(address: &str) -> Result<TcpListener, Failure> {
    #[expect(clippy::disallowed_methods, reason = "a simulated replica stands outside the node, where a GPU would be")]
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| {
        Failure::unavailable(format!("cannot listen on {address}: {error}; choose another with --port"))
    })
}

fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 => Ok(speed),
        _ => Err(format!("\"{text}\" is not a number above zero")),
    }
}
