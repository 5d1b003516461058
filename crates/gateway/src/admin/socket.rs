//! The Unix socket of a running gateway: a command in JSON, the end of the client's half, an answer in JSON.

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
use crate::Gateway;

/// The socket, in the directory of the state.
const NAME: &str = "admin.sock";
/// The longest command read: a real one has a few hundred bytes.
const MAX_COMMAND: u64 = 64 * 1024;
/// How long a command may take to arrive, or an answer to leave. They are taken one after another.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the answer may take, at the other end.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command came to: an answer, or why there is none.
type Reply = Result<Answer, String>;

/// Asks the gateway that runs on `directory`; `None` where none does.
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

/// The gateway's end, which is there for as long as this is.
pub(crate) struct AdminSocket {
    /// Not yet of a runtime: it is made before there may be one.
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Listens in `directory`, in place of whoever did before: the store is locked, so that can only be a gateway that
    /// was killed. Only the owner may connect, at any moment: the socket is made where nobody else looks, then moved.
    pub(crate) fn bind(directory: &Path) -> io::Result<AdminSocket> {
        let path = directory.join(NAME);
        let listener = listen(directory, &path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(AdminSocket { listener, path })
    }

    /// Performs what it is told, for ever.
    ///
    /// # Errors
    /// Where the runtime doesn't take the socket.
    pub(crate) async fn serve(&self, gateway: &Arc<Gateway>) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        loop {
            let served = match listener.accept().await {
                Ok((socket, _)) => answer(socket, gateway.clone()).await,
                Err(error) => {
                    // Without descriptors there is no socket for a while.
                    tokio::time::sleep(TIMEOUT).await;
                    Err(error)
                }
            };
            if let Err(error) = served {
                tracing::warn!(%error, "command not answered");
            }
        }
    }
}

fn listen(directory: &Path, path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    // Left to itself it would have what the umask allows.
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
        // Where it stays behind, nobody answers there.
        let _ = fs::remove_file(&self.path);
    }
}

async fn answer(mut socket: UnixStream, gateway: Arc<Gateway>) -> io::Result<()> {
    let mut bytes = Vec::new();
    timeout(TIMEOUT, (&mut socket).take(MAX_COMMAND).read_to_end(&mut bytes)).await??;
    let performing = move || -> Reply {
        let command = serde_json::from_slice(&bytes).map_err(|error| format!("command: {error}"))?;
        perform(gateway.authority(), command).map_err(|error| error.to_string())
    };
    let reply = tokio::task::spawn_blocking(performing).await.map_err(io::Error::other)?;
    let reply = serde_json::to_vec(&reply)?;
    timeout(TIMEOUT, socket.write_all(&reply)).await??;
    Ok(())
}
