//! The server half of jambonz' custom speech recognition.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;

use super::messages::{self, Start, error, of_final, of_partial, parse};
use crate::admission::pending::PendingPlace;
use crate::dialects::audio::{PcmEncoding, PcmInput};
use crate::dialects::hints::keywords;
use crate::dialects::live::authorise;
use crate::dialects::stream::{Admitted, Ending, Failure, Stream, answered};
use crate::gateway::Gateway;
use crate::http::client::bearer;
use crate::http::websocket::Socket;
use crate::options::Dialect;
use crate::sessions::credential::OpeningToken;
use crate::sessions::live::LiveEvent;
use crate::sessions::live_socket::LiveInput;
use crate::sessions::manager::SessionManager;

/// Label of the dialect in the metrics.
const API: &str = Dialect::Jambonz.name();

/// Answers the upgrade request. The session begins with the message `start`.
pub(super) async fn upgrade(State(gateway): State<Arc<Gateway>>, mut request: Request) -> Response {
    let identified = authorise(&gateway, &request, bearer(request.headers()));
    let admitted = Admitted::enter(&gateway, &mut request, identified);
    answered(admitted.map(|admitted| admitted.answer(serve)))
}

async fn serve(manager: Arc<SessionManager>, opener: Arc<OpeningToken>, place: PendingPlace, wire: Socket) {
    let mut connection = Connection {
        stream: Stream::new(&manager, opener, place, API, wire),
        input: PcmInput::new(PcmEncoding::S16Le, 1, false),
        language: None,
        ending: None,
    };
    let end = connection.run().await;
    connection.stream.close(end, |reason| Some(error(reason))).await;
}

/// A socket and its session.
struct Connection<'a> {
    stream: Stream<'a>,
    input: PcmInput,
    /// Language that was asked for.
    language: Option<String>,
    /// Kind of the end of the stream, once its audio has ended.
    ending: Option<Ending>,
}

impl Connection<'_> {
    async fn run(&mut self) -> Result<Ending, Failure> {
        loop {
            match self.stream.next(true).await? {
                LiveInput::Audio(pcm) => self.audio(pcm)?,
                LiveInput::Text(text) => match parse(&text).map_err(Failure::Request)? {
                    messages::Request::Start(start) => self.start(start)?,
                    messages::Request::Stop => self.finish(Ending::Done),
                    messages::Request::Unknown => {}
                },
                LiveInput::Event(_, event) => {
                    if self.event(event) {
                        return Ok(self.ending.unwrap_or(Ending::Done));
                    }
                }
                LiveInput::Drain => self.finish(Ending::Drained),
                LiveInput::Idle => {}
            }
            // Without a session, nothing is left to be said.
            if let (Some(ending), None) = (self.ending, self.stream.session()) {
                return Ok(ending);
            }
        }
    }

    fn start(&mut self, start: Start) -> Result<(), Failure> {
        if self.stream.session().is_some() {
            return Err(Failure::Request("this socket has started already".to_owned()));
        }
        let sample_rate = start.sample_rate().map_err(Failure::Request)?;
        let language = start.language.clone();
        let request =
            self.stream.manager().recognition_request(Some(self.stream.identity()), language.clone());
        self.stream.begin(sample_rate, request.keywords(keywords(start.hints())), start.interim_results)?;
        self.language = language;
        Ok(())
    }

    /// Takes a message of audio. After the end it is dropped.
    fn audio(&mut self, pcm: Bytes) -> Result<(), Failure> {
        let Some(session) = self.stream.session() else {
            return Err(Failure::Request("audio came before start".to_owned()));
        };
        session.push(self.input.push(pcm).remove(0))?;
        Ok(())
    }

    fn finish(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
        if let Some(session) = self.stream.session() {
            session.finish();
        }
    }

    /// Tells the client of an event. Returns whether it was the last one. Silence is not told.
    fn event(&mut self, event: LiveEvent) -> bool {
        let asked = self.language.as_deref();
        let message = match event {
            LiveEvent::Final { segment, .. } if !segment.text.is_empty() => of_final(&segment, asked),
            LiveEvent::Partial(partial) if !partial.text.is_empty() => {
                of_partial(&partial.text, partial.confidence, asked)
            }
            LiveEvent::Final { .. } | LiveEvent::Partial(_) | LiveEvent::Flushed => return false,
            LiveEvent::End => return true,
        };
        self.stream.send(&message);
        false
    }
}
