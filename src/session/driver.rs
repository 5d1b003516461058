//! A session, and its driver, which performs the outputs of the state machine on real connections.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use futures::future::OptionFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::error::SessionError;
use super::journal::{Checkpoint, Journal};
use super::ledger::Ended;
use super::machine::{ConnectionId, Input, Machine, Output};
use super::settings::Settings;
use crate::audio::Feed;
use crate::auth::{AccessToken, AuthError, AuthErrorKind, TokenGeneration, TokenProvider};
use crate::error::Cause;
use crate::peer::{Connect, Peer, PeerEvent};
use crate::protocol::close;
use crate::recovery::{Failure, FailureKind};
use crate::transcript::TranscriptEvent;

/// Number of feeds taken before messages of the peer are polled: enough that their frames leave in few
/// writes.
const AUDIO_TURN: usize = 64;
/// Number of queued events at which the driver stops taking audio until the user catches up.
const WAITING_EVENTS: usize = 1_024;
/// Number of queued messages of one connection at which the driver stops taking audio: more than any window
/// needs.
const WAITING_MESSAGES: usize = 16 * 1024;
/// Longest time a closing handshake may take: by then the peer has everything, or never will.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A session that is ready to run: the service to connect to, the tokens to show, and the settings.
///
/// ```no_run
/// # async fn example(
/// #     audio: tokio::sync::mpsc::Receiver<voxline::audio::Feed>,
/// #     events: tokio::sync::mpsc::Sender<voxline::transcript::TranscriptEvent>,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use voxline::auth::TokenProvider;
/// use voxline::session::{Session, Settings};
/// use voxline::transport::WebSocketConnector;
///
/// let connector = WebSocketConnector::new("https://speech.example".parse()?)?;
/// let tokens = TokenProvider::service(&"TOKEN".to_owned().into())?;
/// let ended = Session::new(&connector, &tokens, Settings::new(16_000)).run(audio, events).await;
/// println!("{}", ended.into_result()?);
/// # Ok(())
/// # }
/// ```
///
/// With a [checkpoint](Session::resume) and a [journal](Session::journal), a session outlives its process.
/// [`Opened::run`](crate::spool::Opened::run) keeps both in a file.
#[must_use = "a session does nothing until it is run"]
pub struct Session<'a, C> {
    connector: &'a C,
    tokens: &'a TokenProvider,
    pub(crate) settings: Settings,
    checkpoint: Checkpoint,
    journal: Option<&'a mut dyn Journal>,
}

impl<'a, C: Connect> Session<'a, C> {
    /// Creates a session that connects through `connector` with tokens from `tokens`.
    pub fn new(connector: &'a C, tokens: &'a TokenProvider, settings: Settings) -> Session<'a, C> {
        Session { connector, tokens, settings, checkpoint: Checkpoint::default(), journal: None }
    }

    /// Starts the session where an earlier process left it. The audio must start where the audio of the
    /// checkpoint ends. By default the session starts at frame zero.
    pub fn resume(self, checkpoint: Checkpoint) -> Session<'a, C> {
        Session { checkpoint, ..self }
    }

    /// Records in `journal` what a later process needs to resume the session. By default the session ends
    /// with its process.
    pub fn journal<'j>(self, journal: &'j mut dyn Journal) -> Session<'j, C>
    where
        'a: 'j,
    {
        let Session { connector, tokens, settings, checkpoint, .. } = self;
        Session { connector, tokens, settings, checkpoint, journal: Some(journal) }
    }

    /// Runs the session to its end: reads `audio`, and sends what was recognised to `events`. Lost
    /// connections are replaced without losing or repeating audio. Tokens and connections with a known end
    /// are replaced before that end.
    ///
    /// Audio is taken from the start, before there is a connection. The channel is read only while the replay
    /// buffer has room, so a slow service slows the source, unless the settings drop audio instead. A channel
    /// that closes without [`Feed::End`] ends the session at the last frame it delivered. `events` may be
    /// slow: a waiting partial result is replaced by the next event, final results wait. If the receiver of
    /// `events` is dropped, the session runs to its end without reporting anything.
    ///
    /// Events emitted before an error stay valid.
    pub async fn run(self, audio: mpsc::Receiver<Feed>, events: mpsc::Sender<TranscriptEvent>) -> Ended {
        let Session { connector, tokens, settings, checkpoint, journal } = self;
        let driver = Driver {
            connector,
            tokens,
            machine: Machine::for_peer(settings, connector.capabilities(), checkpoint),
            fetch: None,
            dials: Vec::new(),
            peers: Vec::new(),
            closing: FuturesUnordered::new(),
            journal,
            journal_failed: None,
            audio,
            audio_open: true,
            audio_turn: 0,
            events,
            waiting: VecDeque::new(),
        };
        driver.run().await
    }
}

/// Prints the settings alone: a checkpoint holds speech.
impl<C> fmt::Debug for Session<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("settings", &self.settings).finish_non_exhaustive()
    }
}

type Task<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Dial<'a, P> = Task<'a, Result<P, Failure>>;

struct Driver<'a, C: Connect> {
    connector: &'a C,
    tokens: &'a TokenProvider,
    machine: Machine,
    fetch: Option<Task<'a, Result<AccessToken, AuthError>>>,
    /// Dials in progress: at most two, like connections.
    dials: Vec<(ConnectionId, Dial<'a, C::Peer>)>,
    peers: Vec<(ConnectionId, C::Peer)>,
    /// Closing handshakes of earlier connections, which run in the background while the session continues.
    closing: FuturesUnordered<Task<'a, ()>>,
    journal: Option<&'a mut dyn Journal>,
    journal_failed: Option<Cause>,
    audio: mpsc::Receiver<Feed>,
    audio_open: bool,
    /// Number of feeds taken since the peer was last polled.
    audio_turn: usize,
    events: mpsc::Sender<TranscriptEvent>,
    /// Events that the user has not taken yet.
    waiting: VecDeque<TranscriptEvent>,
}

impl<C: Connect> Driver<'_, C> {
    #[expect(clippy::disallowed_methods, reason = "the driver is where a session meets the clock")]
    async fn run(mut self) -> Ended {
        let start = Instant::now();
        self.machine.handle(Input::Tick, Duration::ZERO);
        loop {
            if let Some(ended) = self.perform(start).await {
                return ended;
            }
            if let Some(input) = self.next_input(start).await {
                self.machine.handle(input, start.elapsed());
            }
        }
    }

    /// Waits for the next event, and returns the input of the state machine that it is. Returns `None` for an
    /// event that doesn't concern the state machine.
    async fn next_input(&mut self, start: Instant) -> Option<Input> {
        // A wake-up time beyond the range of the clock means that no timer is set.
        let wake = self.machine.wake_at().and_then(|at| start.checked_add(at));
        tokio::select! {
            // The order is fixed, so that a simulated run can be repeated. The source and the peer, both
            // possibly endless, take turns.
            biased;
            Some(()) = OptionFuture::from(wake.map(sleep_until)) => Some(Input::Tick),
            token = fetched(&mut self.fetch) => {
                self.fetch = None;
                Some(token.map_or_else(|error| Input::TokenFailed(no_token(error)), Input::Token))
            }
            (id, peer) = dialled(&mut self.dials) => Some(self.dial_completed(id, peer)),
            Some(()) = self.closing.next() => None,
            () = deliver(&self.events, &mut self.waiting), if !self.waiting.is_empty() => None,
            feed = self.audio.recv(), if self.takes_audio() && self.audio_turn < AUDIO_TURN => {
                Some(self.feed_taken(feed))
            }
            (id, event) = next_event(&mut self.peers) => Some(self.peer_event(id, event)),
            // The peer was polled and has sent nothing.
            () = std::future::ready(()), if self.audio_turn > 0 => {
                self.audio_turn = 0;
                None
            }
        }
    }

    /// Keeps the connection that a dial has made.
    fn dial_completed(&mut self, id: ConnectionId, peer: Result<C::Peer, Failure>) -> Input {
        match peer {
            Ok(peer) => {
                self.peers.push((id, peer));
                Input::Connected(id)
            }
            Err(failure) => Input::DialFailed(id, failure),
        }
    }

    /// Counts a feed that was taken from the source. `None` is the end of the channel.
    fn feed_taken(&mut self, feed: Option<Feed>) -> Input {
        self.audio_turn += 1;
        match feed {
            Some(Feed::Audio(chunk)) => Input::Audio(chunk),
            Some(Feed::Flush) => Input::Flush,
            Some(Feed::Gap(range)) => Input::Gap(range),
            Some(Feed::End) | None => {
                self.audio_open = false;
                Input::Finish
            }
        }
    }

    /// Removes the connection if the event is its end.
    fn peer_event(&mut self, id: ConnectionId, event: PeerEvent) -> Input {
        self.audio_turn = 0;
        let input = input(id, event);
        match input {
            // Answer the peer's close frame.
            Input::Closed(..) => {
                self.closing.extend(taken(&mut self.peers, id).map(|peer| disconnect(peer, close::NORMAL)));
            }
            Input::Lost(..) => drop(taken(&mut self.peers, id)),
            _ => {}
        }
        input
    }

    /// Performs the outputs of the state machine. Returns the result of the session once it has ended.
    async fn perform(&mut self, start: Instant) -> Option<Ended> {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::NeedToken { newer_than } => self.fetch = Some(self.begin_fetch(newer_than)),
                Output::Dial { id, token, session, endpoints } => {
                    let connector = self.connector;
                    let dial = Box::pin(async move {
                        connector.connect_to(&endpoints, &token, session.as_deref()).await
                    });
                    self.dials.push((id, dial));
                }
                Output::Send(id, message) => self.with_peer(id, |peer| peer.send(message)),
                Output::SendAudio(id, chunk) => self.with_peer(id, |peer| peer.send_audio(chunk)),
                Output::Ping(id) => self.with_peer(id, Peer::ping),
                Output::Close(id, code) => self.close(id, code),
                // An event that can't be journalled is not emitted, nor is any event after it.
                Output::Opened(_) | Output::Emit(_) if self.journal_failed.is_some() => {}
                Output::Opened(server) => {
                    self.record(|journal| journal.record_server(&server), start);
                }
                Output::Emit(event) => {
                    if self.record(|journal| journal.record_event(&event), start) {
                        self.emit(event);
                    }
                }
                Output::End(mut ended) => {
                    if let Some(source) = self.journal_failed.take() {
                        ended.result = Err(SessionError::Journal { source });
                    }
                    tracing::info!(ledger = %ended.ledger, "session ended");
                    self.close_gracefully().await;
                    return Some(*ended);
                }
            }
        }
        None
    }

    /// Returns whether the source should be read now.
    fn takes_audio(&self) -> bool {
        let room = self.waiting.len() < WAITING_EVENTS
            && self.peers.iter().all(|(_, peer)| peer.queued() < WAITING_MESSAGES);
        self.audio_open && self.machine.wants_audio() && room
    }

    /// Writes a record to the journal, if there is one. If that fails, ends the session and returns `false`.
    fn record(&mut self, write: impl FnOnce(&mut dyn Journal) -> io::Result<()>, start: Instant) -> bool {
        let Some(journal) = self.journal.as_deref_mut() else { return true };
        let Err(error) = write(journal) else { return true };
        let error = Cause::from(error);
        self.journal_failed = Some(error.clone());
        self.machine.handle(Input::JournalFailed(error), start.elapsed());
        false
    }

    /// Delivers the remaining events to the user while the closing handshakes finish.
    async fn close_gracefully(&mut self) {
        // A caller that feeds audio before it reads the events must not wait for ever.
        self.audio.close();
        let delivering = async {
            for event in self.waiting.drain(..) {
                if self.events.send(event).await.is_err() {
                    break;
                }
            }
        };
        let closing = async { while self.closing.next().await.is_some() {} };
        tokio::join!(delivering, closing);
    }

    fn begin_fetch<'d>(&self, newer_than: Option<TokenGeneration>) -> Task<'d, Result<AccessToken, AuthError>>
    where
        Self: 'd,
    {
        let tokens = self.tokens;
        Box::pin(async move {
            match newer_than {
                Some(generation) => tokens.newer_than(generation).await,
                None => tokens.token().await,
            }
        })
    }

    fn close(&mut self, id: ConnectionId, code: u16) {
        self.dials.retain(|(other, _)| *other != id);
        self.closing.extend(taken(&mut self.peers, id).map(|peer| disconnect(peer, code)));
    }

    fn with_peer(&mut self, id: ConnectionId, act: impl FnOnce(&mut C::Peer)) {
        if let Some((_, peer)) = self.peers.iter_mut().find(|(other, _)| *other == id) {
            act(peer);
        }
    }

    /// Queues an event for the user. A partial result still in the queue is outdated by any later event.
    fn emit(&mut self, event: TranscriptEvent) {
        if matches!(self.waiting.back(), Some(TranscriptEvent::Partial { .. })) {
            self.waiting.pop_back();
        }
        self.waiting.push_back(event);
    }
}

/// Sends the first of the waiting events once the user has room for it. If the wait is given up, the event
/// stays.
async fn deliver(events: &mpsc::Sender<TranscriptEvent>, waiting: &mut VecDeque<TranscriptEvent>) {
    match (events.reserve().await, waiting.pop_front()) {
        (Ok(permit), Some(event)) => permit.send(event),
        // The receiver was dropped; discard pending events.
        _ => waiting.clear(),
    }
}

/// Removes this connection from `peers` and returns it.
fn taken<P>(peers: &mut Vec<(ConnectionId, P)>, id: ConnectionId) -> Option<P> {
    let index = peers.iter().position(|(other, _)| *other == id)?;
    Some(peers.swap_remove(index).1)
}

/// Closes a connection, within [`CLOSE_TIMEOUT`].
fn disconnect<'a, P: Peer + 'a>(peer: P, code: u16) -> Task<'a, ()> {
    Box::pin(async move {
        // The session doesn't depend on the peer's answer.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, peer.close(code)).await;
    })
}

/// Waits for the token request in progress; never completes if there is none.
async fn fetched<T>(fetch: &mut Option<Task<'_, T>>) -> T {
    match fetch {
        Some(fetch) => fetch.await,
        None => std::future::pending().await,
    }
}

/// Waits for the first dial to complete, and removes that dial from `dials`.
async fn dialled<T>(dials: &mut Vec<(ConnectionId, Task<'_, T>)>) -> (ConnectionId, T) {
    poll_fn(|cx| {
        for index in 0..dials.len() {
            if let Poll::Ready(answer) = dials[index].1.as_mut().poll(cx) {
                let (id, _) = dials.swap_remove(index);
                return Poll::Ready((id, answer));
            }
        }
        Poll::Pending
    })
    .await
}

/// Waits for the next event on any connection.
async fn next_event<P: Peer>(peers: &mut [(ConnectionId, P)]) -> (ConnectionId, PeerEvent) {
    poll_fn(|cx: &mut Context<'_>| {
        for index in 0..peers.len() {
            if let Poll::Ready(event) = peers[index].1.poll_next(cx) {
                let id = peers[index].0;
                // The other connection is polled first next time.
                peers.rotate_left(index + 1);
                return Poll::Ready((id, event));
            }
        }
        Poll::Pending
    })
    .await
}

/// Returns the input of the state machine that an event on a connection is.
fn input(id: ConnectionId, event: PeerEvent) -> Input {
    match event {
        PeerEvent::Message(message) => Input::Peer(id, message),
        PeerEvent::Alive => Input::Alive(id),
        PeerEvent::Violation(violation) => Input::Violation(id, violation),
        PeerEvent::Closed(code, reason) => Input::Closed(id, code, reason),
        PeerEvent::Lost(reason) => Input::Lost(id, reason),
    }
}

fn no_token(error: AuthError) -> Failure {
    let kind = match error.kind() {
        AuthErrorKind::Unreachable => FailureKind::Unreachable,
        AuthErrorKind::Limit => FailureKind::Limit,
        AuthErrorKind::Setup => FailureKind::Vault,
        AuthErrorKind::Authentication => FailureKind::Authentication,
    };
    Failure::new(error.recovery(), kind, "no access token").caused_by(error)
}
