//! The command line program `voxline`: one module per command, and what the commands share.

mod commands;
pub mod config;
mod exit_code;
mod input;
mod progress;
mod service;
mod signals;
mod systemd;
mod target;
mod typed;

use std::io::{self, IsTerminal, Write};
use std::panic;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use self::commands::{
    bench, decode, documentation, gateway, models, probe, serve, speak, token, transcribe, voices,
};
use self::exit_code::CliError;
pub use self::exit_code::Exit;
use crate::config::{Config, SecretSource, Settings, is_empty_variable};
use voxline::decode::panic_is_caught;
use voxline::net::HostName;

/// Default log filter of `voxline serve`: the audit log and the events of operation are on.
const SERVE_LOG: &str = "warn,voxline::audit=info,voxline::operation=info";

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

/// The options of every command.
#[derive(Args, Clone)]
#[command(next_help_heading = "General options")]
struct General {
    /// Configuration file [default: voxline/config.toml in the user's configuration directory]
    #[arg(long, global = true, value_name = "FILE", env = "VOXLINE_CONFIG")]
    config: Option<PathBuf>,
    /// Log filter for standard error: error, warn, info, debug, trace, or a filter such as
    /// voxline::session=debug [default: warn; for serve also the audit log and the events of operation,
    /// voxline::audit=info,voxline::operation=info]
    #[arg(long, global = true, value_name = "FILTER", env = "VOXLINE_LOG")]
    log: Option<String>,
    /// Log format: lines of text for people, or one JSON object per line
    #[arg(long, global = true, value_name = "FORMAT", env = "VOXLINE_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// The arguments of a command that uses a service.
#[derive(Args)]
struct WithService<A: Args> {
    #[command(flatten)]
    arguments: A,
    #[command(flatten)]
    service: ServiceOptions,
}

/// The arguments of a command that uses models.
#[derive(Args)]
struct WithModels<A: Args> {
    #[command(flatten)]
    arguments: A,
    // A flattened structure before leaves its heading behind.
    /// Directory of models [default: voxline/models in the user's cache directory]
    #[arg(
        long, global = true, value_name = "DIR", env = "VOXLINE_MODELS",
        help_heading = Resettable::Reset
    )]
    models: Option<PathBuf>,
}

/// The service and its credentials.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Connection options")]
struct ServiceOptions {
    /// Service to use [default: a gateway inside this process]
    #[arg(long, global = true, value_name = "URL", env = "VOXLINE_ENDPOINT")]
    endpoint: Option<String>,
    /// Client id of the project at the service
    #[arg(long, global = true, value_name = "ID", env = "VOXLINE_CLIENT_ID")]
    client_id: Option<String>,
    /// Profile in the configuration file [default: the settings outside of any profile]
    #[arg(long, global = true, value_name = "NAME", env = "VOXLINE_PROFILE")]
    profile: Option<String>,
    /// File with the client secret, `-` for standard input [default: the variable VOXLINE_CLIENT_SECRET]
    #[arg(long, global = true, value_name = "FILE", env = "VOXLINE_CLIENT_SECRET_FILE")]
    client_secret_file: Option<PathBuf>,
    /// File with a service token, instead of a client id and secret; `-` for standard input [default: the
    /// variable VOXLINE_TOKEN]
    #[arg(long, global = true, value_name = "FILE", env = "VOXLINE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// File of certificates (PEM) to trust in addition to the system's
    #[arg(long, global = true, value_name = "FILE", env = "VOXLINE_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// Additional host of the service, to which it may move sessions and which may receive its tokens; may be
    /// repeated
    #[arg(long, global = true, value_name = "HOST", env = "VOXLINE_FOLLOW_HOST", value_delimiter = ',')]
    follow_host: Vec<HostName>,
    /// File with the key that encrypts tokens on disk: 32 bytes, or 64 hexadecimal digits
    #[arg(long, global = true, value_name = "FILE", env = "VOXLINE_VAULT_KEY_FILE")]
    vault_key_file: Option<PathBuf>,
}

/// The options that commands share, as far as a command has them.
#[derive(Clone, Default)]
struct Common {
    config: Option<PathBuf>,
    service: ServiceOptions,
    models: Option<PathBuf>,
}

/// The spoken language and the recogniser.
#[derive(Args, Clone, Default)]
struct Hearing {
    /// Spoken language: a code such as en or ru-RU, a name such as english, several candidates for detection
    /// (ru,en), or auto to detect any; for a gateway, the default of clients that name none [default: auto]
    #[arg(long, value_name = "LANGUAGE", env = "VOXLINE_LANGUAGE")]
    language: Option<String>,
    #[command(flatten)]
    chosen: ModelChoice,
}

/// The recogniser of a gateway inside this process.
#[derive(Args, Clone, Default)]
struct ModelChoice {
    /// Recognition model of the gateway inside this process: a model name such as whisper-tiny.en, or a
    /// directory with a CTranslate2 Whisper model such as ./whisper-small [default: whisper-base]
    #[arg(long, value_name = "NAME|DIR", env = "VOXLINE_MODEL")]
    model: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl Common {
    fn load(self, hearing: Option<Hearing>) -> Result<Config, CliError> {
        Ok(Config::load(self.settings(hearing.unwrap_or_default()))?)
    }

    /// Returns whether the flags name a service or credentials.
    fn names_a_service(&self) -> bool {
        let ServiceOptions { endpoint, client_id, client_secret_file, token_file, .. } = &self.service;
        endpoint.is_some() || client_id.is_some() || client_secret_file.is_some() || token_file.is_some()
    }

    fn settings(self, hearing: Hearing) -> Settings {
        // A variable set to an empty string counts as unset.
        let text = |given: Option<String>| given.filter(|text| !text.is_empty());
        let file = |given: Option<PathBuf>| given.filter(|path| !path.as_os_str().is_empty());
        let service = self.service;
        Settings {
            config: file(self.config),
            endpoint: text(service.endpoint),
            client_id: text(service.client_id),
            profile: text(service.profile),
            client_secret: SecretSource::named(file(service.client_secret_file), "VOXLINE_CLIENT_SECRET"),
            token: SecretSource::named(file(service.token_file), "VOXLINE_TOKEN"),
            ca_file: file(service.ca_file),
            follow_hosts: service.follow_host,
            vault_key_file: file(service.vault_key_file),
            models: file(self.models),
            model: text(hearing.chosen.model),
            language: text(hearing.language),
            gateway: toml::Table::new(),
        }
    }

    /// Adds the options of a service, and returns the command's other arguments.
    fn with_service<A: Args>(self, with: WithService<A>) -> (A, Common) {
        (with.arguments, Common { service: with.service, ..self })
    }

    /// Adds the directory of models, and returns the command's other arguments.
    fn with_models<A: Args>(self, with: WithModels<A>) -> (A, Common) {
        (with.arguments, Common { models: with.models, ..self })
    }

    /// Adds the options of a service and the directory of models, and returns the command's other arguments.
    fn with_both<A: Args>(self, with: WithService<WithModels<A>>) -> (A, Common) {
        let (arguments, common) = self.with_service(with);
        common.with_models(arguments)
    }
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
    quiet_caught_panics();
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
        complain(&error);
        error.exit
    });
    exit.into()
}

/// Ignores variables that are set to an empty string.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let heed = |arg: Arg| match arg.get_env().is_some_and(is_empty_variable) {
        true => arg.env(Resettable::Reset),
        false => arg,
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
        Command::Config(with) => {
            let (arguments, common) = common.with_both(with);
            commands::config::run(arguments, common, typed)
        }
        Command::Gateway(arguments) => {
            start_log(&log)?;
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
    start_log(log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::new(Exit::Setup, format!("runtime: {error}")))?;
    let exit = runtime.block_on(command);
    // A thread that reads a pipe may block for ever; nothing needs the thread any more.
    runtime.shutdown_background();
    exit
}

/// Settings of the log.
struct Log {
    filter: String,
    format: LogFormat,
}

/// Starts logging to standard error.
fn start_log(Log { filter, format }: &Log) -> Result<(), CliError> {
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
fn quiet_caught_panics() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !panic_is_caught() {
            print(panic);
        }
    }));
}

/// Reports the error to the user in one line.
fn complain(error: &CliError) {
    if error.unread {
        return;
    }
    // If standard error is closed too, the exit code remains.
    let _ = writeln!(io::stderr(), "voxline: {}", one_line(&error.to_string()));
}

/// Replaces control characters by spaces, so that a file name can't break the line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Refuses to read both a secret and the input from standard input.
fn keep_stdin_apart(config: &Config, is_work: bool) -> Result<(), CliError> {
    match is_work && config.reads_stdin() {
        true => Err(CliError::new(Exit::Setup, "standard input can't be both a secret and the input")),
        false => Ok(()),
    }
}

/// Writes a command's result to standard output.
fn say(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| CliError::stdout(&error))
}

/// Refuses to write binary data to a terminal, which would interpret control sequences in it.
fn keep_binary_off_terminal(output: &Path) -> Result<(), CliError> {
    if output.as_os_str() == "-" && io::stdout().is_terminal() {
        let reason = "standard output is a terminal: name a file with --output, or send the audio to a pipe";
        return Err(CliError::new(Exit::Setup, reason));
    }
    Ok(())
}

/// Formats a number of bytes in megabytes.
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
