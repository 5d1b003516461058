//! A TCP proxy that breaks connections.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, Sleep, interval, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The most that is read at once.
const BUFFER: usize = 16 * 1024;
/// How many reads may be under way at once in a connection with a delay.
const UNDER_WAY: usize = 256;

/// What befalls one connection. Counts of bytes are those that one side has sent; all up to there arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing: bytes pass both ways, and so do ends and resets.
    None,
    /// It is closed at once, before the server hears of it.
    Refuse,
    /// It is cut once the client has sent so many bytes.
    CutClient {
        /// Bytes from the client that arrive.
        after: u64,
        /// What both sides see.
        cut: Cut,
    },
    /// It is cut once the server has sent so many bytes.
    CutServer {
        /// Bytes from the server that arrive.
        after: u64,
        /// What both sides see.
        cut: Cut,
    },
    /// Once the client has sent so many bytes nothing is read or passed on any more, either way. The sockets stay open:
    /// who goes on sending finds at last that nobody takes it.
    Stall {
        /// Bytes from the client that arrive.
        after: u64,
    },
    /// Once the client has sent so many bytes all that follows is taken and dropped, either way, ends too: each side
    /// believes that the other is silent. So a peer looks that lost its power.
    HalfOpen {
        /// Bytes from the client that arrive.
        after: u64,
    },
    /// Only so much passes at a time, each way.
    Trickle {
        /// Bytes that pass at once; 0 is taken as 1.
        bytes: usize,
        /// How long until the next may pass; zero is taken as a nanosecond.
        every: Duration,
    },
    /// Each byte is late, each way, and so is the end. As much passes as before, up to 256 reads of 16 KiB under way.
    Delay(Duration),
}

/// How a connection ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// As a peer that exits: FIN. What is sent to it afterwards is dropped.
    Close,
    /// As a peer that crashes: RST. Bytes that a slow receiver has not let into its window yet are lost with it.
    Reset,
}

/// Stands between a client and a server on loopback, and does to each connection what a [`Fault`] says. Stops when
/// dropped, which closes all connections.
///
/// ```
/// use std::time::Duration;
/// use voxline_testing::{Cut, Fault, FaultProxy};
///
/// # async fn example(server: std::net::SocketAddr) -> std::io::Result<()> {
/// let first = [Fault::CutClient { after: 70_000, cut: Cut::Reset }, Fault::Refuse];
/// let later = std::iter::repeat(Fault::Delay(Duration::from_millis(50)));
/// let proxy = FaultProxy::with_faults(server, first.into_iter().chain(later)).await?;
/// // ... let your client talk to `proxy.address()` ...
/// assert_eq!(proxy.cuts(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    counts: Arc<Counts>,
    _stop: DropGuard,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicUsize,
    cuts: AtomicUsize,
}

impl FaultProxy {
    /// A proxy that cuts connections: the first after `budgets[0]` bytes from the client, the second after `budgets[1]`,
    /// and so on, each by [`Cut::Close`]; later ones are left alone.
    ///
    /// # Errors
    /// Where no port can be had.
    pub async fn start(upstream: SocketAddr, budgets: Vec<u64>) -> io::Result<FaultProxy> {
        let cut = |after| Fault::CutClient { after, cut: Cut::Close };
        FaultProxy::with_faults(upstream, budgets.into_iter().map(cut)).await
    }

    /// A proxy in front of `upstream` that takes the fault of each connection from `faults`, which may be without end
    /// ([`std::iter::repeat`], [`std::iter::from_fn`]); those after its end are left alone.
    ///
    /// # Errors
    /// Where no port can be had.
    pub async fn with_faults<F>(upstream: SocketAddr, faults: F) -> io::Result<FaultProxy>
    where
        F: IntoIterator<Item = Fault>,
        F::IntoIter: Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let counts = Arc::new(Counts::default());
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (counter, stopped, connections) = (counts.clone(), stop.clone(), tasks.clone());
        let mut faults = faults.into_iter();
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((client, _)) = listener.accept().await {
                let fault = faults.next().unwrap_or(Fault::None);
                counter.connections.fetch_add(1, Ordering::SeqCst);
                let counter = counter.clone();
                connections.spawn(stopped.clone().run_until_cancelled_owned(async move {
                    // What breaks a connection is seen by its ends.
                    let _ = connection(client, upstream, fault, &counter).await;
                }));
            }
        }));
        Ok(FaultProxy { address, counts, _stop: stop.drop_guard() })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has accepted, those too that it refused.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// How many connections it has cut: by [`Fault::CutClient`] or [`Fault::CutServer`], if it came to that.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.counts.cuts.load(Ordering::SeqCst)
    }
}

/// How bytes travel one way.
#[derive(Clone, Copy)]
enum Pace {
    Free,
    Trickle(usize, Duration),
    Delay(Duration),
}

/// Why bytes travel no further.
enum Stopped {
    /// The count of bytes is reached.
    Spent,
    Broken(io::Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Stopped {
        Stopped::Broken(error)
    }
}

/// Carries one connection to its end, or to its fault and through it.
async fn connection(
    mut client: TcpStream,
    upstream: SocketAddr,
    fault: Fault,
    counts: &Counts,
) -> io::Result<()> {
    const ALL: u64 = u64::MAX;
    let (up, down, pace) = match fault {
        Fault::Refuse => return Ok(()),
        Fault::None => (ALL, ALL, Pace::Free),
        Fault::Trickle { bytes, every } => (ALL, ALL, Pace::Trickle(bytes, every)),
        Fault::Delay(delay) => (ALL, ALL, Pace::Delay(delay)),
        Fault::CutServer { after, .. } => (ALL, after, Pace::Free),
        Fault::CutClient { after, .. } | Fault::Stall { after } | Fault::HalfOpen { after } => {
            (after, ALL, Pace::Free)
        }
    };
    let mut server = TcpStream::connect(upstream).await?;
    // A proxy that gathers bytes would be late by itself.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let stopped = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::try_join!(carry(from_client, to_server, up, pace), carry(from_server, to_client, down, pace))
    };
    match (stopped, fault) {
        // Both ends were passed on.
        (Ok(((), ())), _) => Ok(()),
        (Err(Stopped::Broken(error)), _) => {
            // One side is gone, and the other should see it.
            let _ = (client.set_zero_linger(), server.set_zero_linger());
            Err(error)
        }
        (Err(Stopped::Spent), Fault::CutClient { cut, .. } | Fault::CutServer { cut, .. }) => {
            counts.cuts.fetch_add(1, Ordering::SeqCst);
            match cut {
                Cut::Reset => {
                    client.set_zero_linger()?;
                    server.set_zero_linger()
                }
                Cut::Close => {
                    let _ = (client.shutdown().await, server.shutdown().await);
                    // A socket that is dropped with bytes in it sends a reset after all.
                    swallow(&mut client, &mut server).await;
                    Ok(())
                }
            }
        }
        (Err(Stopped::Spent), Fault::HalfOpen { .. }) => {
            swallow(&mut client, &mut server).await;
            std::future::pending().await
        }
        (Err(Stopped::Spent), _) => std::future::pending().await,
    }
}

/// Reads both sides to their ends and drops what they say.
async fn swallow(client: &mut TcpStream, server: &mut TcpStream) {
    let (mut here, mut there) = (tokio::io::sink(), tokio::io::sink());
    let _ = tokio::join!(tokio::io::copy(client, &mut here), tokio::io::copy(server, &mut there));
}

/// Carries bytes one way until the end, which is passed on, or until there were `limit`.
async fn carry(
    from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    limit: u64,
    pace: Pace,
) -> Result<(), Stopped> {
    match pace {
        Pace::Free => {
            let mut from = from.take(limit);
            let mut buffer = vec![0; BUFFER];
            // At its limit it reads nothing: so no byte, nor its absence, has to follow the last one.
            while from.limit() > 0 {
                let count = from.read(&mut buffer).await?;
                if count == 0 {
                    return Ok(to.shutdown().await?);
                }
                to.write_all(&buffer[..count]).await?;
            }
            Err(Stopped::Spent)
        }
        Pace::Trickle(bytes, every) => Ok(trickle(from, to, bytes, every).await?),
        Pace::Delay(delay) => Ok(late(from, to, delay).await?),
    }
}

async fn trickle(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    bytes: usize,
    every: Duration,
) -> io::Result<()> {
    let mut ticks = interval(every.max(Duration::from_nanos(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = vec![0; bytes.max(1)];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        ticks.tick().await;
        to.write_all(&buffer[..count]).await?;
    }
}

/// What was read, and the wait that began there.
type Late = (Pin<Box<Sleep>>, Vec<u8>);

async fn late(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    delay: Duration,
) -> io::Result<()> {
    let (under_way, mut due) = mpsc::channel::<Late>(UNDER_WAY);
    let reading = async move {
        loop {
            let mut bytes = Vec::with_capacity(BUFFER);
            let count = from.read_buf(&mut bytes).await?;
            // Without a receiver the writing half has failed, and says why.
            if under_way.send((Box::pin(sleep(delay)), bytes)).await.is_err() || count == 0 {
                return io::Result::Ok(());
            }
        }
    };
    let writing = async {
        while let Some((wait, bytes)) = due.recv().await {
            wait.await;
            if bytes.is_empty() {
                to.shutdown().await?;
            }
            to.write_all(&bytes).await?;
        }
        Ok(())
    };
    tokio::try_join!(reading, writing)?;
    Ok(())
}
