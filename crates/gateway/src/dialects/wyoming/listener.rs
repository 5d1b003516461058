//! Listeners of the Wyoming protocol, on TCP and Unix sockets.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

#[cfg(unix)]
use self::unix::SocketFile;
use crate::http::server;
use crate::options::WyomingAddress;

/// A listener for clients of the Wyoming protocol.
pub struct WyomingListener(Kind);

enum Kind {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        listener: UnixListener,
        _file: SocketFile,
    },
}

/// A connection that was accepted.
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl WyomingListener {
    /// Listens on an address. A file of a Unix socket on which nobody listens any more is replaced, and is
    /// removed when the listener is dropped.
    ///
    /// # Errors
    /// Returns [`io::Error`] if the address can't be listened on, or the system has no Unix sockets.
    pub async fn bind(address: &WyomingAddress) -> io::Result<WyomingListener> {
        match address {
            WyomingAddress::Tcp(address) => Ok(WyomingListener(Kind::Tcp(TcpListener::bind(address).await?))),
            #[cfg(unix)]
            WyomingAddress::Unix(path) => {
                let (listener, file) = unix::bind(path)?;
                Ok(WyomingListener(Kind::Unix { listener, _file: file }))
            }
            #[cfg(not(unix))]
            WyomingAddress::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Returns the address with its port, if it is one of TCP.
    ///
    /// # Errors
    /// Returns [`io::Error`] if the system doesn't know it.
    pub fn tcp_address(&self) -> io::Result<Option<SocketAddr>> {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr().map(Some),
            #[cfg(unix)]
            Kind::Unix { .. } => Ok(None),
        }
    }

    /// Accepts the next connection.
    pub(super) async fn accept(&self) -> Accepted {
        match &self.0 {
            Kind::Tcp(listener) => {
                let (socket, peer) = server::accept(listener).await;
                Accepted::Tcp(socket, peer)
            }
            #[cfg(unix)]
            Kind::Unix { listener, .. } => Accepted::Unix(unix::accept(listener).await),
        }
    }
}

#[cfg(unix)]
mod unix {
    use std::fs;
    use std::io::{self, ErrorKind};
    use std::os::unix::fs::FileTypeExt;
    use std::path::{Path, PathBuf};

    use tokio::net::{UnixListener, UnixStream};

    use crate::http::server::EXHAUSTED_WAIT;

    /// File of a socket, which is removed on drop.
    pub(super) struct SocketFile(PathBuf);

    impl Drop for SocketFile {
        fn drop(&mut self) {
            // A file that can't be removed refuses connections, which does no harm.
            let _ = fs::remove_file(&self.0);
        }
    }

    /// Listens on a path. The umask decides who may connect.
    pub(super) fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
        match UnixListener::bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && is_left_over(path) => {
                fs::remove_file(path)?;
                UnixListener::bind(path)
            }
            bound => bound,
        }
        .map(|listener| (listener, SocketFile(path.to_owned())))
    }

    /// Returns whether the path is a socket of a process that is gone.
    fn is_left_over(path: &Path) -> bool {
        let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
        let refuses = || {
            let connected = std::os::unix::net::UnixStream::connect(path);
            connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        };
        is_socket && refuses()
    }

    /// Accepts the next connection. No error ends the listener: each passes when other connections end.
    pub(super) async fn accept(listener: &UnixListener) -> UnixStream {
        loop {
            match listener.accept().await {
                Ok((socket, _)) => return socket,
                Err(error) => {
                    tracing::error!(%error, "connection could not be accepted");
                    tokio::time::sleep(EXHAUSTED_WAIT).await;
                }
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[tokio::test]
        async fn a_socket_that_is_left_over_is_replaced_and_no_other_file() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("wyoming.sock");
            let (listener, file) = bind(&path).unwrap();
            assert_eq!(bind(&path).err().unwrap().kind(), ErrorKind::AddrInUse, "somebody listens");
            drop(listener);
            let (listener, replaced) = bind(&path).unwrap();
            drop((listener, replaced));
            assert!(!path.exists());
            drop(file);
            fs::write(&path, "text").unwrap();
            assert_eq!(bind(&path).err().unwrap().kind(), ErrorKind::AddrInUse);
            assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        }
    }
}
