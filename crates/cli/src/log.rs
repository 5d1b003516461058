//! The log on standard error.

use std::io::{self, IsTerminal};
use std::panic;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::exit_code::{CliError, Exit};
use voxline::decode::panic_is_caught;

/// Default log filter of `voxline serve`: the audit log and the events of operation are on.
pub(crate) const SERVE_LOG: &str = "warn,voxline::audit=info,voxline::operation=info";

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Settings of the log.
pub(crate) struct Log {
    pub(crate) filter: String,
    pub(crate) format: LogFormat,
}

/// Starts logging to standard error.
pub(crate) fn start(Log { filter, format }: &Log) -> Result<(), CliError> {
    let layer = EnvFilter::try_new(filter)
        .map_err(|error| CliError::new(Exit::Setup, format!("--log {filter}: {error}")))?;
    let log = tracing_subscriber::fmt().with_env_filter(layer).with_writer(io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).init(),
    }
    Ok(())
}

/// Silences panics that decoding catches, which are reported as errors; other panics are printed as usual.
pub(crate) fn quiet_caught_panics() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !panic_is_caught() {
            print(panic);
        }
    }));
}
