//! `voxline gateway`: the gateway's projects and tokens, in its state directory.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use serde_json::json;

use super::exit_code::{CliError, Exit};
use super::say;
use super::service::TOKEN_LIFETIME;
use crate::clock::SystemClock;
use crate::gateway::authority::Authority;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Projects: who may get tokens
    #[command(subcommand)]
    Project(Project),
    /// Service tokens: bearer tokens without an end
    #[command(subcommand)]
    ServiceToken(ServiceToken),
}

#[derive(Subcommand)]
enum Project {
    /// Register a project and print its client id and secret, which are shown this once
    Create(Create),
}

#[derive(Subcommand)]
enum ServiceToken {
    /// Mint a service token for a project and print it, this once
    Create(Create),
}

#[derive(Args)]
struct Create {
    /// Name of the project
    name: String,
    /// Directory of the gateway's state
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Create {
    fn authority(&self) -> Result<Authority, CliError> {
        Ok(Authority::open(&self.state, TOKEN_LIFETIME, Arc::new(SystemClock::new()))?)
    }
}

pub(super) fn run(arguments: Arguments) -> Result<Exit, CliError> {
    let text = match arguments.what {
        What::Project(Project::Create(create)) => {
            let project = create.authority()?.create_project(&create.name)?;
            let secret = project.client_secret.expose_secret();
            match create.json {
                true => format!("{}\n", json!({ "client_id": project.client_id, "client_secret": secret })),
                false => format!("client_id      {}\nclient_secret  {secret}\n", project.client_id),
            }
        }
        What::ServiceToken(ServiceToken::Create(create)) => {
            let token = create.authority()?.create_service_token(&create.name)?;
            match create.json {
                true => format!("{}\n", json!({ "token": token.expose_secret() })),
                false => format!("{}\n", token.expose_secret()),
            }
        }
    };
    say(&text)?;
    Ok(Exit::Done)
}
