//! `tollgate usage`: what was used.

use std::io::Write as _;

use clap::{Subcommand, ValueEnum};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::admin_port::Asker;
use super::exit::Failure;

/// Say what was used
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Export(Export),
}

/// Print what was used, by time, user, key, subscription, model, organization and cost center
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  source .tollgate/dev.env
  tollgate usage export > usage.csv
  tollgate usage export --from 2026-11-01 --to 2026-12-01 --by cost_center,model

Columns stay as they are; new ones come at the end. Hours are kept for eight days, then days for a hundred:
whoever needs them for longer exports them before.")]
struct Export {
    /// From here on: 2026-11-01, or 2026-11-01T08:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Before this
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only this user's
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Add up everything but these: time, user, key, subscription, model, organization, cost_center
    #[arg(long, value_name = "LIST")]
    by: Option<String>,
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    #[command(flatten)]
    asker: Asker,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Csv,
    Json,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let Verb::Export(export) = args.verb;
    let mut path = match export.format {
        Format::Csv => "/maas-api/v1/usage?format=csv".to_owned(),
        Format::Json => "/maas-api/v1/usage?format=json".to_owned(),
    };
    let said = [("from", &export.from), ("to", &export.to), ("username", &export.username), ("by", &export.by)];
    for (name, value) in said {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        }
    }
    let answer = export.asker.get(&path).await?;
    let mut out = std::io::stdout().lock();
    let written = out.write_all(&answer.bytes).and_then(|()| out.flush());
    written.map_err(|error| Failure::unavailable(format!("standard output: {error}")))
}
