//! The command line program `voxline`: one module per command, and what the commands share.

mod arguments;
mod commands;
pub mod config;
mod exit_code;
mod hints;
mod input;
mod log;
mod progress;
mod service;
mod signals;
mod systemd;
mod target;
mod terminal;
mod typed;

use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::arguments::{Common, General, WithModels, WithService};
use self::commands::{
    bench, calls, decode, documentation, gateway, models, probe, serve, speak, token, transcribe, voices,
};
use self::config::is_empty_variable;
use self::exit_code::CliError;
pub use self::exit_code::Exit;
use self::log::{Log, SERVE_LOG};

/// Live audio to text, and text to audio, without losing a sample.
#[derive(Parser)]
#[command(name = "voxline", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    general: General,
}

#[derive(Subcommand)]
enum Command {
    /// Transcribe recordings to text
    Transcribe(WithService<WithModels<transcribe::Arguments>>),
    /// Show the properties of recordings: container, codec, rate, channels, duration
    Probe(probe::Arguments),
    /// Decode a recording of any format to PCM
    Decode(decode::Arguments),
    /// Synthesise speech from text
    Speak(WithService<WithModels<speak::Arguments>>),
    /// Obtain, show, renew and revoke the tokens of a service
    Token(WithService<token::Arguments>),
    /// Run the gateway: tokens, recognition and synthesis for other programs
    Serve(WithModels<serve::Arguments>),
    /// Take telephone calls, and print what is said in them
    Calls(WithService<WithModels<calls::Arguments>>),
    /// Check and show the configuration
    Config(WithService<WithModels<commands::config::Arguments>>),
    /// Administer the gateway's projects and tokens
    Gateway(gateway::Arguments),
    /// Benchmark a service on this machine
    Bench(WithService<WithModels<bench::Arguments>>),
    /// Download, list and verify the models
    Models(WithModels<models::Arguments>),
    /// List the available voices
    Voices(WithModels<voices::Arguments>),
    /// Print the completions of a shell
    Completions(documentation::Completions),
    /// Write the manual pages
    Man(documentation::Man),
}

/// Returns the definition of the command line, from which parsing, help, completions and manual pages are
/// made.
#[must_use]
pub fn command() -> clap::Command {
    documentation::with_examples(Cli::command())
}

/// Runs the program with this process's arguments.
#[must_use]
pub fn run() -> ExitCode {
    log::quiet_caught_panics();
    let mut parser = without_empty_variables(command());
    let parsed = parser.try_get_matches_from_mut(std::env::args_os());
    let parsed = parsed.and_then(|typed| Ok((Cli::from_arg_matches(&typed)?, typed)));
    let (cli, typed) = match parsed.map_err(|error| error.format(&mut parser)) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help goes to standard output with exit code 0, errors to standard error with clap's exit code
            // 2, the same as `Exit::Setup`.
            let _ = error.print();
            return if error.use_stderr() { Exit::Setup } else { Exit::Done }.into();
        }
    };
    let exit = run_command(cli, &typed).unwrap_or_else(|error| {
        terminal::complain(&error);
        error.exit
    });
    exit.into()
}

/// Ignores variables that are set to an empty string.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let heed = |arg: Arg| {
        if arg.get_env().is_some_and(is_empty_variable) { arg.env(Resettable::Reset) } else { arg }
    };
    command.mut_args(heed).mut_subcommands(without_empty_variables)
}

fn run_command(cli: Cli, typed: &ArgMatches) -> Result<Exit, CliError> {
    let Cli { command, general } = cli;
    let usual = if matches!(command, Command::Serve(_)) { SERVE_LOG } else { "warn" };
    let filter = general.log.filter(|log| !log.is_empty()).unwrap_or_else(|| usual.to_owned());
    let log = Log { filter, format: general.log_format };
    let common = Common { config: general.config, ..Common::default() };
    match command {
        Command::Transcribe(with) => {
            let (arguments, common) = common.with_both(with);
            block_on(&log, transcribe::run(arguments, common))
        }
        Command::Probe(arguments) => probe::run(arguments),
        Command::Decode(arguments) => decode::run(arguments),
        Command::Speak(with) => {
            let (arguments, common) = common.with_both(with);
            block_on(&log, speak::run(arguments, common))
        }
        Command::Token(with) => {
            let (arguments, common) = common.with_service(with);
            block_on(&log, token::run(arguments, common))
        }
        Command::Serve(with) => {
            let (arguments, common) = common.with_models(with);
            block_on(&log, serve::run(arguments, common))
        }
        Command::Calls(with) => {
            let (arguments, common) = common.with_both(with);
            block_on(&log, calls::run(arguments, common))
        }
        Command::Config(with) => {
            let (arguments, common) = common.with_both(with);
            commands::config::run(arguments, common, typed)
        }
        Command::Gateway(arguments) => {
            log::start(&log)?;
            gateway::run(arguments, common)
        }
        Command::Bench(with) => {
            let (arguments, common) = common.with_both(with);
            block_on(&log, bench::run(arguments, common))
        }
        Command::Models(with) => {
            let (arguments, common) = common.with_models(with);
            block_on(&log, models::run(arguments, common))
        }
        Command::Voices(with) => {
            let (arguments, common) = common.with_models(with);
            voices::run(arguments, common)
        }
        Command::Completions(arguments) => arguments.run(),
        Command::Man(arguments) => arguments.run(),
    }
}

/// Runs an asynchronous command, with logging started.
fn block_on(log: &Log, command: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    log::start(log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::new(Exit::Setup, format!("runtime: {error}")))?;
    let exit = runtime.block_on(command);
    // A thread that reads a pipe may block for ever; nothing needs the thread any more.
    runtime.shutdown_background();
    exit
}
