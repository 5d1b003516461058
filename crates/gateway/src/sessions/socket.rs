//! The service of a session over one socket, from `ready` to the close.

use std::convert::Infallible;
use std::time::Duration;

use futures::future::OptionFuture;
use tokio::time::{Instant, sleep_until};

use super::close_reason::CloseReason;
use super::credential::Credential;
use super::manager::SessionManager;
use super::messages::{encode, millis, parse, unreadable};
use super::session::{Attached, Session, Violation};
use super::state::Partial;
use super::supervision::{Liveness, Notice, STOPPING, Supervision, UNANSWERED};
use crate::authority::{AuthorityError, Scope};
use crate::http::server::Connection;
use voxline::audio::FramePos;
use voxline::net::Endpoint;
use voxline::protocol::close;
use voxline::protocol::{self, ClientMessage, Final, GoawayReason, Secret, ServerMessage};
use voxline::transport::{Event, Message, Wire, WireError};

/// API of these sockets in the metrics and in the usage.
pub(super) const API: &str = "stream";

/// Largest binary frame accepted, position included: somewhat more than a second of audio at 48 kHz.
pub(crate) const MAX_AUDIO_BYTES: usize = 128 * 1024;
/// Number of messages waiting for a client from which no more are queued. This bounds replayed finals above
/// all: a final of an utterance with its words takes some kilobytes.
const QUEUE_HIGH: usize = 32;
/// Number of waiting messages down to which the queue drains before more are added.
const QUEUE_LOW: usize = 16;

/// Way in which a socket ended.
pub(crate) enum SocketEnd {
    /// The session is complete and the client knows, or the client doesn't want the rest.
    Done,
    /// The client is gone and may come back.
    Lost,
    /// The gateway closes the socket.
    Close(CloseReason),
}

impl SocketEnd {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            SocketEnd::Done => "done",
            SocketEnd::Lost => "lost",
            SocketEnd::Close(_) => "closed",
        }
    }
}

impl From<CloseReason> for SocketEnd {
    fn from(close_reason: CloseReason) -> SocketEnd {
        SocketEnd::Close(close_reason)
    }
}

/// A socket and the session it carries.
pub(crate) struct SessionSocket<'a> {
    manager: &'a SessionManager,
    session: &'a Session,
    attachment: u64,
    credential: Credential,
    finals_sent: usize,
    /// Positions `received` and `final` of the last `ack`, or of `ready`.
    acknowledged: (FramePos, FramePos),
    /// Segment and revision of the last partial result sent.
    partial_sent: Option<(u64, u64)>,
    done_sent: bool,
}

impl<'a> SessionSocket<'a> {
    /// Creates the socket between a socket and the session that was `attached` to it.
    pub(crate) fn new(
        manager: &'a SessionManager,
        session: &'a Session,
        attached: &Attached,
        credential: Credential,
    ) -> SessionSocket<'a> {
        SessionSocket {
            manager,
            session,
            attachment: attached.attachment,
            credential,
            finals_sent: attached.finals_seen,
            acknowledged: (attached.received, attached.final_),
            partial_sent: None,
            done_sent: false,
        }
    }

    /// Carries the session until the socket ends or must be closed.
    pub(crate) async fn run<Io: Connection>(mut self, wire: &mut Wire<Io>) -> SocketEnd {
        let Err(end) = self.carry(wire).await;
        end
    }

    #[expect(clippy::disallowed_methods, reason = "deadlines of a socket are real time")]
    async fn carry<Io: Connection>(&mut self, wire: &mut Wire<Io>) -> Result<Infallible, SocketEnd> {
        let mut changes = self.session.state().watch();
        let mut supervision = Supervision::new(self.manager);
        let mut liveness = Liveness::since(Instant::now());
        loop {
            let is_behind = self.send_updates(wire)?;
            tokio::select! {
                event = wire.next_or_drained(is_behind.then_some(QUEUE_LOW)) => {
                    let Event::Message(message) = event else { continue };
                    let now = Instant::now();
                    liveness = Liveness::since(now);
                    self.receive(wire, message, now)?;
                }
                notice = supervision.notice() => self.heed(wire, notice, Instant::now())?,
                changed = changes.changed() => changed.expect("the session holds the state"),
                () = sleep_until(liveness.deadline()) => {
                    if !liveness.expire(wire) {
                        // A client that was only asleep finds this code on waking up. Code 1000 would tell it
                        // that all is done.
                        return Err(CloseReason::resumable(close::GOING_AWAY, UNANSWERED).into());
                    }
                }
                Some(()) = OptionFuture::from(self.credential.expiry.next().map(sleep_until)) => self.expire_token(wire, Instant::now())?,
            }
        }
    }

    /// Does what the authority or the shutdown of the gateway asks for.
    fn heed<Io: Connection>(
        &self,
        wire: &mut Wire<Io>,
        notice: Notice,
        now: Instant,
    ) -> Result<(), SocketEnd> {
        match notice {
            Notice::Revocation => {
                self.manager.authority.check_again(&self.credential.identity).map_err(CloseReason::from)?;
            }
            Notice::Drain => {
                let left = self.manager.shutdown.drain_left(now);
                wire.send(goaway(GoawayReason::Drain, left, &self.manager.options.successors));
            }
            Notice::Close => return Err(CloseReason::new(close::GOING_AWAY, STOPPING).into()),
        }
        Ok(())
    }

    /// Takes the next message of the client, or the end of the socket, that came at `now`, and sends the
    /// reply.
    fn receive<Io: Connection>(
        &mut self,
        wire: &mut Wire<Io>,
        message: Option<Result<Message, WireError>>,
        now: Instant,
    ) -> Result<(), SocketEnd> {
        match message {
            // Only a client that closes after `done` was sent is known to have received everything.
            Some(Ok(Message::Close(_))) if self.done_sent => Err(SocketEnd::Done),
            // Before `done`, the same code says that the rest is not wanted.
            Some(Ok(Message::Close(Some(frame)))) if frame.code == close::NORMAL => Err(SocketEnd::Done),
            Some(Ok(Message::Close(_))) | None => Err(SocketEnd::Lost),
            Some(Err(error)) => Err(unreadable(&error).map_or(SocketEnd::Lost, SocketEnd::Close)),
            Some(Ok(message)) => {
                if let Some(reply) = self.handle(message, now)? {
                    wire.send(encode(&reply));
                }
                Ok(())
            }
        }
    }

    /// Warns the client that its token is about to expire, or ends the socket once it has.
    fn expire_token<Io: Connection>(&mut self, wire: &mut Wire<Io>, now: Instant) -> Result<(), SocketEnd> {
        if self.credential.expiry.warn.take().is_none() {
            return Err(CloseReason::resumable(close::TOKEN, "the token has expired").into());
        }
        let left = self.credential.expiry.left(now).unwrap_or_default();
        wire.send(goaway(GoawayReason::Token, left, &[]));
        Ok(())
    }

    /// Brings the client up to date: acknowledgement, finals, the newest partial result, `done`. It runs
    /// after each message, so that audio and gaps are acknowledged frame by frame. It queues no more than
    /// the client reads soon. Returns whether more may be left to send once the queue has drained.
    fn send_updates<Io: Connection>(&mut self, wire: &mut Wire<Io>) -> Result<bool, CloseReason> {
        let state = self.session.state().lock();
        if state.attachment != self.attachment {
            return Err(CloseReason::moved());
        }
        if state.results.failed {
            return Err(CloseReason::new(close::SERVER_FAULT, "the recogniser failed"));
        }
        let room = QUEUE_HIGH.saturating_sub(wire.queued());
        if room == 0 {
            return Ok(true);
        }
        let acknowledged = (self.session.acknowledged(&state), state.results.final_);
        let finals: Vec<Final> =
            state.results.finals[self.finals_sent..].iter().take(room).cloned().collect();
        let is_behind = self.finals_sent + finals.len() < state.results.finals.len();
        let segment = state.results.finals.len() as u64;
        let is_news =
            |partial: &&Partial| !is_behind && self.partial_sent != Some((segment, partial.revision));
        let partial = state.results.partial.as_ref().filter(is_news).cloned();
        let done = (state.results.done && !is_behind).then_some(state.results.final_);
        drop(state);

        if acknowledged != self.acknowledged {
            // invariant: both cursors only grow
            debug_assert!(acknowledged.0 >= self.acknowledged.0 && acknowledged.1 >= self.acknowledged.1);
            self.acknowledged = acknowledged;
            wire.send(encode(&ServerMessage::Ack { received: acknowledged.0, final_: acknowledged.1 }));
        }
        self.finals_sent += finals.len();
        for segment in finals {
            wire.send(encode(&ServerMessage::Final(segment)));
        }
        if let Some(Partial { revision, range, text, .. }) = partial {
            self.partial_sent = Some((segment, revision));
            let (start, end) = (range.start, range.end);
            wire.send(encode(&ServerMessage::Partial { segment, revision, start, end, text }));
        }
        if let Some(frames) = done.filter(|_| !self.done_sent) {
            self.done_sent = true;
            wire.send(encode(&ServerMessage::Done { frames, finals: self.finals_sent as u64 }));
        }
        Ok(is_behind)
    }

    /// Handles a message that came at `now`. Returns the reply, if the message has one of its own.
    fn handle(&mut self, message: Message, now: Instant) -> Result<Option<ServerMessage>, CloseReason> {
        // Audio is limited by its window instead.
        if !matches!(message, Message::Binary(_)) {
            self.session.control(self.attachment)?;
        }
        match message {
            Message::Binary(frame) if frame.len() > MAX_AUDIO_BYTES => {
                let size = frame.len();
                let reason = format!("audio frame of {size} bytes, the limit is {MAX_AUDIO_BYTES}");
                return Err(CloseReason::new(close::TOO_BIG, reason));
            }
            Message::Binary(frame) => {
                let chunk = protocol::decode_audio(&frame).map_err(|error| Violation(error.to_string()))?;
                let charge = |milliseconds| {
                    self.manager.charge(&self.credential.identity, API, milliseconds, frame.len())
                };
                self.session.audio(self.attachment, &chunk, charge)?;
            }
            Message::Text(text) => match parse(&text)? {
                ClientMessage::Flush { at } => {
                    self.session.flush(self.attachment, at)?;
                }
                ClientMessage::Gap { from, to } => self.session.gap(self.attachment, from, to)?,
                ClientMessage::Finish { through } => self.session.finish(self.attachment, through)?,
                ClientMessage::Auth { access_token } => return self.renew(&access_token, now).map(Some),
                ClientMessage::Unknown => {}
                ClientMessage::Start(_) | ClientMessage::Resume { .. } => {
                    return Err(CloseReason::new(close::PROTOCOL, "this socket has a session already"));
                }
            },
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => {}
        }
        Ok(None)
    }

    /// Continues the session under another token of the same project.
    fn renew(&mut self, token: &Secret, now: Instant) -> Result<ServerMessage, CloseReason> {
        if !self.manager.options.in_band_auth {
            return Err(CloseReason::new(close::PROTOCOL, "auth is not understood here"));
        }
        if !self.session.is_held_by(self.attachment) {
            return Err(CloseReason::moved());
        }
        let peer = self.credential.peer;
        let identity = self.manager.authority.authorise(token.expose(), Scope::AsrStream, peer);
        let identity = identity.inspect_err(|error| {
            if let (AuthorityError::Token, Some(peer)) = (error, peer) {
                self.manager.auth_limiter.note_failure(peer);
            }
        })?;
        if identity.project != self.session.project() {
            return Err(CloseReason::resumable(close::TOKEN, "the new token is of another project"));
        }
        let expires_in = identity.expires_in;
        self.credential = Credential::new(identity, peer, now);
        tracing::debug!(session = self.session.name(), "token renewed");
        Ok(ServerMessage::AuthOk { token_expires_in_ms: expires_in.map(millis) })
    }
}

fn goaway(reason: GoawayReason, left: Duration, successors: &[Endpoint]) -> Message {
    encode(&ServerMessage::Goaway {
        reason,
        deadline_ms: millis(left),
        restart: !successors.is_empty(),
        endpoints: successors.iter().map(Endpoint::to_string).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::StreamExt;
    use secrecy::ExposeSecret;
    use tokio::io::{DuplexStream, duplex};
    use tokio_tungstenite::tungstenite::protocol::Role;
    use tokio_tungstenite::{WebSocketStream, tungstenite};

    use super::*;
    use crate::authority::{Authority, Identity, Terms};
    use voxline::engine::Recognizer;
    use voxline::protocol::Start;
    use voxline_support::clock::SystemClock;
    use voxline_testing::DigestRecognizer;

    /// Returns a manager with one project, a token of the project, and the token's id.
    fn manager() -> (SessionManager, String, String) {
        let lifetime = Duration::from_secs(3_600);
        let authority = Authority::in_memory(lifetime, Arc::new(SystemClock::new())).unwrap();
        authority.create_project("test").unwrap();
        let minted = authority.create_service_token("test", Terms::default()).unwrap();
        let recognizer: Arc<dyn Recognizer> = Arc::new(DigestRecognizer::new(16_000));
        let manager = SessionManager::with_defaults(authority, Some(recognizer));
        (manager, minted.token.expose_secret().to_owned(), minted.id)
    }

    /// Starts a session for `identity` and attaches it.
    fn session(manager: &SessionManager, identity: &Identity) -> (Session, Attached) {
        let start: Start = serde_json::from_str(r#"{"sample_rate":16000}"#).unwrap();
        let recognizer = manager.recognizer().unwrap();
        let options = voxline::engine::RecognitionRequest::default();
        let session = Session::start(recognizer, &manager.scheduler, identity, &start, options).unwrap();
        let attached = session.attach(0).unwrap();
        (session, attached)
    }

    /// Returns the client's end of a socket and the gateway's.
    async fn sockets() -> (WebSocketStream<DuplexStream>, Wire<DuplexStream>) {
        let (near, far) = duplex(64 * 1024);
        let peer = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        (peer, Wire::server(far).await)
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "the time is simulated")]
    async fn a_silent_socket_is_pinged_and_then_closed() {
        let (manager, token, _) = manager();
        let identity = manager.authority.authorise(&token, Scope::AsrStream, None).unwrap();
        let (session, attached) = session(&manager, &identity);
        let (mut peer, mut wire) = sockets().await;
        let started = Instant::now();
        let credential = Credential::new(identity, None, started);
        let socket = SessionSocket::new(&manager, &session, &attached, credential).run(&mut wire);
        let client = async {
            let seconds = || started.elapsed().as_secs();
            let mut pings = Vec::new();
            while pings.len() < 2 {
                match peer.next().await.expect("it is waited for").unwrap() {
                    tungstenite::Message::Ping(_) => pings.push(seconds()),
                    other => assert!(other.is_text(), "{other:?}"),
                }
                // The pong is written the next time the client polls the socket, just in time.
                sleep_until(started + Duration::from_secs(58)).await;
            }
            assert_eq!(pings, [20, 78]);
            // From here on the client is gone. The gateway gives the socket up only after the time for a
            // reply is over.
            std::future::pending::<()>().await;
        };
        let ending = tokio::select! {
            ending = socket => ending,
            () = client => unreachable!("it waits without end"),
        };
        assert_eq!(started.elapsed().as_secs(), 118);
        let SocketEnd::Close(close_reason) = ending else { panic!("{} rather than closed", ending.name()) };
        assert_eq!((close_reason.code, close_reason.resumable), (close::GOING_AWAY, true));
        drop(peer.close(None).await);
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "the time is simulated")]
    async fn a_token_revoked_before_the_subscription_closes_the_socket() {
        let (manager, token, id) = manager();
        let identity = manager.authority.authorise(&token, Scope::AsrStream, None).unwrap();
        let (session, attached) = session(&manager, &identity);
        // Revoke after the check, and before the socket subscribes to revocations.
        manager.authority.revoke_token(&id).unwrap();
        let (_peer, mut wire) = sockets().await;
        let credential = Credential::new(identity, None, Instant::now());
        let ending = SessionSocket::new(&manager, &session, &attached, credential).run(&mut wire).await;
        let SocketEnd::Close(close_reason) = ending else { panic!("{} rather than closed", ending.name()) };
        assert_eq!((close_reason.code, close_reason.resumable), (close::TOKEN, true));
    }
}
