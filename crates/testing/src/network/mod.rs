//! An in-memory network on tokio's clock: its connections are late, slow, cut or silent.
//!
//! The real WebSocket runs over it, including the handshake, so a cut hits anything: the headers of a
//! request, the header of a frame, a mask. With the clock paused (`tokio::time::pause`) an hour passes in
//! milliseconds. A seed decides everything: the same seed gives the same events at the same times.

mod cable;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, timeout};

use self::cable::{CLIENT, Cable, Read, SERVER};
use super::{Cut, Fault};
use voxline::auth::AccessToken;
use voxline::internals::{unreachable, upgrade};
use voxline::net::{CONNECT_TIMEOUT, ConnectError, Endpoint};
use voxline::recovery::Failure;
use voxline::transport::{Connect, WebSocketPeer};
use voxline_support::random::Random;

/// Properties of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Fault of the connection. Bytes under way at a reset are lost; bytes under way at a close all arrive.
    pub fault: Fault,
    /// Latency from the client to the server.
    pub up: Duration,
    /// Latency from the server to the client.
    pub down: Duration,
    /// Longest additional latency. Bytes do not overtake each other.
    pub jitter: Duration,
    /// Number of bytes that may be under way in a direction before the sender has to wait; 0 is taken as 1.
    pub capacity: usize,
    /// Most bytes that are taken from a sender at once. The number is random, from 1 up to this. 0 is taken
    /// as 1.
    pub piece: usize,
    /// A number of bytes and a pause. Once the client has sent so many bytes, nothing arrives for so long,
    /// either way; then all of it does.
    pub pause: Option<(u64, Duration)>,
}

impl Line {
    /// Returns a line without faults: 10 ms each way, 64 KiB under way.
    #[must_use]
    pub fn calm() -> Line {
        let latency = Duration::from_millis(10);
        Line {
            fault: Fault::None,
            up: latency,
            down: latency,
            jitter: Duration::ZERO,
            capacity: 64 * 1024,
            piece: 64 * 1024,
            pause: None,
        }
    }

    /// Returns a calm line with this fault.
    #[must_use]
    pub fn with_fault(fault: Fault) -> Line {
        Line { fault, ..Line::calm() }
    }

    /// Returns a line that `seed` decides, with any fault, within the client's first `bytes` bytes.
    #[must_use]
    pub fn any(seed: u64, bytes: u64) -> Line {
        let dice = &mut Random::new(seed);
        // Half of the faults strike early: the handshake and the first messages are short, and most of what
        // can go wrong is there.
        let after = match dice.below(2) {
            0 => dice.below(bytes.min(1_500) + 1),
            _ => dice.below(bytes + 1),
        };
        let cut = if dice.below(2) == 0 { Cut::Close } else { Cut::Reset };
        let fault = match dice.below(16) {
            0 => Fault::Refuse,
            1..=5 => Fault::CutClient { after, cut },
            // The server sends less than it receives.
            6..=10 => Fault::CutServer { after: after / 4, cut },
            11 => Fault::Stall { after },
            12 | 13 => Fault::HalfOpen { after },
            14 => {
                let every = Duration::from_millis(10 + dice.below(90));
                Fault::Trickle { bytes: 100 + dice.below(1_400) as usize, every }
            }
            _ => Fault::None,
        };
        let pause = (dice.below(4) == 0).then(|| (after / 2, Duration::from_millis(dice.below(3_000))));
        Line { fault, pause, ..Line::any_sound(dice.next()) }
    }

    /// Returns a line that `seed` decides, without a fault: with latency, little capacity, and writes taken
    /// in pieces.
    #[must_use]
    pub fn any_sound(seed: u64) -> Line {
        let dice = &mut Random::new(seed);
        let most = [1, 20, 100, 400][dice.below(4) as usize];
        let mut latency = |most: u64| Duration::from_millis(dice.below(most + 1));
        let (up, down, jitter) = (latency(most), latency(most), latency(most / 2));
        let capacity = [64 << 10, 16 << 10, 4 << 10, 1 << 10][dice.below(4) as usize];
        let piece = [64 << 10, 1_500, 200][dice.below(3) as usize];
        Line { fault: Fault::None, up, down, jitter, capacity, piece, pause: None }
    }
}

/// Creates a network. Each dial takes the next line from `lines`; dials after the end of `lines` get calm
/// lines. `seed` decides everything else that is random. Call it inside the runtime whose clock the network
/// shall use.
///
/// ```
/// use voxline_testing::network::{self, Line};
/// use voxline_testing::peer::{Behaviour, RecordingPeer};
/// use voxline_testing::{Cut, Fault};
///
/// # async fn example() {
/// let cut = Line::with_fault(Fault::CutClient { after: 5_000, cut: Cut::Reset });
/// let (connector, acceptor) = network::simulated(1, [cut]);
/// let peer = RecordingPeer::new(Behaviour::default());
/// tokio::select! {
///     () = peer.serve_all(acceptor) => {}
///     // ... a `voxline::session::Session` with `&connector` ...
///     () = std::future::ready(()) => {}
/// }
/// assert_eq!(connector.traces().len(), 0);
/// # }
/// ```
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the clock of the runtime, which tests stop")]
pub fn simulated<L>(seed: u64, lines: L) -> (SimulatedConnector, Acceptor)
where
    L: IntoIterator<Item = Line>,
    L::IntoIter: Send + 'static,
{
    let (sender, receiver) = mpsc::unbounded_channel();
    let lines: Box<dyn Iterator<Item = Line> + Send> = Box::new(lines.into_iter());
    let network = Network {
        begun: Instant::now(),
        lines: Mutex::new((lines, Random::new(seed))),
        traces: Mutex::default(),
    };
    (SimulatedConnector { network: Arc::new(network), sender }, Acceptor(receiver))
}

/// Record of one connection. Times are measured from the creation of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Time of the dial.
    pub dialled: Duration,
    /// Time at which the fault struck.
    pub struck: Option<Duration>,
    /// Time at which the client last received a byte.
    pub heard: Option<Duration>,
    /// Time at which the client left the connection.
    pub left: Option<Duration>,
    /// Number of bytes that the client has written, including lost ones.
    pub up: u64,
    /// Number of bytes that the server has written, including lost ones.
    pub down: u64,
}

struct Network {
    begun: Instant,
    lines: Mutex<(Box<dyn Iterator<Item = Line> + Send>, Random)>,
    traces: Mutex<Vec<Trace>>,
}

impl Network {
    fn trace(&self, number: usize, change: impl FnOnce(&mut Trace)) {
        change(&mut self.traces.lock().unwrap_or_else(PoisonError::into_inner)[number]);
    }
}

/// A connector over a simulated network. It does there what
/// [`WebSocketConnector`](voxline::transport::WebSocketConnector) does over TCP: the handshake and its
/// timeout are the same code.
#[derive(Clone)]
pub struct SimulatedConnector {
    network: Arc<Network>,
    sender: mpsc::UnboundedSender<SimulatedStream>,
}

impl SimulatedConnector {
    /// Returns the records of all connections so far, in the order of dialling.
    #[must_use]
    pub fn traces(&self) -> Vec<Trace> {
        self.network.traces.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a connection, without a handshake.
    ///
    /// # Errors
    /// Returns [`io::Error`] if the connection's line refuses it.
    #[expect(clippy::disallowed_methods, reason = "the clock of the runtime, which tests stop")]
    pub async fn dial(&self) -> io::Result<SimulatedStream> {
        let (number, line, dice) = {
            let (lines, dice) = &mut *self.network.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let mut traces = self.network.traces.lock().unwrap_or_else(PoisonError::into_inner);
            let dialled = self.network.begun.elapsed();
            traces.push(Trace { dialled, ..Trace::default() });
            (traces.len() - 1, lines.next().unwrap_or_else(Line::calm), Random::new(dice.next()))
        };
        if line.fault == Fault::Refuse {
            sleep(line.up + line.down).await;
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let cable = Cable::new(line, dice, self.network.clone(), number, Instant::now());
        let cable = Arc::new(Mutex::new(cable));
        let [client, server] =
            [CLIENT, SERVER].map(|end| SimulatedStream { cable: cable.clone(), end, timer: None });
        sleep(line.up).await;
        // If no acceptor listens, the connection is made all the same, as a kernel does for a program that
        // is stuck.
        let _ = self.sender.send(server);
        sleep(line.down).await;
        Ok(client)
    }
}

impl Connect for SimulatedConnector {
    type Peer = WebSocketPeer<SimulatedStream>;

    async fn connect(
        &self,
        token: &AccessToken,
        session: Option<&str>,
    ) -> Result<WebSocketPeer<SimulatedStream>, Failure> {
        let endpoint: Endpoint = "http://localhost".parse().expect("loopback may be plain");
        let dialling = async {
            let stream = self.dial().await.map_err(|error| unreachable(&endpoint, error))?;
            upgrade(&endpoint, stream, token, session).await
        };
        timeout(CONNECT_TIMEOUT, dialling)
            .await
            .unwrap_or_else(|_| Err(unreachable(&endpoint, ConnectError::TimedOut)))
    }
}

/// The listening end of a simulated network.
#[derive(Debug)]
pub struct Acceptor(mpsc::UnboundedReceiver<SimulatedStream>);

impl Acceptor {
    /// Returns the server's end of the next connection, or `None` once all connectors are gone.
    pub async fn accept(&mut self) -> Option<SimulatedStream> {
        self.0.recv().await
    }
}

/// One end of a simulated connection. Dropping it closes the connection: the peer reads the end of the
/// stream and cannot write any more.
pub struct SimulatedStream {
    cable: Arc<Mutex<Cable>>,
    end: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

impl std::fmt::Debug for SimulatedStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.end == CLIENT { "SimulatedStream(client)" } else { "SimulatedStream(server)" })
    }
}

impl SimulatedStream {
    fn cable(&self) -> MutexGuard<'_, Cable> {
        self.cable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for SimulatedStream {
    #[expect(clippy::disallowed_methods, reason = "the clock of the runtime, which tests stop")]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let end = self.end;
            let due = match self.cable().read(end, buf, cx, Instant::now()) {
                Read::Done(result) => return Poll::Ready(result),
                Read::Nothing(due) => due,
            };
            let Some(due) = due else { return Poll::Pending };
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // The timer has elapsed: the bytes that were due can be read now.
            self.timer = None;
        }
    }
}

impl AsyncWrite for SimulatedStream {
    #[expect(clippy::disallowed_methods, reason = "the clock of the runtime, which tests stop")]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let end = self.end;
        self.cable().write(end, buf, cx, Instant::now())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    #[expect(clippy::disallowed_methods, reason = "the clock of the runtime, which tests stop")]
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let end = self.end;
        self.cable().finish(end, Instant::now());
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimulatedStream {
    #[expect(clippy::disallowed_methods, reason = "the clock of the runtime, which tests stop")]
    fn drop(&mut self) {
        let end = self.end;
        self.cable().leave(end, Instant::now());
    }
}
