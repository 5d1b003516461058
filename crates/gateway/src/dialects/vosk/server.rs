//! The server half of the Vosk protocol.
//!
//! Clients wait for the reply to each message, so the reply to audio is what is known at the time, not what
//! the audio will turn out to mean. Silence makes no result of its own.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;

use super::messages::{self, Config, parse, partial, result};
use crate::admission::pending::PendingPlace;
use crate::dialects::audio::{PcmEncoding, PcmInput};
use crate::dialects::hints::keywords;
use crate::dialects::live::{admit_open, authorise};
use crate::dialects::stream::{Admitted, Ending, Failure, Stream, answered};
use crate::gateway::Gateway;
use crate::http::client::bearer_or_key;
use crate::http::websocket::Socket;
use crate::options::Dialect;
use crate::sessions::credential::OpeningToken;
use crate::sessions::live::{LiveEvent, LiveSession};
use crate::sessions::live_socket::LiveInput;
use crate::sessions::manager::SessionManager;
use voxline::protocol::Final;

/// Label of the dialect in the metrics.
const API: &str = Dialect::Vosk.name();

/// Answers the upgrade request. The session begins with the first audio.
pub(super) async fn upgrade(State(gateway): State<Arc<Gateway>>, mut request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let mut parameters = url::form_urlencoded::parse(query.as_bytes());
    // Most clients can set nothing but the address.
    let parameter = parameters.find(|(name, _)| name == "token").map(|(_, token)| token);
    let token = bearer_or_key(request.headers()).or(parameter.as_deref());
    let identified = authorise(&gateway, &request, token);
    let admitted = Admitted::enter(&gateway, &mut request, identified);
    answered(admitted.map(|admitted| admitted.answer(serve)))
}

/// Answers the upgrade request of a client that needs no token, and whose token, if it sends one, is ignored.
pub(super) async fn upgrade_open(State(gateway): State<Arc<Gateway>>, mut request: Request) -> Response {
    let identified = admit_open(&gateway, &request);
    let admitted = Admitted::enter(&gateway, &mut request, identified);
    answered(admitted.map(|admitted| admitted.answer(serve)))
}

async fn serve(manager: Arc<SessionManager>, opener: Arc<OpeningToken>, place: PendingPlace, wire: Socket) {
    let mut connection = Connection {
        stream: Stream::new(&manager, opener, place, API, wire),
        config: Config::default(),
        input: PcmInput::new(PcmEncoding::S16Le, 1, false),
        finals: Vec::new(),
        awaited: None,
    };
    let end = connection.run().await;
    connection.stream.close(end, |_| None).await;
}

/// Event that the reply to the last message waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Flush,
    End(Ending),
}

/// A socket and its session.
struct Connection<'a> {
    stream: Stream<'a>,
    config: Config,
    input: PcmInput,
    /// Finals since the last result.
    finals: Vec<Final>,
    awaited: Option<Awaited>,
}

impl Connection<'_> {
    async fn run(&mut self) -> Result<Ending, Failure> {
        loop {
            let ending = match self.stream.next(self.awaited.is_none()).await? {
                LiveInput::Audio(pcm) => self.audio(pcm)?,
                LiveInput::Text(text) => self.text(&text)?,
                LiveInput::Event(_, event) => self.event(event),
                LiveInput::Drain => self.finish(Ending::Drained),
                LiveInput::Idle => None,
            };
            if let Some(ending) = ending {
                return Ok(ending);
            }
        }
    }

    /// Takes a message of audio, and answers it with what is known.
    fn audio(&mut self, pcm: Bytes) -> Result<Option<Ending>, Failure> {
        let pcm = self.input.push(pcm).remove(0);
        if self.stream.session().is_none() {
            let phrases = keywords(self.config.phrases.iter().cloned());
            let request = self.stream.manager().recognition_request(Some(self.stream.identity()), None);
            self.stream.begin(self.config.sample_rate, request.keywords(phrases), true)?;
        }
        if let Some(session) = self.stream.session() {
            session.push(pcm)?;
        }
        self.reply();
        Ok(None)
    }

    fn text(&mut self, text: &str) -> Result<Option<Ending>, Failure> {
        match parse(text) {
            messages::Request::Config(config) => self.config = config,
            messages::Request::Other => self.reply(),
            messages::Request::Eof => return Ok(self.finish(Ending::Done)),
            messages::Request::Reset => match self.stream.session() {
                Some(session) => {
                    session.flush()?;
                    self.awaited = Some(Awaited::Flush);
                }
                None => self.reply_with_result(),
            },
        }
        Ok(None)
    }

    /// Ends the audio. Without audio, the stream ends at once.
    fn finish(&mut self, ending: Ending) -> Option<Ending> {
        let Some(session) = self.stream.session() else {
            self.reply_with_result();
            return Some(ending);
        };
        session.finish();
        self.awaited = Some(Awaited::End(ending));
        None
    }

    fn event(&mut self, event: LiveEvent) -> Option<Ending> {
        let is_flushed = match event {
            LiveEvent::Final { segment, ends_flush } => {
                if !segment.text.is_empty() {
                    self.finals.push(segment);
                }
                ends_flush
            }
            LiveEvent::Flushed => true,
            LiveEvent::Partial(_) => false,
            LiveEvent::End => {
                self.reply_with_result();
                let Some(Awaited::End(ending)) = self.awaited else { return Some(Ending::Done) };
                return Some(ending);
            }
        };
        if is_flushed && self.awaited == Some(Awaited::Flush) {
            self.awaited = None;
            self.reply_with_result();
        }
        None
    }

    /// Replies with the finals since the last result, if there are any, and otherwise with the partial
    /// result.
    fn reply(&mut self) {
        if !self.finals.is_empty() {
            return self.reply_with_result();
        }
        let text = self.stream.session().and_then(|session| session.partial()).unwrap_or_default();
        self.stream.send(&partial(&text));
    }

    fn reply_with_result(&mut self) {
        let finals = std::mem::take(&mut self.finals);
        // Without a session there are no times.
        let sample_rate = self.stream.session().map_or(1, |session| LiveSession::sample_rate(session));
        self.stream.send(&result(&finals, sample_rate, &self.config));
    }
}
