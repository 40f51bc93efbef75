//! Logs: text on a terminal, JSON otherwise. Secrets, prompts and answers are never logged, at any level.
//!
//! Set up once, by the command line; a node that runs inside a test or a simulation leaves it alone.

use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::{Format, Log};

/// Our own modules speak; libraries only warn, and consensus, which warns of every election, only of
/// errors; that a message found it stopped is none.
pub const DEFAULT_FILTER: &str =
    "warn,openraft=error,openraft::raft::raft_inner=off,node=info,actors=info,raft=info,tollgate=info";

/// A log that has grown beyond this is set aside as `<file>.old` at the next start.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Whether `filter` can be read. Errors: why not.
pub fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map(|_| ()).map_err(|error| error.to_string())
}

/// Starts logging for this process. With a file everything goes there, and warnings also to standard error.
/// Errors: one line; the file cannot be written, or logging was started already.
pub fn start(log: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|error| format!("log.filter: {error}"))?;
    let terminal = std::io::stderr().is_terminal();
    let stderr = layer(std::io::stderr, log.format, terminal);
    let layers = match &log.file {
        None => vec![stderr],
        Some(path) => {
            let file = open(path).map_err(|error| format!("cannot write the log {}: {error}", path.display()))?;
            vec![layer(Mutex::new(file), log.format, false), stderr.with_filter(LevelFilter::WARN).boxed()]
        }
    };
    Registry::default().with(layers).with(filter).try_init().map_err(|error| error.to_string())
}

type BoxLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn layer<W>(writer: W, format: Format, terminal: bool) -> BoxLayer
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(terminal);
    match format {
        Format::Json => layer.json().boxed(),
        Format::Auto if !terminal => layer.json().boxed(),
        Format::Auto | Format::Text => layer.boxed(),
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    if std::fs::metadata(path).is_ok_and(|known| known.len() > FILE_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("old"))?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}
