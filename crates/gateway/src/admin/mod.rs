//! What an operator may do with the gateway's projects and tokens, whether it runs or not.
//!
//! The store belongs to one process. So a running gateway listens on a Unix socket beside it, and [`administer`] asks
//! there; where nobody answers it opens the store itself. Either way the same [`Command`] is performed by the same
//! function, and has the same [`Answer`].

#[cfg(unix)]
mod socket;

#[cfg(not(unix))]
mod socket {
    //! Without Unix sockets a gateway is administered while it is stopped.

    use std::io;
    use std::path::Path;

    use super::{AdminError, Answer, Command};

    pub(super) fn ask(_: &Path, _: &Command) -> Result<Option<Answer>, AdminError> {
        Ok(None)
    }

    pub(crate) struct AdminSocket;

    impl AdminSocket {
        pub(crate) fn bind(_: &Path) -> io::Result<AdminSocket> {
            Ok(AdminSocket)
        }

        pub(crate) async fn serve(&self, _: &std::sync::Arc<crate::Gateway>) -> io::Result<()> {
            std::future::pending().await
        }
    }
}

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(super) use self::socket::AdminSocket;
use super::authority::{
    Authority, AuthorityError, ClientEntry, Dump, NewClient, NewToken, ProjectEntry, ServiceTokenEntry,
    Terms, TokenEntry, UsageEntry, require_no_backup, require_store,
};
use voxline::language::Languages;
use voxline_support::clock::Clock;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Register a project and its first client.
    CreateProject {
        /// Its name.
        name: String,
        /// The languages of which one is spoken where a client names none; those of the gateway where absent.
        #[serde(default)]
        languages: Option<Languages>,
    },
    /// Set the languages of a project.
    SetLanguages {
        /// Its name.
        name: String,
        /// The languages, or those of the gateway.
        languages: Option<Languages>,
    },
    /// List the projects.
    ListProjects,
    /// Disable a project, or enable it again.
    SetActive {
        /// Its name.
        name: String,
        /// Whether its tokens are to be good.
        active: bool,
    },
    /// End a project with all its clients and tokens.
    RevokeProject {
        /// Its name.
        name: String,
    },
    /// Register another client of a project.
    CreateClient {
        /// The project's name.
        project: String,
    },
    /// List the clients of a project, or of all.
    ListClients {
        /// The project's name.
        project: Option<String>,
    },
    /// End a client with all its tokens.
    RevokeClient {
        /// Its client id.
        id: String,
    },
    /// Mint a service token for a project.
    CreateServiceToken {
        /// The project's name.
        project: String,
        /// What it is to be good for.
        terms: Terms,
    },
    /// List the service tokens of a project, or of all.
    ListServiceTokens {
        /// The project's name.
        project: Option<String>,
    },
    /// List the refresh and access tokens of a project, or of all.
    ListTokens {
        /// The project's name.
        project: Option<String>,
    },
    /// End a refresh token with its access tokens, an access token or a service token.
    RevokeToken {
        /// Its id.
        id: String,
    },
    /// Tell what was used.
    Usage {
        /// The project's name; all where absent.
        project: Option<String>,
    },
    /// Tell all there is, for a backup.
    Dump,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done.
    Done,
    /// A new client's credentials.
    NewClient(NewClient),
    /// A new service token.
    NewToken(NewToken),
    /// The projects.
    Projects(Vec<ProjectEntry>),
    /// The clients.
    Clients(Vec<ClientEntry>),
    /// The service tokens.
    ServiceTokens(Vec<ServiceTokenEntry>),
    /// The refresh and access tokens.
    Tokens(Vec<TokenEntry>),
    /// What was used.
    Usage(Vec<UsageEntry>),
    /// All there is.
    Dump(Dump),
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The authority says no.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The authority of the running gateway says no, in the same words.
    #[error("{0}")]
    Refused(String),
    /// The running gateway doesn't answer.
    #[error("gateway at {path}: {source}")]
    Io {
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Performs `command` on the state in `directory`: by the gateway that runs there, or here where none does. Waits for
/// disks and sockets.
///
/// # Errors
/// See [`AdminError`].
pub fn administer(directory: &Path, command: Command, clock: Arc<dyn Clock>) -> Result<Answer, AdminError> {
    if let Some(answer) = socket::ask(directory, &command)? {
        return Ok(answer);
    }
    // No command grants access tokens, so they have no lifetime here.
    let authority = Authority::open(directory, Duration::ZERO, clock)?;
    Ok(perform(&authority, command)?)
}

/// Writes a backup of the state in `directory` to the new file `file`, which only its owner can read: a store
/// as of one moment, be there a gateway that runs or not. Waits for disks and sockets.
///
/// # Errors
/// [`StateError::Missing`](super::authority::StateError) and `BackupExists` among others: see [`AdminError`].
pub fn backup(directory: &Path, file: &Path, clock: Arc<dyn Clock>) -> Result<(), AdminError> {
    require_no_backup(file).and_then(|()| require_store(directory)).map_err(AuthorityError::from)?;
    match administer(directory, Command::Dump, clock)? {
        Answer::Dump(dump) => Ok(dump.write(file).map_err(AuthorityError::from)?),
        other => Err(AdminError::Refused(format!("the gateway answers a backup with {other:?}"))),
    }
}

/// Performs `command`.
///
/// # Errors
/// See [`AuthorityError`].
pub fn perform(authority: &Authority, command: Command) -> Result<Answer, AuthorityError> {
    match command {
        Command::CreateProject { name, languages } => {
            authority.create_project_speaking(&name, languages).map(Answer::NewClient)
        }
        Command::SetLanguages { name, languages } => {
            authority.set_languages(&name, languages).map(|()| Answer::Done)
        }
        Command::ListProjects => authority.projects().map(Answer::Projects),
        Command::SetActive { name, active } => authority.set_active(&name, active).map(|()| Answer::Done),
        Command::RevokeProject { name } => authority.revoke_project(&name).map(|()| Answer::Done),
        Command::CreateClient { project } => authority.create_client(&project).map(Answer::NewClient),
        Command::ListClients { project } => authority.clients(project.as_deref()).map(Answer::Clients),
        Command::RevokeClient { id } => authority.revoke_client(&id).map(|()| Answer::Done),
        Command::CreateServiceToken { project, terms } => {
            authority.create_service_token(&project, terms).map(Answer::NewToken)
        }
        Command::ListServiceTokens { project } => {
            authority.service_tokens(project.as_deref()).map(Answer::ServiceTokens)
        }
        Command::ListTokens { project } => authority.tokens(project.as_deref()).map(Answer::Tokens),
        Command::RevokeToken { id } => authority.revoke_token(&id).map(|()| Answer::Done),
        Command::Usage { project } => authority.usage(project.as_deref()).map(Answer::Usage),
        Command::Dump => authority.dump().map(Answer::Dump),
    }
}
