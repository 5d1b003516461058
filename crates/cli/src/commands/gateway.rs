//! `voxline gateway`: the gateway's projects and tokens, whether it runs or not.

mod table;

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::exit_code::{CliError, Exit};
use crate::say;
use crate::typed::{lifetime, network, seconds, whole};
use voxline::language::Languages;
use voxline_gateway::admin::{AdminError, Answer, Command, administer, backup};
use voxline_gateway::authority::{Budget, Scope, Scopes, Terms};
use voxline_support::clock::SystemClock;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Projects: who may get tokens
    #[command(subcommand)]
    Project(Project),
    /// Clients of a project: each has an id and a secret, all share the project's limits
    #[command(subcommand)]
    Client(Client),
    /// Service tokens: bearer tokens that need no renewal
    #[command(subcommand)]
    ServiceToken(ServiceToken),
    /// Refresh and access tokens
    #[command(subcommand)]
    Token(Token),
    /// What clients and service tokens have used, today (by UTC) and in all
    Usage(List),
    /// Write a backup of the state to a new file, whether the gateway runs or not
    Backup(Backup),
}

#[derive(Subcommand)]
enum Project {
    /// Register a project and print the id and secret of its first client, which are shown this once
    Create(CreateProject),
    /// Set the language of clients that name none: one, several of which one is detected, auto, or the
    /// gateway's
    Language(SetLanguages),
    /// List the projects
    List(At),
    /// Refuse a project's tokens for as long as it is disabled
    Disable(Named),
    /// Take a project's tokens again
    Enable(Named),
    /// End a project with all its clients and tokens
    Revoke(Named),
}

#[derive(Subcommand)]
enum Client {
    /// Register another client of a project and print its id and secret, which are shown this once
    Create(Named),
    /// List the clients
    List(List),
    /// End a client with all its tokens
    Revoke(Identified),
}

#[derive(Subcommand)]
enum ServiceToken {
    /// Mint a service token for a project and print it, this once
    Create(CreateServiceToken),
    /// List the service tokens
    List(List),
    /// End a service token
    Revoke(Identified),
}

#[derive(Subcommand)]
enum Token {
    /// List the refresh and access tokens
    List(List),
    /// End a refresh token with its access tokens, or an access token
    Revoke(Identified),
}

/// Where the gateway is, and how to print.
#[derive(Args)]
struct At {
    /// Directory of the gateway's state
    #[arg(long, value_name = "DIR", env = "VOXLINE_GATEWAY_STATE")]
    state: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Named {
    /// Name of the project
    name: String,
    #[command(flatten)]
    at: At,
}

#[derive(Args)]
struct CreateProject {
    #[command(flatten)]
    named: Named,
    /// Language of clients that name none: a code or a name, several of which one is detected (ru,en), or
    /// auto to have any detected [default: that of the gateway]
    #[arg(long, value_name = "LANGUAGE")]
    language: Option<Languages>,
}

#[derive(Args)]
struct SetLanguages {
    #[command(flatten)]
    named: Named,
    /// A code or a name, several of which one is detected (ru,en), or auto to have any detected [default:
    /// that of the gateway]
    language: Option<Languages>,
}

#[derive(Args)]
struct Identified {
    /// Its id, as lists show it
    id: String,
    #[command(flatten)]
    at: At,
}

#[derive(Args)]
struct List {
    /// Name of the project [default: all]
    project: Option<String>,
    #[command(flatten)]
    at: At,
}

#[derive(Args)]
struct Backup {
    /// The file, which must not exist: a store that is restored by copying it into a state directory
    file: PathBuf,
    /// Directory of the gateway's state
    #[arg(long, value_name = "DIR", env = "VOXLINE_GATEWAY_STATE")]
    state: PathBuf,
}

#[derive(Args)]
struct CreateServiceToken {
    /// Name of the project
    name: String,
    #[command(flatten)]
    at: At,
    /// What it opens: tts, asr_short, asr_stream [default: all]
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    scopes: Vec<Scope>,
    /// How long it lives: seconds, or a time such as 12h or 30d [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    expires_in: Option<u64>,
    /// How much audio it may have recognised in a day of UTC: seconds, or a time such as 10h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    audio_per_day: Option<u64>,
    /// How much audio it may have recognised in all: seconds, or a time such as 10h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    audio_total: Option<u64>,
    /// How many characters it may have spoken in a day of UTC
    #[arg(long, value_name = "COUNT", value_parser = whole(0..=u64::MAX))]
    characters_per_day: Option<u64>,
    /// How many characters it may have spoken in all
    #[arg(long, value_name = "COUNT", value_parser = whole(0..=u64::MAX))]
    characters_total: Option<u64>,
    /// Networks or addresses it may be used from, as 10.0.0.0/8 [default: any]
    #[arg(long = "from", value_name = "NETWORKS", value_delimiter = ',', value_parser = network)]
    networks: Vec<IpNet>,
    /// How many streaming sessions of it may live at once [default: as many as the gateway has]
    #[arg(long, value_name = "COUNT", value_parser = whole(0..=u32::MAX))]
    max_sessions: Option<u32>,
}

impl CreateServiceToken {
    fn into_command(self) -> (At, Command) {
        let scopes = match self.scopes.is_empty() {
            true => Scopes::all(),
            false => self.scopes.into_iter().collect(),
        };
        let terms = Terms {
            scopes,
            expires_in: self.expires_in,
            audio: Budget { per_day: self.audio_per_day, total: self.audio_total },
            characters: Budget { per_day: self.characters_per_day, total: self.characters_total },
            networks: self.networks,
            max_sessions: self.max_sessions,
        };
        (self.at, Command::CreateServiceToken { project: self.name, terms })
    }
}

impl What {
    /// The command, unless it is a backup, which is more than one.
    fn into_command(self) -> Result<(At, Command), Backup> {
        Ok(match self {
            What::Backup(backup) => return Err(backup),
            What::Project(Project::Create(CreateProject {
                named: Named { name, at },
                language: languages,
            })) => (at, Command::CreateProject { name, languages }),
            What::Project(Project::Language(SetLanguages {
                named: Named { name, at },
                language: languages,
            })) => (at, Command::SetLanguages { name, languages }),
            What::Project(Project::List(at)) => (at, Command::ListProjects),
            What::Project(Project::Disable(Named { name, at })) => {
                (at, Command::SetActive { name, active: false })
            }
            What::Project(Project::Enable(Named { name, at })) => {
                (at, Command::SetActive { name, active: true })
            }
            What::Project(Project::Revoke(Named { name, at })) => (at, Command::RevokeProject { name }),
            What::Client(Client::Create(Named { name, at })) => (at, Command::CreateClient { project: name }),
            What::Client(Client::List(List { project, at })) => (at, Command::ListClients { project }),
            What::Client(Client::Revoke(Identified { id, at })) => (at, Command::RevokeClient { id }),
            What::ServiceToken(ServiceToken::Create(create)) => create.into_command(),
            What::ServiceToken(ServiceToken::List(List { project, at })) => {
                (at, Command::ListServiceTokens { project })
            }
            What::Token(Token::List(List { project, at })) => (at, Command::ListTokens { project }),
            What::ServiceToken(ServiceToken::Revoke(Identified { id, at }))
            | What::Token(Token::Revoke(Identified { id, at })) => (at, Command::RevokeToken { id }),
            What::Usage(List { project, at }) => (at, Command::Usage { project }),
        })
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<Exit, CliError> {
    let clock = Arc::new(SystemClock::new());
    let (at, command) = match arguments.what.into_command() {
        Ok(command) => command,
        Err(Backup { file, state }) => {
            backup(&state, &file, clock)?;
            return Ok(Exit::Done);
        }
    };
    let answer = administer(&at.state, command, clock)?;
    let text = match at.json {
        true => format!("{}\n", content(&answer)),
        false => plain(answer),
    };
    say(&text)?;
    Ok(Exit::Done)
}

impl From<AdminError> for CliError {
    fn from(error: AdminError) -> CliError {
        CliError::new(Exit::Setup, error.to_string())
    }
}

/// What is in an answer, without its kind.
fn content(answer: &Answer) -> Value {
    match json!(answer) {
        Value::Object(kind) => kind.into_iter().map(|(_, content)| content).next().unwrap_or_default(),
        _ => json!({}),
    }
}

fn plain(answer: Answer) -> String {
    match answer {
        // Only a backup asks for a dump.
        Answer::Done | Answer::Dump(_) => String::new(),
        Answer::NewClient(client) => {
            format!(
                "client_id      {}\nclient_secret  {}\n",
                client.client_id,
                client.client_secret.expose_secret()
            )
        }
        // Alone, so that it can be sent to a file.
        Answer::NewToken(token) => format!("{}\n", token.token.expose_secret()),
        Answer::Projects(entries) => table::projects(entries),
        Answer::Clients(entries) => table::clients(entries),
        Answer::ServiceTokens(entries) => table::service_tokens(entries),
        Answer::Tokens(entries) => table::tokens(entries),
        Answer::Usage(entries) => table::usage(entries),
    }
}
