//! `voxline bench`: measures engines and services on one's own machine and recordings.

mod asr;
mod corpus;
mod gateway;
mod latency;
mod live;
mod recording;
mod score;
mod tts;

use clap::{Args, Subcommand};

use crate::Common;
use crate::exit_code::{CliError, Exit};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// How well and how fast a recogniser hears recordings of which it is known what is said
    Asr(asr::Arguments),
    /// How many live sessions the gateway carries, and how late their text comes
    Gateway(gateway::Arguments),
    /// How soon and how fast voices speak, and how well a recogniser understands them
    Tts(tts::Arguments),
}

pub(crate) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    match arguments.what {
        What::Asr(arguments) => asr::run(arguments, common).await,
        What::Gateway(arguments) => gateway::run(arguments, common).await,
        What::Tts(arguments) => tts::run(arguments, common).await,
    }
}
