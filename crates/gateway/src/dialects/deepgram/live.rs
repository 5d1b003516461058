//! The server half of live recognition.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderValue;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::API;
use super::channel::Channel;
use super::error::{self, REQUEST_ID, exhausted};
use super::input::{AudioInput, BadAudio};
use super::messages::{self, StreamInfo, parse, request_id};
use super::parameters::{AudioFormat, MAX_CHANNELS, Parameters};
use crate::authority::{Amount, to_rfc3339};
use crate::dialects::container::Decoded;
use crate::dialects::live::{admit, authorise, close_code, refusal_code};
use crate::gateway::Gateway;
use crate::http::client::bearer_or_key;
use crate::http::error::ApiError;
use crate::http::websocket::{self, Socket, Upgrade};
use crate::sessions::credential::OpeningToken;
use crate::sessions::live::{LiveEnd, LiveEvent, LiveSession, LiveSettings};
use crate::sessions::live_socket::{LiveInput, LiveSocket};
use crate::sessions::manager::{BeginError, SessionManager};
use crate::sessions::messages::millis;
use voxline::engine::{RECOGNIZER_RATE, RecognitionRequest};
use voxline::error::chain;
use voxline::protocol::close;

/// Longest time without audio and messages, as documented.
const PATIENCE: Duration = Duration::from_secs(10);
/// Reason for the close of a stream that was silent for longer.
const NO_AUDIO: &str = "NET-0001: neither audio nor a KeepAlive came for 10 seconds";

/// Answers the upgrade request. The sessions begin before the answer, so that a client for which there is no
/// room is told so with a status and a time to wait.
pub(super) async fn upgrade(State(gateway): State<Arc<Gateway>>, mut request: Request) -> Response {
    let request_id = request_id();
    let entered = enter(&gateway, &request, &request_id);
    let entered = entered.and_then(|entered| Ok((entered, Upgrade::take(&mut request)?)));
    let ((stream, subprotocol), upgrade) = match entered {
        Ok(entered) => entered,
        Err(refusal) => return error::answer(refusal, &request_id),
    };
    let mut response = upgrade.answer(subprotocol);
    let id = HeaderValue::try_from(request_id).expect("a UUID fits a header");
    response.headers_mut().insert(REQUEST_ID, id);
    gateway.sessions.shutdown.spawn(async move {
        if let Some(wire) = upgrade.socket().await {
            serve(stream, wire).await;
        }
    });
    response
}

/// A stream that was admitted, and has no socket yet.
struct Stream {
    manager: Arc<SessionManager>,
    opener: Arc<OpeningToken>,
    parameters: Parameters,
    request: RecognitionRequest,
    input: AudioInput,
    sessions: Vec<LiveSession>,
    info: StreamInfo,
}

/// Admits a client and begins its sessions. Also returns the subprotocol that carried its token.
fn enter(
    gateway: &Gateway,
    request: &Request,
    request_id: &str,
) -> Result<(Stream, Option<&'static str>), ApiError> {
    // A browser can set no header, and offers the scheme and the token as subprotocols.
    let mut offered = websocket::offered(request.headers());
    let scheme = offered
        .next()
        .and_then(|offer| ["token", "bearer"].into_iter().find(|scheme| offer.eq_ignore_ascii_case(scheme)));
    let token = bearer_or_key(request.headers()).or_else(|| scheme.and_then(|_| offered.next()));
    let opener = Arc::new(authorise(gateway, request, token)?);
    gateway.authority.afford(&opener.identity, Amount::audio(1)).map_err(exhausted)?;
    let query = request.uri().query().unwrap_or_default();
    let parameters = Parameters::parse(query).map_err(|bad| ApiError::bad_request(400, bad.to_string()))?;
    admit(gateway, request)?;
    let manager = gateway.sessions.clone();
    let languages = || manager.recognition_request(Some(&opener.identity), None);
    let asked = parameters.language.request(languages);
    let asked = asked.keywords(parameters.keywords.iter().cloned());
    let input = AudioInput::new(&parameters).map_err(|error: io::Error| ApiError::internal(&error))?;
    let info =
        StreamInfo { request_id: request_id.to_owned(), model: manager.recognizer()?.name().to_owned() };
    let mut stream =
        Stream { manager, opener, parameters, request: asked, input, sessions: Vec::new(), info };
    stream.begin(stream.input.planes().unwrap_or(1))?;
    Ok((stream, scheme))
}

impl Stream {
    /// Begins sessions until there is one for each of `channels`.
    fn begin(&mut self, channels: usize) -> Result<(), BeginError> {
        while self.sessions.len() < channels {
            let settings = LiveSettings {
                api: API,
                sample_rate: match self.parameters.format {
                    AudioFormat::Pcm { sample_rate, .. } => sample_rate,
                    AudioFormat::Opus | AudioFormat::Container => RECOGNIZER_RATE,
                },
                request: self.request.clone(),
                // They tell where speech begins, even if the client doesn't want to see them.
                partials: self.parameters.interim_results || self.parameters.vad_events,
            };
            self.sessions.push(LiveSession::begin(&self.manager, &self.opener, settings)?);
        }
        Ok(())
    }

    fn channel(&self, number: usize) -> Channel {
        Channel::new(number, self.sessions[number].sample_rate(), &self.parameters, self.info.of_result())
    }
}

async fn serve(stream: Stream, wire: Socket) {
    let manager = stream.manager.clone();
    let opener = stream.opener.clone();
    let channels = (0..stream.sessions.len()).map(|number| stream.channel(number)).collect();
    let mut connection = Connection {
        socket: LiveSocket::new(&manager, opener, API, wire, Some(PATIENCE)),
        channels,
        created: to_rfc3339(millis(manager.authority.clock().unix())),
        hash: Sha256::new(),
        finishing: None,
        ended: 0,
        stream,
    };
    let end = connection.run().await;
    let Connection { mut socket, stream, .. } = connection;
    // The place is free before the client learns of the end.
    drop(stream);
    let (code, reason) = match end {
        Ok(Finish::Client) => (close::NORMAL, String::new()),
        Ok(Finish::Drain) => (close::GOING_AWAY, LiveEnd::Stopping.to_string()),
        Err(Failure::Idle) => (close::SERVER_FAULT, NO_AUDIO.to_owned()),
        Err(Failure::Audio(bad)) => {
            let description = format!("DATA-0000: {}", chain(&bad));
            socket.send(&json!({ "type": "Error", "variant": "DataError", "description": description, "message": "" }));
            (close::POLICY, description)
        }
        Err(Failure::Live(end)) => (close_code(&end), end.to_string()),
        Err(Failure::Begin(error)) => (refusal_code(&error), error.told()),
    };
    tracing::debug!(code, reason, "socket ended");
    socket.close(code, &reason).await;
}

/// Reason why the audio ends well.
#[derive(Clone, Copy)]
enum Finish {
    Client,
    /// The gateway stops.
    Drain,
}

/// Reason why a socket is closed.
enum Failure {
    /// Nothing came in time.
    Idle,
    Audio(BadAudio),
    Live(LiveEnd),
    Begin(BeginError),
}

impl From<LiveEnd> for Failure {
    fn from(end: LiveEnd) -> Failure {
        Failure::Live(end)
    }
}

impl From<BadAudio> for Failure {
    fn from(bad: BadAudio) -> Failure {
        Failure::Audio(bad)
    }
}

/// A socket and the sessions of its channels.
struct Connection<'a> {
    stream: Stream,
    socket: LiveSocket<'a>,
    channels: Vec<Channel>,
    /// Time of the opening.
    created: String,
    /// Hash of all bytes of audio.
    hash: Sha256,
    finishing: Option<Finish>,
    /// Number of sessions that have ended.
    ended: usize,
}

impl Connection<'_> {
    /// Carries the stream to its end, when everything is sent but the close.
    async fn run(&mut self) -> Result<Finish, Failure> {
        loop {
            let Stream { sessions, input, .. } = &mut self.stream;
            let reads = self.finishing.is_some() || input.has_room();
            let takes = sessions.iter().all(LiveSession::has_room);
            let next = tokio::select! {
                next = self.socket.next(sessions, reads) => next?,
                decoded = input.next(!reads, takes) => {
                    if let Some(decoded) = decoded {
                        self.decoded(decoded)?;
                    }
                    continue;
                }
            };
            match next {
                LiveInput::Audio(bytes) => self.audio(bytes)?,
                LiveInput::Text(text) => self.text(&text)?,
                LiveInput::Event(channel, LiveEvent::End) => {
                    tracing::debug!(channel, "channel ended");
                    self.ended += 1;
                    if self.ended == self.stream.sessions.len() {
                        self.send_metadata();
                        return Ok(self.finishing.unwrap_or(Finish::Client));
                    }
                }
                LiveInput::Event(channel, event) => self.event(channel, &event),
                LiveInput::Idle if self.finishing.is_some() => {}
                LiveInput::Idle => return Err(Failure::Idle),
                LiveInput::Drain => self.finish(Finish::Drain),
            }
            self.tell_utterance_ends();
        }
    }

    /// Takes a message of audio. An empty one ends the audio, as in an earlier version of the protocol.
    fn audio(&mut self, bytes: Bytes) -> Result<(), Failure> {
        if self.finishing.is_some() {
            return Ok(());
        }
        if bytes.is_empty() {
            self.finish(Finish::Client);
            return Ok(());
        }
        self.hash.update(&bytes);
        let planes = self.stream.input.push(bytes)?;
        self.push(planes)
    }

    /// Hands PCM to the sessions, one plane to each.
    fn push(&mut self, planes: Vec<Bytes>) -> Result<(), Failure> {
        for (session, pcm) in self.stream.sessions.iter_mut().zip(planes) {
            session.push(pcm)?;
        }
        Ok(())
    }

    /// Takes what the decoder of a container has made.
    fn decoded(&mut self, decoded: Decoded) -> Result<(), Failure> {
        match decoded {
            Decoded::Planes(planes) => {
                let channels = planes.len();
                if channels > MAX_CHANNELS {
                    return Err(BadAudio::Channels(channels).into());
                }
                self.stream.begin(channels).map_err(Failure::Begin)?;
                for number in self.channels.len()..channels {
                    self.channels.push(self.stream.channel(number));
                }
                self.push(planes)
            }
            Decoded::End => {
                // A container may end before its messages do.
                self.finishing.get_or_insert(Finish::Client);
                self.finish_sessions();
                Ok(())
            }
            Decoded::Failed(error) => Err(BadAudio::Undecodable(error).into()),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), Failure> {
        match parse(text) {
            Ok(messages::Request::KeepAlive) => {}
            Ok(messages::Request::Finalize { channel }) => {
                let is_meant = |number: usize| channel.is_none_or(|channel| channel == number);
                for (number, session) in self.stream.sessions.iter_mut().enumerate() {
                    if is_meant(number) {
                        session.flush()?;
                    }
                }
            }
            Ok(messages::Request::CloseStream) => self.finish(Finish::Client),
            Ok(messages::Request::Configure { keyterms }) => {
                self.socket.send(&self.stream.info.configured(keyterms.as_deref()));
            }
            Err(error) => self.socket.send(&error),
        }
        Ok(())
    }

    fn event(&mut self, number: usize, event: &LiveEvent) {
        let channels = self.channels.len();
        let channel = &mut self.channels[number];
        let messages = match event {
            LiveEvent::Partial(partial) => channel.partial(partial, channels),
            LiveEvent::Final { segment, ends_flush } => channel.final_(segment, *ends_flush, channels),
            LiveEvent::Flushed => vec![channel.flushed(channels)],
            LiveEvent::End => Vec::new(),
        };
        messages.iter().for_each(|message| self.socket.send(message));
    }

    /// Tells which utterances are over, now that more was heard.
    fn tell_utterance_ends(&mut self) {
        let channels = self.channels.len();
        for (channel, session) in self.channels.iter_mut().zip(&self.stream.sessions) {
            if channel.utterance_ends_at().is_some_and(|end| session.is_quiet_at(end))
                && let Some(message) = channel.utterance_end(channels)
            {
                self.socket.send(&message);
            }
        }
    }

    /// Ends the audio. What a decoder still holds is recognised, too.
    fn finish(&mut self, finish: Finish) {
        if self.finishing.is_none() {
            self.finishing = Some(finish);
            if !self.stream.input.finish() {
                self.finish_sessions();
            }
        }
    }

    fn finish_sessions(&mut self) {
        self.stream.sessions.iter_mut().for_each(LiveSession::finish);
    }

    fn send_metadata(&mut self) {
        let sessions = &self.stream.sessions;
        let seconds = sessions.iter().map(|session| session.seconds(session.end())).fold(0.0, f64::max);
        let hash = self.hash.finalize_reset();
        let message = self.stream.info.at_end(&hash, &self.created, seconds, self.channels.len());
        self.socket.send(&message);
    }
}
