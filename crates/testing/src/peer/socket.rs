//! One socket of a recording peer.

use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::session::Session;
use super::{Behaviour, RecordingPeer, State, Whim};
use voxline::audio::FramePos;
use voxline::protocol::close;
use voxline::protocol::{self, ClientMessage, GoawayReason, Ready, Secret, ServerMessage};
use voxline::transport::{Message, Wire};

/// Longest time before audio is acknowledged, however little there is.
const ACK_WITHIN: Duration = Duration::from_millis(250);
/// Longest time a close handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The way in which a socket ends.
enum Ending {
    /// The client is gone, or has closed.
    Gone,
    Close(u16, String),
}

fn breach(reason: impl Into<String>) -> Ending {
    Ending::Close(close::PROTOCOL, reason.into())
}

/// Serves a socket to its end.
pub(super) async fn serve<Io>(peer: &RecordingPeer, io: Io, number: u64, whim: Whim)
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let mut token = String::new();
    let Ok(io) = accept(peer, io, whim, &mut token).await else { return };
    let mut wire = Wire::server(io).await;
    let mut socket = Socket {
        peer,
        number,
        whim,
        token,
        heard: 0,
        open: false,
        acknowledged: (FramePos::ZERO, FramePos::ZERO),
        ack_due: None,
        finals_said: 0,
        partials: 0,
        done_said: false,
        warned: false,
        closes: None,
    };
    let ending = socket.run(&mut wire).await;
    socket.leave();
    if let Ending::Close(code, reason) = ending {
        if code == close::PROTOCOL {
            peer.state().breaches.push(reason.clone());
        }
        // A client that does not answer is gone.
        let _ = timeout(CLOSE_TIMEOUT, wire.close(code, &reason)).await;
    }
}

/// Performs the opening handshake, and returns the stream behind it. A whim or an invalid token refuses it.
async fn accept<Io>(peer: &RecordingPeer, io: Io, whim: Whim, token: &mut String) -> Result<Io, Error>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    #[expect(clippy::result_large_err, reason = "the library's")]
    #[expect(clippy::disallowed_methods, reason = "the clock of the runtime, which tests stop")]
    let answer = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        if let Whim::Refuse { status, retry_after } = whim {
            return Err(refusal(
                StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY),
                retry_after,
            ));
        }
        if request.uri().path() != protocol::PATH {
            return Err(refusal(StatusCode::NOT_FOUND, None));
        }
        if header(SEC_WEBSOCKET_PROTOCOL) != Some(protocol::SUBPROTOCOL) {
            return Err(refusal(StatusCode::BAD_REQUEST, None));
        }
        let shown = header(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let good = |shown: &str| {
            peer.behaviour.tokens.as_ref().is_none_or(|tokens| tokens.left(shown, Instant::now()).is_some())
        };
        let Some(shown) = shown.filter(|shown| good(shown)) else {
            return Err(refusal(StatusCode::UNAUTHORIZED, None));
        };
        shown.clone_into(token);
        let name = HeaderValue::from_static(protocol::SUBPROTOCOL);
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, name);
        Ok(response)
    };
    // The handshake reads nothing beyond the request.
    Ok(accept_hdr_async(io, answer).await?.into_inner())
}

fn refusal(status: StatusCode, retry_after: Option<u32>) -> ErrorResponse {
    let mut response = ErrorResponse::new(None);
    *response.status_mut() = status;
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

struct Socket<'a> {
    peer: &'a RecordingPeer,
    number: u64,
    whim: Whim,
    /// Token in force.
    token: String,
    /// Number of messages received.
    heard: u64,
    /// `true` once `ready` was sent.
    open: bool,
    /// Positions in the last `ack`, or in `ready`.
    acknowledged: (FramePos, FramePos),
    ack_due: Option<Instant>,
    finals_said: usize,
    partials: u64,
    done_said: bool,
    /// `true` once the client was warned of its token's end.
    warned: bool,
    /// When the socket is closed, as announced.
    closes: Option<Instant>,
}

impl Socket<'_> {
    fn behaviour(&self) -> &Behaviour {
        &self.peer.behaviour
    }

    /// Returns the time left to the token in force, or `None` if it has no end.
    fn left(&self, now: Instant) -> Option<Duration> {
        let tokens = self.behaviour().tokens.as_ref()?;
        Some(tokens.left(&self.token, now).unwrap_or_default())
    }

    #[expect(clippy::disallowed_methods, reason = "the clock of the runtime, which tests stop")]
    async fn run<Io: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<Io>) -> Ending {
        let peer = self.peer;
        let mut news = peer.changed.subscribe();
        loop {
            let now = Instant::now();
            if let Some(ending) = self.yield_to_whim(wire, now) {
                return ending;
            }
            if self.closes.is_some_and(|at| at <= now) {
                return Ending::Close(close::GOING_AWAY, "as told".to_owned());
            }
            let token_due = match self.mind_token(wire, now) {
                Ok(due) => due,
                Err(ending) => return ending,
            };
            let work_due = match self.report(wire, now) {
                Ok(due) => due,
                Err(ending) => return ending,
            };
            let due = [token_due, work_due, self.ack_due, self.closes].into_iter().flatten().min();
            tokio::select! {
                biased;
                message = wire.next() => match message {
                    Some(Ok(message)) => {
                        if let Err(ending) = self.hear(wire, message, Instant::now()) {
                            return ending;
                        }
                    }
                    Some(Err(_)) | None => return Ending::Gone,
                },
                changed = news.changed() => changed.expect("the peer holds the sender"),
                () = at(due) => {}
            }
        }
    }

    /// Applies the whim when its time has come.
    fn yield_to_whim<Io>(&mut self, wire: &mut Wire<Io>, now: Instant) -> Option<Ending>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        match self.whim {
            Whim::Close { after, code, forget } if self.heard >= after => {
                if forget {
                    self.peer.forget();
                }
                if let Some(tokens) = self.behaviour().tokens.as_ref().filter(|_| code == close::TOKEN) {
                    tokens.revoke(&self.token, now);
                }
                Some(Ending::Close(code, "a whim".to_owned()))
            }
            Whim::Goaway { after, reason, deadline } if self.open && self.heard >= after => {
                self.whim = Whim::None;
                self.closes = Some(now + deadline);
                wire.send(goaway(reason, deadline));
                None
            }
            _ => None,
        }
    }

    /// Warns of the token's end, and closes the socket at that end. Returns when to look again.
    fn mind_token<Io>(&mut self, wire: &mut Wire<Io>, now: Instant) -> Result<Option<Instant>, Ending>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(left) = self.left(now) else { return Ok(None) };
        if left.is_zero() {
            return Err(Ending::Close(close::TOKEN, "the token has expired".to_owned()));
        }
        let warning = self.behaviour().tokens.as_ref().map_or(Duration::ZERO, |tokens| tokens.life() / 10);
        if left > warning {
            return Ok(Some(now + (left - warning)));
        }
        if self.open && !std::mem::replace(&mut self.warned, true) {
            wire.send(goaway(GoawayReason::Token, left));
        }
        Ok(Some(now + left))
    }

    /// Sends what is new: acknowledgement, finals, a partial result, the end. Returns when there will be
    /// more.
    fn report<Io>(&mut self, wire: &mut Wire<Io>, now: Instant) -> Result<Option<Instant>, Ending>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        if !self.open {
            return Ok(None);
        }
        let behaviour = &self.peer.behaviour;
        let State { session, recording, .. } = &mut *self.peer.state();
        let session = attached(session, self.number)?;
        session.advance(recording, now);
        let (received, final_) = (session.acknowledged(behaviour), session.final_);
        let acks = received - self.acknowledged.0 >= behaviour.ack_frames.max(1)
            || final_ > self.acknowledged.1
            || self.ack_due.is_some_and(|due| due <= now);
        if acks && (received, final_) != self.acknowledged {
            self.acknowledged = (received, final_);
            wire.send(encode(&ServerMessage::Ack { received, final_ }));
        }
        self.ack_due = if received > self.acknowledged.0 {
            Some(self.ack_due.filter(|due| *due > now).unwrap_or(now + ACK_WITHIN))
        } else {
            None
        };
        for segment in &session.finals[self.finals_said..] {
            wire.send(encode(&ServerMessage::Final(segment.clone())));
        }
        self.finals_said = session.finals.len();
        if acks
            && behaviour.partials
            && let Some(partial) = session.partial(recording, self.partials)
        {
            self.partials += 1;
            wire.send(encode(&partial));
        }
        if let Some(done) = session.done().filter(|_| !self.done_said) {
            self.done_said = true;
            wire.send(encode(&done));
        }
        Ok(session.due())
    }

    /// Handles a message.
    fn hear<Io>(&mut self, wire: &mut Wire<Io>, message: Message, now: Instant) -> Result<(), Ending>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        match message {
            Message::Ping(_) | Message::Pong(_) => return Ok(()),
            Message::Close(frame) => {
                let given_up = frame.is_some_and(|frame| frame.code == close::NORMAL);
                let session = &mut self.peer.state().session;
                // A client that closes after the end has received it; one that closes with 1000 before does
                // not want the rest.
                if given_up && attached(session, self.number).is_ok() {
                    *session = None;
                }
                return Err(Ending::Gone);
            }
            Message::Binary(frame) => {
                self.heard += 1;
                let behaviour = self.behaviour();
                if frame.len() > behaviour.max_audio_bytes {
                    return Err(breach(format!("audio frame of {} bytes", frame.len())));
                }
                let chunk = protocol::decode_audio(&frame).map_err(|error| breach(error.to_string()))?;
                let State { session, recording, .. } = &mut *self.peer.state();
                let session = attached(session, self.number)?;
                let range = chunk.range();
                if range.end > self.acknowledged.0 + behaviour.window_frames {
                    let acknowledged = self.acknowledged.0;
                    return Err(breach(format!("audio {range} is beyond the window from {acknowledged}")));
                }
                session.audio(&chunk, recording, behaviour, now).map_err(breach)?;
            }
            Message::Text(text) => {
                self.heard += 1;
                let message = serde_json::from_str(&text).map_err(|error| breach(error.to_string()))?;
                match message {
                    ClientMessage::Start(_) | ClientMessage::Resume { .. } if self.open => {
                        return Err(breach("this socket has a session already"));
                    }
                    ClientMessage::Start(start) => self.start(wire, start.origin, now),
                    ClientMessage::Resume { session, resume_key, finals_seen } => {
                        self.resume(wire, &session, &resume_key, finals_seen, now)?;
                    }
                    message => self.control(wire, message, now)?,
                }
            }
        }
        Ok(())
    }

    fn control<Io>(&mut self, wire: &mut Wire<Io>, message: ClientMessage, now: Instant) -> Result<(), Ending>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let behaviour = &self.peer.behaviour;
        let State { session, recording, .. } = &mut *self.peer.state();
        let session = attached(session, self.number)?;
        match message {
            ClientMessage::Unknown => return Err(breach("a message of another version")),
            ClientMessage::Gap { from, to } if from < to => {
                session.gap(from.to(to), recording, behaviour, now).map_err(breach)?;
            }
            ClientMessage::Gap { from, to } => return Err(breach(format!("gap {from}..{to}"))),
            ClientMessage::Flush { at } => session.flush(at, behaviour, now),
            ClientMessage::Finish { through } => session.finish(through, behaviour, now).map_err(breach)?,
            ClientMessage::Auth { access_token } if behaviour.auth => {
                access_token.expose().clone_into(&mut self.token);
                let left = self.left(now);
                if left.is_some_and(|left| left.is_zero()) {
                    return Err(Ending::Close(close::TOKEN, "the new token is no good".to_owned()));
                }
                self.warned = false;
                wire.send(encode(&ServerMessage::AuthOk { token_expires_in_ms: left.map(millis) }));
            }
            ClientMessage::Auth { .. } => return Err(breach("auth is not understood here")),
            ClientMessage::Start(_) | ClientMessage::Resume { .. } => unreachable!("taken by the caller"),
        }
        Ok(())
    }

    fn start<Io>(&mut self, wire: &mut Wire<Io>, origin: FramePos, now: Instant)
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let session = {
            let mut state = self.peer.state();
            state.started += 1;
            let started = state.started;
            state.session.insert(Session::new(started, origin, self.number)).name.clone()
        };
        self.ready(wire, &session, now);
    }

    fn resume<Io>(
        &mut self,
        wire: &mut Wire<Io>,
        name: &str,
        key: &Secret,
        finals_seen: u64,
        now: Instant,
    ) -> Result<(), Ending>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        {
            let State { session, recording, .. } = &mut *self.peer.state();
            let window = self.peer.behaviour.resume_window;
            let in_time = |session: &&mut Session| session.alone.is_none_or(|since| now <= since + window);
            let Some(session) = session.as_mut().filter(|session| session.name == name).filter(in_time)
            else {
                return Err(Ending::Close(close::SESSION_UNKNOWN, "no such session".to_owned()));
            };
            if key.expose() != format!("key of {name}") {
                return Err(breach("resume with another session's key"));
            }
            session.advance(recording, now);
            let finals = session.finals.len();
            let seen = usize::try_from(finals_seen).ok().filter(|seen| *seen <= finals);
            let Some(seen) = seen else {
                return Err(breach(format!("resume says finals_seen {finals_seen}, but there are {finals}")));
            };
            self.finals_said = seen;
            (session.socket, session.alone) = (self.number, None);
        }
        // The socket that had the session learns that it was moved.
        self.peer.changed.send_replace(());
        self.ready(wire, name, now);
        Ok(())
    }

    fn ready<Io>(&mut self, wire: &mut Wire<Io>, name: &str, now: Instant)
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let behaviour = &self.peer.behaviour;
        let mut state = self.peer.state();
        state.served += 1;
        let session = state.session.as_ref().expect("opened by the caller");
        self.acknowledged = (session.acknowledged(behaviour), session.final_);
        self.open = true;
        let key = Secret::from(format!("key of {name}"));
        let mut ready = Ready::new(session.final_, 0, behaviour.window_frames)
            .resumable(name, key, behaviour.resume_window)
            .resumed_at(self.acknowledged.0, session.final_, session.finals.len() as u64);
        ready.token_expires_in_ms = self.left(now).map(millis);
        ready.max_audio_bytes = behaviour.max_audio_bytes;
        ready.auth = behaviour.auth;
        ready.max_unfinal_frames = Some(behaviour.segment_frames);
        wire.send(encode(&ServerMessage::Ready(ready)));
    }

    /// Leaves the session to wait for another socket.
    #[expect(clippy::disallowed_methods, reason = "the clock of the runtime, which tests stop")]
    fn leave(&self) {
        if let Ok(session) = attached(&mut self.peer.state().session, self.number) {
            session.alone = Some(Instant::now());
        }
    }
}

/// Returns the session if it is attached to the socket with this number.
fn attached(session: &mut Option<Session>, number: u64) -> Result<&mut Session, Ending> {
    match session {
        None => Err(Ending::Close(close::RESTART, "the session is lost".to_owned())),
        Some(session) if session.socket != number => {
            Err(Ending::Close(close::MOVED, "the session was moved".to_owned()))
        }
        Some(session) => Ok(session),
    }
}

fn goaway(reason: GoawayReason, left: Duration) -> Message {
    encode(&ServerMessage::Goaway {
        reason,
        deadline_ms: millis(left),
        restart: false,
        endpoints: Vec::new(),
    })
}

fn encode(message: &ServerMessage) -> Message {
    Message::text(serde_json::to_string(message).expect("a message is strings and numbers"))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
