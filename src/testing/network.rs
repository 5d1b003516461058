//! A network in memory, on the clock of tokio: connections that are late, slow, cut, or fall silent.
//!
//! The real WebSocket runs over it, handshake and all, so a cut hits anything: a request's headers, a frame's, a mask.
//! With the clock paused (`tokio::time::pause`) an hour passes in milliseconds, and a seed decides everything: the same
//! one gives the same happenings at the same times.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::{Cut, Fault};
use crate::auth::AccessToken;
use crate::net::{CONNECT_TIMEOUT, Endpoint};
use crate::session::Failure;
use crate::transport::{Connect, Wire, unreachable, upgrade};

/// What one connection is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// What befalls it. Of what is under way when it is reset, nothing arrives; when it is closed, all does.
    pub fault: Fault,
    /// How long a byte travels from the client to the server.
    pub up: Duration,
    /// How long from the server to the client.
    pub down: Duration,
    /// How much longer it may take. Bytes don't overtake each other.
    pub jitter: Duration,
    /// How many bytes may be under way in a direction before the sender has to wait; 0 is taken as 1.
    pub capacity: usize,
    /// The most bytes that are taken from a sender at once: a random number from 1 up to this. 0 is taken as 1.
    pub piece: usize,
    /// Once the client has sent so many bytes nothing arrives for so long, either way; then all of it does.
    pub pause: Option<(u64, Duration)>,
}

impl Line {
    /// A line on which nothing happens: 10 ms each way, 64 KiB under way.
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

    /// A calm line with this fault.
    #[must_use]
    pub fn with_fault(fault: Fault) -> Line {
        Line { fault, ..Line::calm() }
    }

    /// A line that `seed` decides, with any fault but slowness, within the client's first `bytes` bytes.
    #[must_use]
    pub fn any(seed: u64, bytes: u64) -> Line {
        let dice = &mut Dice(seed);
        // Half of them early: the handshake and the first messages are short, and most that can go wrong is there.
        let after = match dice.below(2) {
            0 => dice.below(bytes.min(1_500) + 1),
            _ => dice.below(bytes + 1),
        };
        let cut = if dice.below(2) == 0 { Cut::Close } else { Cut::Reset };
        let fault = match dice.below(16) {
            0 => Fault::Refuse,
            1..=5 => Fault::CutClient { after, cut },
            // The server says less than it hears.
            6..=10 => Fault::CutServer { after: after / 4, cut },
            11 => Fault::Stall { after },
            12 | 13 => Fault::HalfOpen { after },
            _ => Fault::None,
        };
        let pause = (dice.below(4) == 0).then(|| (after / 2, Duration::from_millis(dice.below(3_000))));
        Line { fault, pause, ..Line::any_sound(dice.next()) }
    }

    /// A line that `seed` decides, without a fault: late, narrow, and in pieces.
    #[must_use]
    pub fn any_sound(seed: u64) -> Line {
        let dice = &mut Dice(seed);
        let most = [1, 20, 100, 400][dice.below(4) as usize];
        let mut latency = |most: u64| Duration::from_millis(dice.below(most + 1));
        let (up, down, jitter) = (latency(most), latency(most), latency(most / 2));
        let capacity = [64 << 10, 16 << 10, 4 << 10, 1 << 10][dice.below(4) as usize];
        let piece = [64 << 10, 1_500, 200][dice.below(3) as usize];
        Line { fault: Fault::None, up, down, jitter, capacity, piece, pause: None }
    }
}

/// A network of which line after line is taken from `lines`, one for each dial; those after its end are calm. `seed`
/// decides what is left to chance. To be called inside the runtime whose clock it shall have.
///
/// ```
/// use voxline::testing::network::{self, Line};
/// use voxline::testing::peer::{Behaviour, RecordingPeer};
/// use voxline::testing::{Cut, Fault};
///
/// # async fn example() {
/// let cut = Line::with_fault(Fault::CutClient { after: 5_000, cut: Cut::Reset });
/// let (connector, acceptor) = network::simulated(1, [cut]);
/// let peer = RecordingPeer::new(Behaviour::default());
/// tokio::select! {
///     () = peer.serve_all(acceptor) => {}
///     // ... voxline::session::run(&connector, ...)
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
    let network =
        Network { begun: Instant::now(), lines: Mutex::new((lines, Dice(seed))), traces: Mutex::default() };
    (SimulatedConnector { network: Arc::new(network), sender }, Acceptor(receiver))
}

/// What became of a connection, by time since the network was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// When it was dialled.
    pub dialled: Duration,
    /// When its fault struck.
    pub struck: Option<Duration>,
    /// When the client last heard a byte.
    pub heard: Option<Duration>,
    /// When the client left it.
    pub left: Option<Duration>,
    /// Bytes that the client has written, those too that went nowhere.
    pub up: u64,
    /// Bytes that the server has.
    pub down: u64,
}

struct Network {
    begun: Instant,
    lines: Mutex<(Box<dyn Iterator<Item = Line> + Send>, Dice)>,
    traces: Mutex<Vec<Trace>>,
}

impl Network {
    fn trace(&self, number: usize, change: impl FnOnce(&mut Trace)) {
        change(&mut self.traces.lock().unwrap_or_else(PoisonError::into_inner)[number]);
    }
}

/// Dials over a simulated network, and does there what [`WebSocketConnector`](crate::transport::WebSocketConnector)
/// does over TCP: the handshake and its timeout are the same code.
#[derive(Clone)]
pub struct SimulatedConnector {
    network: Arc<Network>,
    sender: mpsc::UnboundedSender<SimulatedStream>,
}

impl SimulatedConnector {
    /// What became of each connection so far, in the order of dialling.
    #[must_use]
    pub fn traces(&self) -> Vec<Trace> {
        self.network.traces.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a connection, without a handshake.
    ///
    /// # Errors
    /// Where its line refuses it.
    #[expect(clippy::disallowed_methods, reason = "the clock of the runtime, which tests stop")]
    pub async fn dial(&self) -> io::Result<SimulatedStream> {
        let (number, line, dice) = {
            let (lines, dice) = &mut *self.network.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let mut traces = self.network.traces.lock().unwrap_or_else(PoisonError::into_inner);
            let dialled = self.network.begun.elapsed();
            traces.push(Trace { dialled, ..Trace::default() });
            (traces.len() - 1, lines.next().unwrap_or_else(Line::calm), Dice(dice.next()))
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
        // Nobody listens: the connection is made all the same, as by a kernel for a program that is stuck.
        let _ = self.sender.send(server);
        sleep(line.down).await;
        Ok(client)
    }
}

impl Connect for SimulatedConnector {
    type Io = SimulatedStream;

    async fn connect(&self, token: &AccessToken) -> Result<Wire<SimulatedStream>, Failure> {
        let endpoint: Endpoint = "http://localhost".parse().expect("loopback may be plain");
        let dialling = async {
            let stream = self.dial().await.map_err(|error| unreachable(&endpoint, &error.to_string()))?;
            upgrade(&endpoint, stream, token).await
        };
        timeout(CONNECT_TIMEOUT, dialling).await.unwrap_or_else(|_| Err(unreachable(&endpoint, "no answer")))
    }
}

/// Where the connections of a simulated network arrive.
#[derive(Debug)]
pub struct Acceptor(mpsc::UnboundedReceiver<SimulatedStream>);

impl Acceptor {
    /// The server's end of the next connection; `None` once all connectors are gone.
    pub async fn accept(&mut self) -> Option<SimulatedStream> {
        self.0.recv().await
    }
}

/// One end of a simulated connection. Dropped, it closes: the peer reads the end, and can't write any more.
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
            // Elapsed, and what was due can be read now.
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

/// The ends of a cable, and the ways that begin there.
const CLIENT: usize = 0;
const SERVER: usize = 1;

/// What becomes of bytes that are written now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passage {
    Free,
    /// They wait for ever.
    Stalled,
    /// They are taken and dropped.
    Swallowed,
    /// As before, until each end hears of the reset.
    Reset([Instant; 2]),
}

/// One connection.
struct Cable {
    line: Line,
    dice: Dice,
    ways: [Way; 2],
    passage: Passage,
    struck: bool,
    network: Arc<Network>,
    number: usize,
}

/// One direction of a connection.
struct Way {
    /// What is under way, and when it arrives, if it does.
    parcels: VecDeque<(Option<Instant>, Parcel)>,
    held: usize,
    written: u64,
    /// When the line is free for what is written next, and when the last parcel arrives.
    free: Instant,
    arrival: Instant,
    ended: bool,
    /// The reader is gone, and the writer hears of it then.
    deaf: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum Parcel {
    Bytes(Bytes),
    End,
}

enum Read {
    Done(io::Result<()>),
    /// Not before this time, or a call of the waker.
    Nothing(Option<Instant>),
}

impl Way {
    fn new(now: Instant) -> Way {
        Way {
            parcels: VecDeque::new(),
            held: 0,
            written: 0,
            free: now,
            arrival: now,
            ended: false,
            deaf: None,
            reader: None,
            writer: None,
        }
    }

    fn wake(&mut self) {
        [self.reader.take(), self.writer.take()].into_iter().flatten().for_each(Waker::wake);
    }
}

impl Cable {
    fn new(line: Line, dice: Dice, network: Arc<Network>, number: usize, now: Instant) -> Cable {
        let ways = [Way::new(now), Way::new(now)];
        Cable { line, dice, ways, passage: Passage::Free, struck: false, network, number }
    }

    fn latency(&self, way: usize) -> Duration {
        let more = if let Fault::Delay(delay) = self.line.fault { delay } else { Duration::ZERO };
        more + if way == CLIENT { self.line.up } else { self.line.down }
    }

    /// How many bytes this way takes before the fault strikes.
    fn budget(&self, way: usize) -> Option<u64> {
        let after = match (self.line.fault, way) {
            (Fault::CutClient { after, .. } | Fault::Stall { after } | Fault::HalfOpen { after }, CLIENT)
            | (Fault::CutServer { after, .. }, SERVER) => after,
            _ => return None,
        };
        (!self.struck).then(|| after.saturating_sub(self.ways[way].written))
    }

    fn write(&mut self, end: usize, buf: &[u8], cx: &Context<'_>, now: Instant) -> Poll<io::Result<usize>> {
        if self.budget(end) == Some(0) {
            self.strike(now);
        }
        let swallowed = match (self.passage, self.ways[end].deaf) {
            (Passage::Reset(told), _) if now >= told[end] => {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            (_, Some(told)) if now >= told => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            _ if self.ways[end].ended => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            (Passage::Reset(_) | Passage::Swallowed, _) | (_, Some(_)) => true,
            (Passage::Free | Passage::Stalled, None) => false,
        };
        let mut count = buf.len();
        if !swallowed {
            let room = self.line.capacity.max(1).saturating_sub(self.ways[end].held);
            if room == 0 {
                self.ways[end].writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let mut most = self.line.piece.max(1);
            if let Fault::Trickle { bytes, .. } = self.line.fault {
                most = most.min(bytes.max(1));
            }
            let piece = 1 + self.dice.below(most as u64) as usize;
            // Mostly as much as there is, or a stream of tiny pieces would be all we ever test.
            let piece = if self.dice.below(4) == 0 { piece } else { most };
            count = count.min(room).min(piece);
            if let Some(budget) = self.budget(end) {
                count = count.min(usize::try_from(budget).unwrap_or(usize::MAX));
            }
            self.dispatch(end, Parcel::Bytes(Bytes::copy_from_slice(&buf[..count])), now);
            self.ways[end].held += count;
        }
        self.ways[end].written += count as u64;
        let written = self.ways[end].written;
        self.network.trace(self.number, |trace| match end {
            CLIENT => trace.up = written,
            _ => trace.down = written,
        });
        if let Some((after, pause)) = self.line.pause
            && end == CLIENT
            && written >= after
        {
            self.line.pause = None;
            self.ways.iter_mut().for_each(|way| way.free = way.free.max(now + pause));
        }
        if self.budget(end) == Some(0) {
            self.strike(now);
        }
        Poll::Ready(Ok(count))
    }

    /// Sends a parcel on its way.
    fn dispatch(&mut self, way: usize, parcel: Parcel, now: Instant) {
        let jitter = Duration::from_micros(self.dice.below(self.line.jitter.as_micros() as u64 + 1));
        let latency = self.latency(way) + jitter;
        let passage = self.passage;
        let Way { parcels, free, arrival, reader, .. } = &mut self.ways[way];
        *free = (*free).max(now);
        if let Fault::Trickle { every, .. } = self.line.fault {
            *free += every;
        }
        *arrival = (*arrival).max(*free + latency);
        match passage {
            Passage::Free => parcels.push_back((Some(*arrival), parcel)),
            Passage::Stalled => parcels.push_back((None, parcel)),
            Passage::Swallowed | Passage::Reset(_) => {}
        }
        if let Some(reader) = reader.take() {
            reader.wake();
        }
    }

    fn strike(&mut self, now: Instant) {
        self.struck = true;
        let at = now - self.network.begun;
        self.network.trace(self.number, |trace| trace.struck = Some(at));
        match self.line.fault {
            Fault::CutClient { cut: Cut::Close, .. } | Fault::CutServer { cut: Cut::Close, .. } => {
                self.dispatch(CLIENT, Parcel::End, now);
                self.dispatch(SERVER, Parcel::End, now);
                self.passage = Passage::Swallowed;
            }
            Fault::CutClient { cut: Cut::Reset, .. } | Fault::CutServer { cut: Cut::Reset, .. } => {
                self.ways.iter_mut().for_each(|way| way.parcels.clear());
                self.passage = Passage::Reset([now + self.latency(SERVER), now + self.latency(CLIENT)]);
            }
            Fault::Stall { .. } => self.passage = Passage::Stalled,
            Fault::HalfOpen { .. } => self.passage = Passage::Swallowed,
            Fault::None | Fault::Refuse | Fault::Trickle { .. } | Fault::Delay(_) => {}
        }
        self.ways.iter_mut().for_each(Way::wake);
    }

    fn read(&mut self, end: usize, buf: &mut ReadBuf<'_>, cx: &Context<'_>, now: Instant) -> Read {
        if let Passage::Reset(told) = self.passage {
            return match now >= told[end] {
                true => Read::Done(Err(io::ErrorKind::ConnectionReset.into())),
                false => Read::Nothing(Some(told[end])),
            };
        }
        let way = &mut self.ways[1 - end];
        match way.parcels.front_mut() {
            Some((Some(due), parcel)) if *due <= now => {
                let Parcel::Bytes(bytes) = parcel else { return Read::Done(Ok(())) };
                let count = bytes.len().min(buf.remaining());
                buf.put_slice(&bytes[..count]);
                bytes.advance(count);
                if bytes.is_empty() {
                    way.parcels.pop_front();
                }
                way.held -= count;
                if let Some(writer) = way.writer.take() {
                    writer.wake();
                }
                if end == CLIENT {
                    let at = now - self.network.begun;
                    self.network.trace(self.number, |trace| trace.heard = Some(at));
                }
                Read::Done(Ok(()))
            }
            front => {
                let due = front.and_then(|(due, _)| *due);
                way.reader = Some(cx.waker().clone());
                Read::Nothing(due)
            }
        }
    }

    /// This end writes no more.
    fn finish(&mut self, end: usize, now: Instant) {
        if !std::mem::replace(&mut self.ways[end].ended, true) {
            self.dispatch(end, Parcel::End, now);
        }
    }

    /// This end is gone.
    fn leave(&mut self, end: usize, now: Instant) {
        self.finish(end, now);
        let told = now + self.latency(end);
        let way = &mut self.ways[1 - end];
        way.parcels.clear();
        way.wake();
        // Who looks as if it had lost its power doesn't answer either.
        if matches!(self.passage, Passage::Free) {
            way.deaf = Some(told);
        }
        if end == CLIENT {
            let at = now - self.network.begun;
            self.network.trace(self.number, |trace| trace.left = Some(at));
        }
    }
}

/// Numbers that a seed decides: SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}
