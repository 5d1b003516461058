//! `voxline bench`: measures engines and services on the user's own machine and recordings.

mod asr;
mod corpus;
mod gateway;
mod latency;
mod live;
mod recording;
mod score;
mod tts;

use clap::{Args, Subcommand};

use crate::arguments::Common;
use crate::exit_code::{CliError, Exit};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Measure the accuracy and speed of recognition on recordings with known transcripts
    Asr(asr::Arguments),
    /// Measure how many live sessions the gateway carries, and the latency of their text
    Gateway(gateway::Arguments),
    /// Measure the latency and speed of voices, and how well a recogniser understands them
    Tts(tts::Arguments),
}

pub(crate) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    match arguments.action {
        Action::Asr(arguments) => asr::run(arguments, common).await,
        Action::Gateway(arguments) => gateway::run(arguments, common).await,
        Action::Tts(arguments) => tts::run(arguments, common).await,
    }
}
