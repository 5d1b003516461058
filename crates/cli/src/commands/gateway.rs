//! `voxline gateway`: administers the gateway's projects and tokens, while the gateway runs or is stopped.

mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::arguments::Common;
use crate::exit_code::{CliError, Exit};
use crate::terminal::say;
use crate::typed::{lifetime, network, seconds, whole};
use voxline::language::Languages;
use voxline_gateway::admin::{AdminError, Answer, Command, administer, backup};
use voxline_gateway::authority::{AuthorityError, Budget, Scope, Scopes, StateError, Terms};
use voxline_support::clock::SystemClock;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Administer projects, which own clients and tokens
    #[command(subcommand)]
    Project(Project),
    /// Administer the clients of a project: each has an id and a secret, all share the project's limits
    #[command(subcommand)]
    Client(Client),
    /// Administer service tokens: bearer tokens that need no renewal
    #[command(subcommand)]
    ServiceToken(ServiceToken),
    /// Administer refresh and access tokens
    #[command(subcommand)]
    Token(Token),
    /// Show the usage of clients and service tokens, today (by UTC) and in total
    Usage(List),
    /// Write a backup of the state to a new file, whether the gateway runs or not
    Backup(Backup),
}

#[derive(Subcommand)]
enum Project {
    /// Register a project and print the id and secret of its first client, which are shown only once
    Create(CreateProject),
    /// Set the language of clients that name none: one, several candidates for detection, auto, or the
    /// gateway's default
    Language(SetLanguages),
    /// List the projects
    List(At),
    /// Refuse a project's tokens until it is enabled again
    Disable(Named),
    /// Accept the tokens of a disabled project again
    Enable(Named),
    /// Revoke a project with all its clients and tokens
    Revoke(Named),
}

#[derive(Subcommand)]
enum Client {
    /// Register another client of a project and print its id and secret, which are shown only once
    Create(Named),
    /// List the clients
    List(List),
    /// Revoke a client with all its tokens
    Revoke(Identified),
}

#[derive(Subcommand)]
enum ServiceToken {
    /// Create a service token for a project and print it; it is shown only once
    Create(CreateServiceToken),
    /// List the service tokens
    List(List),
    /// Revoke a service token
    Revoke(Identified),
}

#[derive(Subcommand)]
enum Token {
    /// List the refresh and access tokens
    List(List),
    /// Revoke a refresh token with its access tokens, or an access token
    Revoke(Identified),
}

/// The gateway's state, and the output format.
#[derive(Args)]
struct At {
    /// Directory of the gateway's state [default: state in [gateway] of the configuration file]
    #[arg(long, value_name = "DIR", env = "VOXLINE_GATEWAY_STATE")]
    state: Option<PathBuf>,
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
    /// Language of clients that name none: a code or a name, several candidates for detection (ru,en), or
    /// auto to detect any [default: that of the gateway]
    #[arg(long, value_name = "LANGUAGE")]
    language: Option<Languages>,
}

#[derive(Args)]
struct SetLanguages {
    #[command(flatten)]
    named: Named,
    /// A code or a name, several candidates for detection (ru,en), or auto to detect any [default: that of
    /// the gateway]
    language: Option<Languages>,
}

#[derive(Args)]
struct Identified {
    /// Id, as shown in lists
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
    /// Backup file, which must not exist: a store that is restored by copying it into a state directory
    file: PathBuf,
    /// Directory of the gateway's state [default: state in [gateway] of the configuration file]
    #[arg(long, value_name = "DIR", env = "VOXLINE_GATEWAY_STATE")]
    state: Option<PathBuf>,
}

#[derive(Args)]
struct CreateServiceToken {
    /// Name of the project
    name: String,
    #[command(flatten)]
    at: At,
    /// Scopes of the token: tts, asr_short, asr_stream [default: all]
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    scopes: Vec<Scope>,
    /// Lifetime of the token: seconds, or a time such as 12h or 30d [default: unlimited]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    expires_in: Option<u64>,
    /// Audio for recognition per UTC day: seconds, or a time such as 10h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    audio_per_day: Option<u64>,
    /// Audio for recognition in total: seconds, or a time such as 10h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    audio_total: Option<u64>,
    /// Characters for synthesis per UTC day
    #[arg(long, value_name = "COUNT", value_parser = whole(0..=u64::MAX))]
    characters_per_day: Option<u64>,
    /// Characters for synthesis in total
    #[arg(long, value_name = "COUNT", value_parser = whole(0..=u64::MAX))]
    characters_total: Option<u64>,
    /// Networks or addresses that the token may be used from, such as 10.0.0.0/8 [default: any]
    #[arg(long = "from", value_name = "NETWORKS", value_delimiter = ',', value_parser = network)]
    networks: Vec<IpNet>,
    /// Maximum number of concurrent streaming sessions with the token [default: the limit of the gateway]
    #[arg(long, value_name = "COUNT", value_parser = whole(0..=u32::MAX))]
    max_sessions: Option<u32>,
}

impl CreateServiceToken {
    fn into_command(self) -> (At, Command) {
        let scopes = if self.scopes.is_empty() { Scopes::all() } else { self.scopes.into_iter().collect() };
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

impl Action {
    /// Returns the administrative command; a backup, which takes more than one step, is returned as the
    /// error.
    fn into_command(self) -> Result<(At, Command), Backup> {
        Ok(match self {
            Action::Backup(backup) => return Err(backup),
            Action::Project(Project::Create(CreateProject {
                named: Named { name, at },
                language: languages,
            })) => (at, Command::CreateProject { name, languages }),
            Action::Project(Project::Language(SetLanguages {
                named: Named { name, at },
                language: languages,
            })) => (at, Command::SetLanguages { name, languages }),
            Action::Project(Project::List(at)) => (at, Command::ListProjects),
            Action::Project(Project::Disable(Named { name, at })) => {
                (at, Command::SetActive { name, active: false })
            }
            Action::Project(Project::Enable(Named { name, at })) => {
                (at, Command::SetActive { name, active: true })
            }
            Action::Project(Project::Revoke(Named { name, at })) => (at, Command::RevokeProject { name }),
            Action::Client(Client::Create(Named { name, at })) => {
                (at, Command::CreateClient { project: name })
            }
            Action::Client(Client::List(List { project, at })) => (at, Command::ListClients { project }),
            Action::Client(Client::Revoke(Identified { id, at })) => (at, Command::RevokeClient { id }),
            Action::ServiceToken(ServiceToken::Create(create)) => create.into_command(),
            Action::ServiceToken(ServiceToken::List(List { project, at })) => {
                (at, Command::ListServiceTokens { project })
            }
            Action::Token(Token::List(List { project, at })) => (at, Command::ListTokens { project }),
            Action::ServiceToken(ServiceToken::Revoke(Identified { id, at }))
            | Action::Token(Token::Revoke(Identified { id, at })) => (at, Command::RevokeToken { id }),
            Action::Usage(List { project, at }) => (at, Command::Usage { project }),
        })
    }
}

pub(crate) fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    let clock = Arc::new(SystemClock::new());
    let (at, command) = match arguments.action.into_command() {
        Ok(command) => command,
        Err(Backup { file, state }) => {
            backup(&state_directory(state, common)?, &file, clock)?;
            return Ok(Exit::Done);
        }
    };
    let state = state_directory(at.state, common)?;
    // Opening the state creates it, as for a first project. For any other command a missing directory is a
    // wrong name.
    if !matches!(command, Command::CreateProject { .. }) && is_missing(&state) {
        return Err(AuthorityError::from(StateError::Missing { path: state }).into());
    }
    let answer = administer(&state, command, clock)?;
    let text = if at.json { format!("{}\n", content(&answer)) } else { plain(answer) };
    say(&text)?;
    Ok(Exit::Done)
}

/// Returns the directory of the gateway's state: `given` by flag or environment, or that of the configuration
/// file.
fn state_directory(given: Option<PathBuf>, common: Common) -> Result<PathBuf, CliError> {
    match given.filter(|path| !path.as_os_str().is_empty()) {
        Some(state) => Ok(state),
        None => Ok(common.load(None)?.gateway.state()?.clone()),
    }
}

/// Returns whether there is nothing at the path. A path that can't be examined is left to the command, which
/// reports the reason.
fn is_missing(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

impl From<AdminError> for CliError {
    fn from(error: AdminError) -> CliError {
        CliError::of(Exit::Setup, &error)
    }
}

/// Returns the content of an answer, without its kind.
fn content(answer: &Answer) -> Value {
    match json!(answer) {
        Value::Object(kind) => kind.into_iter().map(|(_, content)| content).next().unwrap_or_default(),
        _ => json!({}),
    }
}

fn plain(answer: Answer) -> String {
    match answer {
        // Only a backup requests a dump.
        Answer::Done | Answer::Dump(_) => String::new(),
        Answer::NewClient(client) => {
            format!(
                "client_id      {}\nclient_secret  {}\n",
                client.client_id,
                client.client_secret.expose_secret()
            )
        }
        // The token alone, so that the output can be redirected to a file.
        Answer::NewToken(token) => format!("{}\n", token.token.expose_secret()),
        Answer::Projects(entries) => table::projects(entries),
        Answer::Clients(entries) => table::clients(entries),
        Answer::ServiceTokens(entries) => table::service_tokens(entries),
        Answer::Tokens(entries) => table::tokens(entries),
        Answer::Usage(entries) => table::usage(entries),
    }
}
