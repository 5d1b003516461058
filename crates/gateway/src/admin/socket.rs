//! The Unix socket of a running gateway: the client sends a command in JSON and shuts down its half of the
//! connection, then the gateway sends an answer in JSON.

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::{AdminError, Answer, Command, perform};
use crate::authority::Authority;

/// Name of the socket, in the directory of the state.
const NAME: &str = "admin.sock";
/// Longest command read, in bytes: a real command has a few hundred.
const MAX_COMMAND: u64 = 64 * 1024;
/// Longest time that a command may take to arrive, or an answer to be sent. Connections are served one at a
/// time.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time that a client waits for the answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Result of a command: an answer, or the reason for a refusal.
type Reply = Result<Answer, String>;

/// Sends `command` to the gateway that runs on `directory`; returns `None` if no gateway runs there.
pub(super) fn ask(directory: &Path, command: &Command) -> Result<Option<Answer>, AdminError> {
    let path = directory.join(NAME);
    let mut socket = match std::os::unix::net::UnixStream::connect(&path) {
        Ok(socket) => socket,
        // A gateway that was killed leaves its socket behind.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(source) => return Err(AdminError::Io { path, source }),
    };
    let mut exchange = || -> io::Result<Reply> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(&serde_json::to_vec(command)?)?;
        socket.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        Ok(serde_json::from_slice(&answer)?)
    };
    match exchange().map_err(|source| AdminError::Io { path, source })? {
        Ok(answer) => Ok(Some(answer)),
        Err(reason) => Err(AdminError::Refused(reason)),
    }
}

/// The listening socket of a gateway, which is removed on drop.
pub(crate) struct AdminSocket {
    /// A blocking listener, since it is created before there may be an async runtime.
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Listens in `directory`, replacing an existing socket: the store is locked, so the socket can only be
    /// left over from a gateway that was killed. Only the owner may connect at any moment: the socket is
    /// created in a private directory, then moved.
    pub(crate) fn bind(directory: &Path) -> io::Result<AdminSocket> {
        let path = directory.join(NAME);
        let listener = listen(directory, &path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(AdminSocket { listener, path })
    }

    /// Serves commands without end.
    ///
    /// # Errors
    /// Returns an [`io::Error`] if the async runtime can't register the socket.
    pub(crate) async fn serve(&self, authority: &Arc<Authority>) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        loop {
            let served = match listener.accept().await {
                Ok((socket, _)) => answer(socket, authority.clone()).await,
                Err(error) => {
                    // The process may be out of file descriptors, so wait before the next attempt.
                    tokio::time::sleep(TIMEOUT).await;
                    Err(error)
                }
            };
            if let Err(error) = served {
                tracing::warn!(%error, "operator command failed");
            }
        }
    }
}

fn listen(directory: &Path, path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    // By default the socket's mode would depend on the umask.
    let private = Permissions::from_mode(0o700);
    let nursery = tempfile::Builder::new().prefix(".admin").permissions(private).tempdir_in(directory)?;
    let made = nursery.path().join("new");
    let listener = std::os::unix::net::UnixListener::bind(&made)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(&made, Permissions::from_mode(0o600))?;
    fs::rename(&made, path)?;
    Ok(listener)
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // A socket file that can't be removed refuses connections, which does no harm.
        let _ = fs::remove_file(&self.path);
    }
}

async fn answer(mut socket: UnixStream, authority: Arc<Authority>) -> io::Result<()> {
    let mut bytes = Vec::new();
    timeout(TIMEOUT, (&mut socket).take(MAX_COMMAND).read_to_end(&mut bytes)).await??;
    let performing = move || -> Reply {
        let command = serde_json::from_slice(&bytes).map_err(|error| format!("command: {error}"))?;
        perform(&authority, command).map_err(|error| error.to_string())
    };
    let reply = tokio::task::spawn_blocking(performing).await.map_err(io::Error::other)?;
    let reply = serde_json::to_vec(&reply)?;
    timeout(TIMEOUT, socket.write_all(&reply)).await??;
    Ok(())
}
