//! A TCP proxy that breaks connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Stands between a client and a server on loopback, and cuts each connection after the client has sent a given number
/// of bytes on it: the bytes up to there arrive, the rest is gone. Stops when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    cuts: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl FaultProxy {
    /// A proxy in front of `upstream`. The first connection is cut after `budgets[0]` bytes, the second after
    /// `budgets[1]`, and so on; later ones are left alone.
    ///
    /// # Errors
    /// Where no port can be had.
    pub async fn start(upstream: SocketAddr, budgets: Vec<u64>) -> io::Result<FaultProxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let cuts = Arc::new(AtomicUsize::new(0));
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (counter, stopped, connections) = (cuts.clone(), stop.clone(), tasks.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            let mut budgets = budgets.into_iter();
            while let Ok((client, _)) = listener.accept().await {
                let budget = budgets.next();
                let counter = counter.clone();
                connections.spawn(stopped.clone().run_until_cancelled_owned(async move {
                    if let Ok(true) = relay(client, upstream, budget.unwrap_or(u64::MAX)).await {
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                }));
            }
        }));
        Ok(FaultProxy { address, cuts, _stop: stop.drop_guard() })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has cut.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.cuts.load(Ordering::SeqCst)
    }
}

/// Carries bytes both ways until one side ends (false) or the client's budget is used up (true).
async fn relay(mut client: TcpStream, upstream: SocketAddr, budget: u64) -> io::Result<bool> {
    let mut server = TcpStream::connect(upstream).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let upward = async {
        let mut left = budget;
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if most == 0 {
                return io::Result::Ok(true);
            }
            let count = from_client.read(&mut buffer[..most]).await?;
            if count == 0 {
                return Ok(false);
            }
            to_server.write_all(&buffer[..count]).await?;
            left -= count as u64;
        }
    };
    let downward = async {
        tokio::io::copy(&mut from_server, &mut to_client).await?;
        io::Result::Ok(false)
    };
    tokio::select! {
        cut = upward => cut,
        ended = downward => ended,
    }
}
