//! Administration of the gateway's projects and tokens, while the gateway runs or is stopped.
//!
//! Only one process can open the store. So a running gateway listens on a Unix socket beside the store, and
//! [`administer`] sends the command there; if no gateway runs, [`administer`] opens the store itself. Either
//! way the same function performs the [`Command`] and returns the [`Answer`].
//!
//! This room imports [`authority`](crate::authority) alone.

#[cfg(unix)]
mod socket;

#[cfg(not(unix))]
mod socket {
    //! Without Unix sockets a gateway can be administered only while it is stopped.

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

        pub(crate) async fn serve(&self, _: &std::sync::Arc<crate::authority::Authority>) -> io::Result<()> {
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
use crate::authority::{
    Authority, AuthorityError, ClientEntry, Dump, NewClient, NewToken, ProjectEntry, ServiceTokenEntry,
    Terms, TokenEntry, UsageEntry, require_no_backup, require_store,
};
use voxline::language::Languages;
use voxline_support::clock::Clock;

/// An administrative command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Registers a project and its first client.
    CreateProject {
        /// Name of the project.
        name: String,
        /// Candidate languages for a client that names none; the gateway's default if absent.
        #[serde(default)]
        languages: Option<Languages>,
    },
    /// Sets the languages of a project.
    SetLanguages {
        /// Name of the project.
        name: String,
        /// Candidate languages; the gateway's default if absent.
        languages: Option<Languages>,
    },
    /// Lists the projects.
    ListProjects,
    /// Disables or enables a project.
    SetActive {
        /// Name of the project.
        name: String,
        /// `true` to enable the project, `false` to disable it.
        active: bool,
    },
    /// Revokes a project with all its clients and tokens.
    RevokeProject {
        /// Name of the project.
        name: String,
    },
    /// Registers another client of a project.
    CreateClient {
        /// Name of the project.
        project: String,
    },
    /// Lists the clients of a project, or of all projects.
    ListClients {
        /// Name of the project; all projects if absent.
        project: Option<String>,
    },
    /// Revokes a client with all its tokens.
    RevokeClient {
        /// Client id.
        id: String,
    },
    /// Mints a service token for a project.
    CreateServiceToken {
        /// Name of the project.
        project: String,
        /// Terms of the token.
        terms: Terms,
    },
    /// Lists the service tokens of a project, or of all projects.
    ListServiceTokens {
        /// Name of the project; all projects if absent.
        project: Option<String>,
    },
    /// Lists the refresh and access tokens of a project, or of all projects.
    ListTokens {
        /// Name of the project; all projects if absent.
        project: Option<String>,
    },
    /// Revokes a refresh token with its access tokens, an access token or a service token.
    RevokeToken {
        /// Id of the token.
        id: String,
    },
    /// Reports the usage of a project, or of all projects.
    Usage {
        /// Name of the project; all projects if absent.
        project: Option<String>,
    },
    /// Returns all records, for a backup.
    Dump,
}

/// The answer to a [`Command`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The command was performed.
    Done,
    /// Credentials of a new client.
    NewClient(NewClient),
    /// A new service token.
    NewToken(NewToken),
    /// List of projects.
    Projects(Vec<ProjectEntry>),
    /// List of clients.
    Clients(Vec<ClientEntry>),
    /// List of service tokens.
    ServiceTokens(Vec<ServiceTokenEntry>),
    /// List of refresh and access tokens.
    Tokens(Vec<TokenEntry>),
    /// List of usage.
    Usage(Vec<UsageEntry>),
    /// All records.
    Dump(Dump),
}

/// Reason why a command was not performed. Nothing was changed, except perhaps after [`Io`](AdminError::Io):
/// a gateway that does not answer may have performed it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The authority refused the command or failed.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The authority of the running gateway refused the command or failed, with its message.
    #[error("{0}")]
    Refused(String),
    /// The running gateway doesn't answer.
    #[error("gateway at {path} does not answer")]
    Io {
        /// Path of the gateway's socket.
        path: PathBuf,
        /// Cause of the failure.
        source: io::Error,
    },
}

/// Performs `command` on the state in `directory`: in the gateway that runs there, or in this process if none
/// does. Blocks on disks and sockets.
///
/// # Errors
/// Returns [`AdminError`] if the command is refused, or the gateway or store fails.
pub fn administer(directory: &Path, command: Command, clock: Arc<dyn Clock>) -> Result<Answer, AdminError> {
    if let Some(answer) = socket::ask(directory, &command)? {
        return Ok(answer);
    }
    // No command grants access tokens, so they have no lifetime here.
    let authority = Authority::open(directory, Duration::ZERO, clock)?;
    Ok(perform(&authority, command)?)
}

/// Writes a backup of the state in `directory` to the new file `file`, which only its owner can read. The
/// backup is a consistent store, whether or not a gateway runs. Blocks on disks and sockets.
///
/// # Errors
/// Returns an [`AdminError`] with [`StateError::Missing`](super::authority::StateError) if there is no state,
/// with `BackupExists` if the file exists, or with another error if the gateway or store fails.
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
/// Returns the [`AuthorityError`] of the operation.
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
