//! `voxline bench`: measures a service on one's own machine and recordings.

mod gateway;
mod latency;

use clap::{Args, Subcommand};

use super::Common;
use super::exit_code::{CliError, Exit};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// How many live sessions the gateway carries, and how late their text comes
    Gateway(gateway::Arguments),
}

pub(super) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    match arguments.what {
        What::Gateway(arguments) => gateway::run(arguments, common).await,
    }
}
