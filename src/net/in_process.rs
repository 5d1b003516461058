//! Connections to a service in the same process: memory in place of sockets.

use std::fmt;
use std::io;

use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

/// Number of connections that may wait to be accepted.
const BACKLOG: usize = 128;
/// Most bytes under way in each direction of a connection. They are allocated as they are needed.
const BUFFER: usize = 64 * 1024;

/// The address of a service in the same process. Clones reach the same service.
#[derive(Clone)]
pub struct InProcess(mpsc::Sender<DuplexStream>);

/// The connections to a service in the same process, to be accepted.
pub struct InProcessListener(mpsc::Receiver<DuplexStream>);

/// Returns an address within this process and the listener at it.
#[must_use]
pub fn in_process() -> (InProcess, InProcessListener) {
    let (connections, listener) = mpsc::channel(BACKLOG);
    (InProcess(connections), InProcessListener(listener))
}

impl InProcess {
    /// Connects. Waits while many connections wait to be accepted.
    pub(super) async fn connect(&self) -> io::Result<DuplexStream> {
        let (ours, theirs) = duplex(BUFFER);
        let gone =
            |_| io::Error::new(io::ErrorKind::ConnectionRefused, "the service in this process has ended");
        self.0.send(theirs).await.map_err(gone)?;
        Ok(ours)
    }
}

impl InProcessListener {
    /// Accepts the next connection. Returns `None` once nothing can connect any more. Cancel safe.
    pub async fn accept(&mut self) -> Option<DuplexStream> {
        self.0.recv().await
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

impl fmt::Debug for InProcessListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcessListener")
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_pass_in_both_directions_until_the_service_ends() {
        let (address, mut listener) = in_process();
        let mut client = address.connect().await.unwrap();
        let mut server = listener.accept().await.unwrap();
        client.write_all(b"there").await.unwrap();
        server.write_all(b"back").await.unwrap();
        let (mut there, mut back) = ([0; 5], [0; 4]);
        server.read_exact(&mut there).await.unwrap();
        client.read_exact(&mut back).await.unwrap();
        assert_eq!((&there, &back), (b"there", b"back"));
        drop(listener);
        assert_eq!(address.connect().await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
