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

/// Most bytes that are read at once.
const BUFFER: usize = 16 * 1024;
/// Most reads that may be under way at once on a connection with a delay.
const UNDER_WAY: usize = 256;

/// A fault of one connection. Byte counts are those that one side has sent; all bytes up to the count
/// arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// No fault: bytes pass both ways, and so do ends and resets.
    None,
    /// The connection is closed at once, without a connection to the server.
    Refuse,
    /// The connection is cut once the client has sent so many bytes.
    CutClient {
        /// Number of bytes from the client that arrive.
        after: u64,
        /// Kind of end that both sides see.
        cut: Cut,
    },
    /// The connection is cut once the server has sent so many bytes.
    CutServer {
        /// Number of bytes from the server that arrive.
        after: u64,
        /// Kind of end that both sides see.
        cut: Cut,
    },
    /// Once the client has sent so many bytes, nothing is read or passed on any more, either way. The
    /// sockets stay open: a side that goes on sending finds at last that its bytes are not taken.
    Stall {
        /// Number of bytes from the client that arrive.
        after: u64,
    },
    /// Once the client has sent so many bytes, everything that follows is taken and dropped, either way,
    /// ends included. Each side believes that the other is silent, as with a peer that lost its power.
    HalfOpen {
        /// Number of bytes from the client that arrive.
        after: u64,
    },
    /// Only so many bytes pass at a time, each way.
    Trickle {
        /// Number of bytes that pass at once; 0 is taken as 1.
        bytes: usize,
        /// Time until the next bytes may pass; zero is taken as a nanosecond.
        every: Duration,
    },
    /// Each byte is late by this time, each way, and so is the end. Throughput stays as it was, up to 256
    /// reads of 16 KiB under way.
    Delay(Duration),
}

/// The way in which a connection ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// FIN, as from a peer that exits. Bytes sent to that peer afterwards are dropped.
    Close,
    /// RST, as from a peer that crashes. Bytes that a slow receiver has not let into its window yet are
    /// lost with it.
    Reset,
}

/// A TCP proxy between a client and a server on loopback that applies a [`Fault`] to each connection.
/// Dropping the proxy stops it and closes all its connections.
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
    /// Starts a proxy that cuts connections by [`Cut::Close`]: the first after `budgets[0]` bytes from the
    /// client, the second after `budgets[1]`, and so on. Later connections have no fault.
    ///
    /// # Errors
    /// Returns [`io::Error`] if no port can be bound.
    pub async fn start(upstream: SocketAddr, budgets: Vec<u64>) -> io::Result<FaultProxy> {
        let cut = |after| Fault::CutClient { after, cut: Cut::Close };
        FaultProxy::with_faults(upstream, budgets.into_iter().map(cut)).await
    }

    /// Starts a proxy in front of `upstream` that takes the fault of each connection from `faults`. The
    /// iterator may be endless ([`std::iter::repeat`], [`std::iter::from_fn`]). Connections after its end
    /// have no fault.
    ///
    /// # Errors
    /// Returns [`io::Error`] if no port can be bound.
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
                    // The connection's ends see for themselves that it is broken.
                    let _ = connection(client, upstream, fault, &counter).await;
                }));
            }
        }));
        Ok(FaultProxy { address, counts, _stop: stop.drop_guard() })
    }

    /// Returns the address to which clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of accepted connections, including refused ones.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Returns the number of connections cut by [`Fault::CutClient`] or [`Fault::CutServer`]. A connection
    /// that ends before its fault is not counted.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.counts.cuts.load(Ordering::SeqCst)
    }
}

/// The pace at which bytes travel one way.
#[derive(Clone, Copy)]
enum Pace {
    Free,
    Trickle(usize, Duration),
    Delay(Duration),
}

/// Reason why bytes travel no further.
enum Stopped {
    /// The byte count is reached.
    Spent,
    Broken(io::Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Stopped {
        Stopped::Broken(error)
    }
}

/// Returns the number of bytes that a fault lets through, up and down, and their pace. Returns `None` if it
/// refuses the connection.
fn passage(fault: Fault) -> Option<(u64, u64, Pace)> {
    const ALL: u64 = u64::MAX;
    Some(match fault {
        Fault::Refuse => return None,
        Fault::None => (ALL, ALL, Pace::Free),
        Fault::Trickle { bytes, every } => (ALL, ALL, Pace::Trickle(bytes, every)),
        Fault::Delay(delay) => (ALL, ALL, Pace::Delay(delay)),
        Fault::CutServer { after, .. } => (ALL, after, Pace::Free),
        Fault::CutClient { after, .. } | Fault::Stall { after } | Fault::HalfOpen { after } => {
            (after, ALL, Pace::Free)
        }
    })
}

/// Carries one connection to its end, or to its fault and through it.
async fn connection(
    mut client: TcpStream,
    upstream: SocketAddr,
    fault: Fault,
    counts: &Counts,
) -> io::Result<()> {
    let Some((up, down, pace)) = passage(fault) else { return Ok(()) };
    let mut server = TcpStream::connect(upstream).await?;
    // Nagle's algorithm would delay bytes by itself.
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
            // One side is gone, and the other side should see that.
            let _ = (client.set_zero_linger(), server.set_zero_linger());
            Err(error)
        }
        (Err(Stopped::Spent), Fault::CutClient { cut, .. } | Fault::CutServer { cut, .. }) => {
            counts.cuts.fetch_add(1, Ordering::SeqCst);
            cut_off(client, server, cut).await
        }
        (Err(Stopped::Spent), Fault::HalfOpen { .. }) => {
            swallow(&mut client, &mut server).await;
            std::future::pending().await
        }
        (Err(Stopped::Spent), _) => std::future::pending().await,
    }
}

/// Ends a connection on both sides.
async fn cut_off(mut client: TcpStream, mut server: TcpStream, cut: Cut) -> io::Result<()> {
    match cut {
        Cut::Reset => {
            client.set_zero_linger()?;
            server.set_zero_linger()
        }
        Cut::Close => {
            let _ = (client.shutdown().await, server.shutdown().await);
            // A socket that is dropped with unread bytes sends a reset after all.
            swallow(&mut client, &mut server).await;
            Ok(())
        }
    }
}

/// Reads both sides to their ends and drops the bytes.
async fn swallow(client: &mut TcpStream, server: &mut TcpStream) {
    let (mut here, mut there) = (tokio::io::sink(), tokio::io::sink());
    let _ = tokio::join!(tokio::io::copy(client, &mut here), tokio::io::copy(server, &mut there));
}

/// Carries bytes one way until the end, which is passed on, or until `limit` bytes were carried.
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
            // At its limit this reads nothing: neither another byte nor the end has to follow the last
            // byte.
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

/// Bytes that were read, and the delay that began when they were read.
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
            // Without a receiver the writing half has failed and reports the error.
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
