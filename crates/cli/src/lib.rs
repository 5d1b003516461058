//! The program `voxline`: one file a command, and what they share.

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

use self::commands::{bench, decode, gateway, models, probe, serve, speak, token, transcribe, voices};
use self::exit_code::CliError;
pub use self::exit_code::Exit;
use crate::config::{Config, SecretSource, Settings, is_empty_variable};
use voxline::decode::panic_is_caught;
use voxline::net::HostName;

/// Live audio to text, and text to audio, without losing a sample.
#[derive(Parser)]
#[command(name = "voxline", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum Command {
    /// Turn recordings into text
    Transcribe(transcribe::Arguments),
    /// Say what recordings are: container, codec, rate, channels, duration
    Probe(probe::Arguments),
    /// Turn a recording of any format into PCM
    Decode(decode::Arguments),
    /// Turn text into speech
    Speak(speak::Arguments),
    /// Get, show, renew and give up the tokens of a service
    Token(token::Arguments),
    /// Run the gateway: tokens, recognition and synthesis for other programs
    Serve(serve::Arguments),
    /// Check and show the configuration
    Config(commands::config::Arguments),
    /// Administer the gateway's projects and tokens
    Gateway(gateway::Arguments),
    /// Measure a service on this machine
    Bench(bench::Arguments),
    /// Fetch, list and check the models
    Models(models::Arguments),
    /// List the voices at hand
    Voices(voices::Arguments),
}

/// Where the service is, and what is kept where.
#[derive(Args, Clone)]
struct Common {
    /// Configuration file [default: voxline/config.toml in the user's configuration directory]
    #[arg(long, global = true, value_name = "FILE", env = "VOXLINE_CONFIG")]
    config: Option<PathBuf>,
    /// Service to use [default: a gateway inside this process]
    #[arg(long, global = true, value_name = "URL", env = "VOXLINE_ENDPOINT")]
    endpoint: Option<String>,
    /// Client id of the project at the service
    #[arg(long, global = true, value_name = "ID", env = "VOXLINE_CLIENT_ID")]
    client_id: Option<String>,
    /// Profile in the configuration file [default: what stands there outside of profiles]
    #[arg(long, global = true, value_name = "NAME", env = "VOXLINE_PROFILE")]
    profile: Option<String>,
    /// File that holds the client's secret, `-` for standard input [default: the variable VOXLINE_CLIENT_SECRET]
    #[arg(long, global = true, value_name = "FILE", env = "VOXLINE_CLIENT_SECRET_FILE")]
    client_secret_file: Option<PathBuf>,
    /// File that holds a service token, instead of a client id and secret; `-` for standard input [default: the
    /// variable VOXLINE_TOKEN]
    #[arg(long, global = true, value_name = "FILE", env = "VOXLINE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// File of certificates (PEM) to trust besides the system's
    #[arg(long, global = true, value_name = "FILE", env = "VOXLINE_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// Another host of the service, to which it may move sessions and which may be shown its tokens; may be
    /// repeated
    #[arg(long, global = true, value_name = "HOST", env = "VOXLINE_FOLLOW_HOST", value_delimiter = ',')]
    follow_host: Vec<HostName>,
    /// File with the key that encrypts tokens on disk: 32 bytes, or 64 hexadecimal digits
    #[arg(long, global = true, value_name = "FILE", env = "VOXLINE_VAULT_KEY_FILE")]
    vault_key_file: Option<PathBuf>,
    /// Directory of models [default: voxline/models in the user's cache directory]
    #[arg(long, global = true, value_name = "DIR", env = "VOXLINE_MODELS")]
    models: Option<PathBuf>,
    /// What to log to standard error: error, warn, info, debug, trace, or a filter such as voxline::session=debug
    /// [default: warn, and for serve the audit: voxline::audit=info]
    #[arg(long, global = true, value_name = "FILTER", env = "VOXLINE_LOG")]
    log: Option<String>,
    /// How to log: lines for people, or an object of JSON a line
    #[arg(long, global = true, value_name = "FORMAT", env = "VOXLINE_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// What is spoken, and who hears it.
#[derive(Args, Clone, Default)]
struct Hearing {
    /// Language spoken: a code such as en or ru-RU, a name such as english, several of which one is detected
    /// (ru,en), or auto to have any detected; of a gateway: for clients that name none [default: auto]
    #[arg(long, value_name = "LANGUAGE", env = "VOXLINE_LANGUAGE")]
    language: Option<String>,
    #[command(flatten)]
    chosen: ModelChoice,
}

/// Who hears it, where that is this process.
#[derive(Args, Clone, Default)]
struct ModelChoice {
    /// Recogniser of the gateway inside this process: the name of a model, such as whisper-tiny.en, or a directory with a
    /// Whisper of CTranslate2's, such as ./whisper-small [default: whisper-base]
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

    /// Whether it says where the service is, or how to be let in.
    fn names_a_service(&self) -> bool {
        self.endpoint.is_some()
            || self.client_id.is_some()
            || self.client_secret_file.is_some()
            || self.token_file.is_some()
    }

    fn settings(self, hearing: Hearing) -> Settings {
        // A variable that is set to nothing says nothing.
        let text = |given: Option<String>| given.filter(|text| !text.is_empty());
        let file = |given: Option<PathBuf>| given.filter(|path| !path.as_os_str().is_empty());
        Settings {
            config: file(self.config),
            endpoint: text(self.endpoint),
            client_id: text(self.client_id),
            profile: text(self.profile),
            client_secret: SecretSource::named(file(self.client_secret_file), "VOXLINE_CLIENT_SECRET"),
            token: SecretSource::named(file(self.token_file), "VOXLINE_TOKEN"),
            ca_file: file(self.ca_file),
            follow_hosts: self.follow_host,
            vault_key_file: file(self.vault_key_file),
            models: file(self.models),
            model: text(hearing.chosen.model),
            language: text(hearing.language),
            gateway: toml::Table::new(),
        }
    }
}

/// Runs the program on this process's arguments.
#[must_use]
pub fn run() -> ExitCode {
    quiet_caught_panics();
    let mut parser = without_empty_variables(Cli::command());
    let parsed = parser.try_get_matches_from_mut(std::env::args_os());
    let parsed = parsed.and_then(|typed| Ok((Cli::from_arg_matches(&typed)?, typed)));
    let (cli, typed) = match parsed.map_err(|error| error.format(&mut parser)) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help goes to standard output with code 0, errors to standard error with clap's 2, which is ours too.
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

/// A variable that is set to nothing says nothing.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let heed = |arg: Arg| match arg.get_env().is_some_and(is_empty_variable) {
        true => arg.env(Resettable::Reset),
        false => arg,
    };
    command.mut_args(heed).mut_subcommands(without_empty_variables)
}

fn run_command(cli: Cli, typed: &ArgMatches) -> Result<Exit, CliError> {
    let Cli { command, common } = cli;
    // An audit that must be asked for is none.
    let usual = if matches!(command, Command::Serve(_)) { "warn,voxline::audit=info" } else { "warn" };
    let filter = common.log.clone().filter(|log| !log.is_empty()).unwrap_or_else(|| usual.to_owned());
    let log = Log { filter, format: common.log_format };
    match command {
        Command::Transcribe(arguments) => block_on(&log, transcribe::run(arguments, common)),
        Command::Probe(arguments) => probe::run(arguments),
        Command::Decode(arguments) => decode::run(arguments),
        Command::Speak(arguments) => block_on(&log, speak::run(arguments, common)),
        Command::Token(arguments) => block_on(&log, token::run(arguments, common)),
        Command::Serve(arguments) => block_on(&log, serve::run(arguments, common)),
        Command::Config(arguments) => commands::config::run(arguments, common, typed),
        Command::Gateway(arguments) => {
            start_log(&log)?;
            gateway::run(arguments)
        }
        Command::Bench(arguments) => block_on(&log, bench::run(arguments, common)),
        Command::Models(arguments) => block_on(&log, models::run(arguments, common)),
        Command::Voices(arguments) => voices::run(arguments, common),
    }
}

/// Runs a command that goes on by itself, and so has something to log.
fn block_on(log: &Log, command: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    start_log(log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::new(Exit::Setup, format!("runtime: {error}")))?;
    let exit = runtime.block_on(command);
    // A thread that waits for a pipe may wait for ever; nothing is left that needs it.
    runtime.shutdown_background();
    exit
}

/// What is logged, and how.
struct Log {
    filter: String,
    format: LogFormat,
}

/// Logs to standard error what the filter lets through.
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

/// Panics that decoding catches become errors, which are told in their own time; all others are printed as ever.
fn quiet_caught_panics() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !panic_is_caught() {
            print(panic);
        }
    }));
}

/// Tells the user, in one line.
fn complain(error: &CliError) {
    if error.unread {
        return;
    }
    // Where standard error is closed too, the exit code says it.
    let _ = writeln!(io::stderr(), "voxline: {}", one_line(&error.to_string()));
}

/// The text in one line, whatever is in a file's name.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Refuses to read both a secret and the work from standard input.
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

/// Refuses to write what is no text to a terminal, which would obey parts of it.
fn keep_binary_off_terminal(output: &Path) -> Result<(), CliError> {
    if output.as_os_str() == "-" && io::stdout().is_terminal() {
        let reason = "standard output is a terminal: name a file with --output, or send the audio to a pipe";
        return Err(CliError::new(Exit::Setup, reason));
    }
    Ok(())
}

/// A count of bytes as people read it.
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
