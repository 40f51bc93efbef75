//! `tollgate dev`: everything on one machine, nothing to set up.
//!
//! The story is [`run`]. One node runs in this process; several are processes of their own, so that one can be killed.
//! Everything is set up through the admin API over HTTPS, as a person would.

mod certificates;
mod children;
mod client;
mod environment;
mod nodes;
mod page;
mod plan;
mod replicas;
mod seeding;

use std::path::PathBuf;

use raft::doors::Doors;

use super::exit::Failure;
use super::process;
use super::signals::Signals;
use crate::config::{self, Format, Log};
use crate::observability::logging;

use client::AdminClient;
use nodes::Nodes;
use plan::Plan;

/// Try it: gateway, replicas, certificates and an API key, with nothing to set up
///
/// Starts gateway nodes and simulated vLLM replicas on this machine, publishes a model, and sets up two teams, each with a
/// group, a subscription, an access policy and an API key: one of 50000 tokens an hour, and one of 5000000 for coding
/// agents. Then it prints what to try. URLs, tokens and the keys are also in DIR/dev.env, as shell exports. State survives a restart; Ctrl-C drains and stops.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tollgate dev
  tollgate dev --nodes 3 --replicas 4

With a running vLLM, or any OpenAI-compatible server, instead of simulated replicas:
  tollgate dev --replica http://127.0.0.1:8000 --model openai/gpt-oss-20b

In another shell:
  source .tollgate/dev.env && curl \"$MODEL_ENDPOINT/models\" -H \"Authorization: Bearer $API_KEY\"")]
pub(super) struct Args {
    /// Gateway nodes; more than one make a cluster, each its own process
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Simulated vLLM replicas
    #[arg(long, default_value_t = 3, value_name = "R", value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: u16,
    /// A running OpenAI-compatible server to use instead of simulated replicas; repeat it for several
    #[arg(long, value_name = "URL", requires = "model", conflicts_with = "replicas")]
    replica: Vec<String>,
    /// What the replicas call the model
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    model: Option<String>,
    /// Port for inference, plain HTTP on loopback; node 2 gets the next one, and so on
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    gateway_port: u16,
    /// Port for the admin API, HTTPS on loopback; node 2 gets the next one, and so on
    #[arg(long, default_value_t = 8443, value_name = "PORT")]
    admin_port: u16,
    /// Where everything is kept
    #[arg(long, default_value = ".tollgate", value_name = "DIR")]
    data_dir: PathBuf,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    process::prepare(core_dumps())?;
    let doors = Doors::real();
    let plan = Plan::make(&args, &doors).await?;
    start_logging(&plan)?;
    let signals = Signals::catch().map_err(|error| Failure::internal(format!("cannot catch signals: {error}")))?;
    let mut stop = tokio::spawn(signals.stop());

    certificates::issue(&plan, doors.clock.wall())?;
    let admin_token = environment::admin_token(&plan, doors.chance.as_ref())?;
    let replicas = replicas::start(&plan, &doors).await?;
    let mut nodes = Nodes::start(&plan, &doors).await?;

    let client = AdminClient::new(&plan, &doors, admin_token.clone())?;
    let opened = tokio::select! {
        biased;
        _ = &mut stop => None,
        opened = open_up(&plan, &client, &nodes, &replicas.urls, &admin_token) => Some(opened),
    };
    let outcome = match opened {
        Some(Ok(())) => nodes.watch(stop, &plan).await,
        Some(Err(failure)) => Err(failure),
        None => Ok(()),
    };
    println!("\nDraining: calls in progress may finish. Ctrl-C again stops at once.");
    let stopped = nodes.stop().await;
    drop(replicas);
    outcome.and(stopped)
}

/// Waits until the nodes are ready, sets up what is missing, and tells how to use it.
async fn open_up(
    plan: &Plan,
    client: &AdminClient,
    nodes: &Nodes,
    replica_urls: &[String],
    admin_token: &str,
) -> Result<(), Failure> {
    client.wait_until_ready(plan, nodes).await?;
    let before = environment::read(plan);
    let seeded = seeding::seed(plan, client, replica_urls, before.as_ref()).await?;
    environment::write(plan, admin_token, &seeded, &nodes.pids())?;
    let first_time = before.is_none();
    let models_ready = client.wait_for_model(plan).await;
    page::print(plan, &seeded, first_time, models_ready);
    Ok(())
}

/// `node.core_dumps`, which only a variable can set here.
fn core_dumps() -> bool {
    config::environment().get("TOLLGATE_NODE_CORE_DUMPS").is_some_and(|value| value.trim() == "true")
}

/// The page must stay readable: everything goes to a file, only warnings to the terminal.
fn start_logging(plan: &Plan) -> Result<(), Failure> {
    let filter =
        config::environment().remove("TOLLGATE_LOG_FILTER").unwrap_or_else(|| logging::DEFAULT_FILTER.to_owned());
    logging::start(&Log { filter, format: Format::Text, file: Some(plan.log_file()) }).map_err(Failure::usage)
}
