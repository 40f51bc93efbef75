//! The two ends of the side-by-side benchmark: replicas that answer at once, and a client that measures.
//!
//! `mock` stands for four vLLM replicas and costs as little as it can, so that what is measured is the gateway between.
//! `load` calls that gateway and prints what it saw as one line of JSON. `compare.py` puts gateways between the two,
//! pins everything to processors and reads what the gateways used. Nothing here judges or imitates a model:
//! `sim-vllm` does.

mod load;
mod mock;

use std::process::ExitCode;

use clap::Parser;

/// The two ends of the side-by-side benchmark; compare.py runs them.
#[derive(Parser)]
enum Verb {
    Mock(mock::Args),
    Load(load::Args),
}

fn main() -> ExitCode {
    let outcome = match Verb::parse() {
        Verb::Mock(args) => run(mock::run(args)),
        Verb::Load(args) => run(load::run(args)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("side-by-side: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything on this one thread: both ends share one processor, and threads would only hide what they cost.
fn run(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}
