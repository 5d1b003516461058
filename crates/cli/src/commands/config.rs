//! `voxline config`: checks and shows the resolved configuration.

use std::error::Error;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Subcommand};

use super::serve;
use crate::arguments::Common;
use crate::config::{Config, ConfigError, ConfigFile};
use crate::exit_code::{CliError, Exit};
use crate::service::load_recognizer;
use crate::terminal::{complain, say};
use voxline::error::chain;
use voxline::net::{Trust, check_server_certificate};
use voxline_gateway::authority::Authority;
use voxline_gateway::{Tls, TlsFiles, WyomingAddress};
use voxline_support::clock::{Clock, SystemClock};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Read everything that the configuration names, and report each problem on a line
    Check(serve::Arguments),
    /// Print the resolved configuration, with the source of each value: file, environment or flag
    Show(serve::Arguments),
}

pub(crate) fn run(arguments: Arguments, common: Common, typed: &ArgMatches) -> Result<Exit, CliError> {
    match arguments.action {
        Action::Check(arguments) => check(&arguments, &common),
        Action::Show(arguments) => {
            say(&arguments.load(common)?.show(|key| typed_by(typed, key)))?;
            Ok(Exit::Done)
        }
    }
}

/// Returns the source of a key that was given by flag or by environment.
fn typed_by(matches: &ArgMatches, key: &str) -> Option<&'static str> {
    let mut deepest = matches;
    while let Some((_, matches)) = deepest.subcommand() {
        deepest = matches;
    }
    // Some keys have no flag in this command.
    if !deepest.try_contains_id(key).unwrap_or(false) {
        return None;
    }
    match deepest.value_source(key)? {
        ValueSource::CommandLine => Some("flag"),
        ValueSource::EnvVariable => Some("env"),
        _ => None,
    }
}

/// Results of a check. Each is a line with its key.
#[derive(Default)]
struct Findings {
    /// Settings with which a command fails.
    problems: Vec<String>,
    /// Settings with which the program works, but others will not work with it.
    warnings: Vec<String>,
}

fn check(arguments: &serve::Arguments, common: &Common) -> Result<Exit, CliError> {
    let settings = arguments.settings(common.clone())?;
    // invariant: each file is read once, since a pipe can't be read again.
    let file = ConfigFile::read(settings.config.clone())?;
    let (config, unknown) = file.resolve(settings)?;
    let mut found = Findings::default();
    found.problems.extend(file.problems().iter().chain(&unknown).map(ToString::to_string));
    found.service(&config, unknown.is_none() && file.is_complete(config.profile()), "");
    found.problem("vault_key_file", config.vault_key());
    // Check each other profile, unless credentials were given as flags, which would override those of the
    // profile.
    let others = config.profiles.iter().filter(|name| config.profile() != Some(name.as_str()));
    for name in others.filter(|_| !common.names_a_service()) {
        let mut chosen = common.clone();
        chosen.service.profile = Some(name.clone());
        // The certificates of a flag are checked above.
        chosen.service.ca_file = None;
        let (profile, _) = file.resolve(arguments.settings(chosen)?)?;
        found.service(&profile, file.is_complete(Some(name)), &format!("profiles.{name}."));
    }
    if config.has_gateway() {
        found.gateway(&config);
    }
    for warning in &found.warnings {
        complain(&CliError::new(Exit::Done, format!("warning: {warning}")));
    }
    for problem in &found.problems {
        complain(&CliError::new(Exit::Setup, problem));
    }
    if !found.problems.is_empty() {
        return Ok(Exit::Setup);
    }
    let file =
        config.file.map_or_else(|| "no configuration file".to_owned(), |file| file.display().to_string());
    let warnings = match found.warnings.len() {
        0 => String::new(),
        1 => ", 1 warning".to_owned(),
        count => format!(", {count} warnings"),
    };
    say(&format!("{file}: no problems{warnings}\n"))?;
    Ok(Exit::Done)
}

impl Findings {
    /// Adds the error of `key`, if there is one.
    fn problem<T>(&mut self, key: &str, result: Result<T, impl Into<Box<dyn Error>>>) {
        self.problems.extend(result.err().map(|error| format!("{key}: {}", chain(&*error.into()))));
    }

    /// Adds the problems of the service and its credentials; `table` prefixes the keys. Where settings were
    /// left out for a problem of their own, a missing one is not another problem.
    fn service(&mut self, config: &Config, is_complete: bool, table: &str) {
        let counts = |error: &ConfigError| is_complete || !matches!(error, ConfigError::Incomplete { .. });
        let problems = config.service_problems().into_iter().filter(|(_, error)| counts(error));
        self.problems.extend(problems.map(|(key, error)| format!("{table}{key}: {}", chain(&error))));
        if let Some(file) = &config.ca_file {
            self.problem(&format!("{table}ca_file"), Trust::with_file(file));
        }
    }

    /// Adds the problems of the gateway's settings.
    fn gateway(&mut self, config: &Config) {
        let gateway = &config.gateway;
        match gateway.state() {
            Ok(state) => match std::fs::read_dir(state) {
                Ok(_) => self.problem("gateway.state", Authority::check_files(state)),
                // The gateway creates the directory.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => self.problems.push(format!("gateway.state: {}: {error}", state.display())),
            },
            Err(error) => self.problems.push(format!("gateway.state: {}", chain(&error))),
        }
        match gateway.tls_files() {
            Ok(Some(files)) => self.certificate(&files),
            Ok(None) => {}
            Err(ConfigError::Incomplete { key, reason }) => self.problems.push(format!("{key}: {reason}")),
            Err(error) => self.problems.push(format!("gateway.tls_cert: {}", chain(&error))),
        }
        self.address("gateway.listen", gateway.listen());
        match gateway.vosk_listen() {
            Ok(None) => {}
            Ok(Some(address)) => self.address("gateway.vosk_listen", address),
            Err(error) => self.problems.push(format!("gateway.vosk_listen: {}", chain(&error))),
        }
        match gateway.wyoming_listen() {
            Ok(Some(WyomingAddress::Tcp(address))) => self.address("gateway.wyoming_listen", *address),
            // The gateway creates the socket, or replaces it.
            Ok(Some(WyomingAddress::Unix(_)) | None) => {}
            Err(error) => self.problems.push(format!("gateway.wyoming_listen: {}", chain(&error))),
        }
        self.problem("model", load_recognizer(config));
    }

    /// Adds the problem of an address to listen on.
    fn address(&mut self, key: &str, address: SocketAddr) {
        match TcpListener::bind(address) {
            // The address is probably in use by the gateway itself.
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            bound => self.problem(key, bound.map_err(|error| format!("{address}: {error}"))),
        }
    }

    /// Adds the problems of the gateway's certificate and key.
    fn certificate(&mut self, files: &TlsFiles) {
        let key = |path: &Path| if path == files.key { "gateway.tls_key" } else { "gateway.tls_cert" };
        let now = SystemClock::new().moment().unix;
        match Tls::check(files).map(|der| check_server_certificate(&der, &files.certificates, now)) {
            Ok(Ok(())) => {}
            Ok(Err(refused)) => {
                self.warnings.push(format!("gateway.tls_cert: clients refuse it: {}", chain(&refused)));
            }
            Err(unusable) => {
                self.problems.extend(unusable.iter().map(|error| format!("{}: {error}", key(error.path()))));
            }
        }
    }
}
