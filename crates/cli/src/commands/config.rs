//! `voxline config`: checks and shows the resolved configuration.

use std::fmt::Display;
use std::io::ErrorKind;
use std::net::TcpListener;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Subcommand};

use super::serve;
use crate::config::Config;
use crate::exit_code::{CliError, Exit};
use crate::service::load_recognizer;
use crate::{Common, complain, say};
use voxline::net::Trust;
use voxline_gateway::Tls;
use voxline_gateway::authority::Authority;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Read everything that the configuration names, and report each problem on a line
    Check(serve::Arguments),
    /// Print the resolved configuration, with the source of each value: file, environment or flag
    Show(serve::Arguments),
}

pub(crate) fn run(arguments: Arguments, common: Common, typed: &ArgMatches) -> Result<Exit, CliError> {
    match arguments.what {
        What::Check(arguments) => check(&arguments, &common),
        What::Show(arguments) => {
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

fn check(arguments: &serve::Arguments, common: &Common) -> Result<Exit, CliError> {
    let config = arguments.load(common.clone())?;
    let mut problems = problems(&config);
    // Check each profile, unless credentials were given as flags, which would override those of the profile.
    for name in config.profiles.iter().filter(|_| !common.names_a_service()) {
        let chosen = Common { profile: Some(name.clone()), ..common.clone() };
        problems
            .extend(of_service(&chosen.load(None)?).into_iter().map(|it| format!("profile {name}: {it}")));
    }
    for problem in &problems {
        complain(&CliError::new(Exit::Setup, problem));
    }
    Ok(if problems.is_empty() { Exit::Done } else { Exit::Setup })
}

fn problems(config: &Config) -> Vec<String> {
    let mut problems = of_service(config);
    problems.extend(told(config.check_vault_key()));
    if config.has_gateway() {
        problems.extend(of_gateway(config));
    }
    problems
}

/// Returns the problems of the service and its credentials.
fn of_service(config: &Config) -> Vec<String> {
    // A secret on standard input is left to the command that uses it.
    let service = (!config.reads_stdin()).then(|| config.service());
    let trust = config.ca_file.as_deref().map(Trust::with_file);
    [service.and_then(told), trust.and_then(told)].into_iter().flatten().collect()
}

/// Returns the problems of the gateway's settings.
fn of_gateway(config: &Config) -> Vec<String> {
    let gateway = &config.gateway;
    let state = match gateway.state() {
        Ok(state) => match std::fs::read_dir(state) {
            Ok(_) => told(Authority::check_files(state)),
            // The gateway creates the directory.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => Some(format!("{}: {error}", state.display())),
        },
        Err(error) => Some(error.to_string()),
    };
    let tls = match gateway.tls_files() {
        Ok(files) => files.map(Tls::load).and_then(told),
        Err(error) => Some(error.to_string()),
    };
    let listen = match TcpListener::bind(gateway.listen) {
        // The address is probably in use by the gateway itself.
        Err(error) if error.kind() == ErrorKind::AddrInUse => None,
        bound => told(bound).map(|error| format!("listen on {}: {error}", gateway.listen)),
    };
    let recognizer = told(load_recognizer(config));
    [state, tls, listen, recognizer].into_iter().flatten().collect()
}

fn told<T, E: Display>(result: Result<T, E>) -> Option<String> {
    result.err().map(|error| error.to_string())
}
