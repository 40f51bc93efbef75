//! The command line: one verb per file. Only here are signals, exit codes, logging and the runtime set up;
//! the rest of the crate can run many times in one process.

mod admin_port;
mod dev;
mod exit;
mod process;
mod quota;
mod serve;
mod signals;
mod sim_vllm;
mod table;
mod token;
mod usage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::Failure;

/// Tollgate: Models as a Service in one binary.
///
/// Teams get API keys, subscriptions with token quotas, and access policies; agents call one OpenAI-compatible
/// endpoint; every token is admitted, routed to the best vLLM replica, and accounted for.
#[derive(Parser)]
#[command(name = "tollgate", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const AFTER_HELP: &str = "\
Start here:
  tollgate dev                 a gateway, three simulated replicas, an API key: nothing to set up
  tollgate dev --nodes 3       the same as a cluster of three processes

Exit codes:
  0   stopped as asked
  64  the command line or the configuration is wrong; what is wrong was printed
  69  something this node needs is not to be had: a port is taken, a disk cannot be opened
  70  the node failed and stopped itself; its log says why";

#[derive(Subcommand)]
enum Verb {
    Dev(dev::Args),
    Serve(serve::Args),
    Quota(quota::Args),
    Usage(usage::Args),
    Token(token::Args),
    SimVllm(sim_vllm::Args),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Printing can only fail when nobody reads; help and version are no mistakes.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match run(cli.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tollgate: {}", failure.message.trim_end());
            ExitCode::from(failure.code)
        }
    }
}

fn run(verb: Verb) -> Result<(), Failure> {
    // As many workers as processors this process may use: the default of the multi-threaded runtime honours affinity.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::unavailable(format!("cannot start threads: {error}")))?;
    let outcome = runtime.block_on(async {
        match verb {
            Verb::Dev(args) => Box::pin(dev::run(args)).await,
            Verb::Serve(args) => Box::pin(serve::run(args)).await,
            Verb::Quota(args) => Box::pin(quota::run(args)).await,
            Verb::Usage(args) => Box::pin(usage::run(args)).await,
            Verb::Token(args) => Box::pin(token::run(args)).await,
            Verb::SimVllm(args) => Box::pin(sim_vllm::run(args)).await,
        }
    });
    // A blocked disk or resolver thread must not keep a node from ending.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}
