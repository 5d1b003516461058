//! `GET /v1/speak`: speech by WebSocket, of a text that comes in pieces.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryFutureExt, TryStreamExt};
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::API;
use super::error::{self, REQUEST_ID, exhausted};
use super::messages::{StreamInfo, request_id};
use super::speak::{Parameters, voice_named};
use super::spoken_text::{Part, SpokenText};
use crate::admission::pending::PendingPlace;
use crate::authority::{Amount, Scope};
use crate::dialects::clients::authorise;
use crate::dialects::live::close_code;
use crate::gateway::Gateway;
use crate::http::client::bearer_or_key;
use crate::http::cors;
use crate::http::error::ApiError;
use crate::http::websocket::{self, Socket, Upgrade};
use crate::sessions::credential::OpeningToken;
use crate::sessions::live::LiveEnd;
use crate::sessions::live_socket::{LiveInput, LiveSocket};
use crate::speech::encoder::Format;
use crate::speech::synthesis::Synthesis;
use voxline::engine::{Voice, language_of};
use voxline::error::chain;
use voxline::protocol::close;

/// Longest message, in bytes: a text of the longest speech as JSON.
const MAX_MESSAGE: usize = 384 * 1024;

/// A text message of the client.
#[derive(Deserialize)]
#[serde(tag = "type")]
enum Message {
    Speak { text: String },
    Flush,
    Clear,
    Close,
}

/// Speech that is being synthesised.
type Speech = Pin<Box<dyn Stream<Item = Result<Bytes, ApiError>> + Send>>;

/// A client that was admitted.
struct Admitted {
    opener: Arc<OpeningToken>,
    place: PendingPlace,
    subprotocol: Option<&'static str>,
    model: String,
    sample_rate: u32,
}

/// Answers the upgrade request.
pub(super) async fn upgrade(State(gateway): State<Arc<Gateway>>, mut request: Request) -> Response {
    let request_id = request_id();
    let entered = enter(&gateway, &request).and_then(|admitted| Ok((admitted, Upgrade::take(&mut request)?)));
    let (Admitted { opener, place, subprotocol, model, sample_rate }, upgrade) = match entered {
        Ok(entered) => entered,
        Err(refusal) => return error::answer(refusal, &request_id),
    };
    let mut response = upgrade.answer(subprotocol);
    let id = HeaderValue::try_from(request_id.as_str()).expect("a UUID fits a header");
    response.headers_mut().insert(REQUEST_ID, id);
    let manager = gateway.sessions.clone();
    manager.shutdown.spawn(async move {
        if let Some(wire) = upgrade.socket_for(MAX_MESSAGE).await {
            serve(&gateway, opener, &place, wire, StreamInfo { request_id, model }, sample_rate).await;
        }
    });
    response
}

fn enter(gateway: &Gateway, request: &Request) -> Result<Admitted, ApiError> {
    let mut offered = websocket::offered(request.headers());
    let scheme = offered
        .next()
        .and_then(|offer| ["token", "bearer"].into_iter().find(|scheme| offer.eq_ignore_ascii_case(scheme)));
    let token = bearer_or_key(request.headers()).or_else(|| scheme.and_then(|_| offered.next()));
    let checked = gateway.authority.clock().unix();
    let opener = OpeningToken::new(authorise(gateway, request, token, Scope::Tts)?, checked);
    gateway.authority.afford(&opener.identity, Amount::text(1)).map_err(exhausted)?;
    let query = request.uri().query().unwrap_or_default();
    let bad = |error: &dyn std::fmt::Display| ApiError::bad_request(400, error.to_string());
    let (model, sample_rate) = Parameters::parse_live(query).map_err(|error| bad(&error))?;
    voice_named(&gateway.voices, &model, "en").map_err(|error| bad(&error))?;
    cors::admit(request.headers(), &gateway.options.cors_origins)?;
    websocket::check(request.headers())?;
    let place = gateway.sessions.place_for_socket(&opener.identity)?;
    Ok(Admitted { opener: Arc::new(opener), place, subprotocol: scheme, model, sample_rate })
}

/// Reason why a socket is closed before its end.
enum Failure {
    Live(LiveEnd),
    Speech(ApiError),
    Displaced,
}

impl From<LiveEnd> for Failure {
    fn from(end: LiveEnd) -> Failure {
        Failure::Live(end)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Failure {
        Failure::Speech(error)
    }
}

async fn serve(
    gateway: &Arc<Gateway>,
    opener: Arc<OpeningToken>,
    place: &PendingPlace,
    wire: Socket,
    info: StreamInfo,
    sample_rate: u32,
) {
    let manager = gateway.sessions.clone();
    let mut talk = Talk {
        gateway,
        socket: LiveSocket::new(&manager, opener.clone(), API, wire, None),
        opener,
        info,
        sample_rate,
        text: SpokenText::default(),
        speech: None,
        is_closing: false,
        is_draining: false,
    };
    let end = talk.run(place).await;
    let (code, reason) = match end {
        Ok(()) if talk.is_draining => (close::GOING_AWAY, LiveEnd::Stopping.to_string()),
        Ok(()) => (close::NORMAL, String::new()),
        Err(Failure::Live(end)) => (close_code(&end), end.to_string()),
        Err(Failure::Displaced) => (close::TRY_LATER, "the place of this socket is needed".to_owned()),
        Err(Failure::Speech(error)) => {
            let code = match error.status {
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => close::TRY_LATER,
                status if status.is_server_error() => close::SERVER_FAULT,
                _ => close::POLICY,
            };
            (code, error.message)
        }
    };
    tracing::debug!(code, reason, "socket ended");
    talk.socket.close(code, &reason).await;
}

/// A socket and its speech.
struct Talk<'a> {
    gateway: &'a Arc<Gateway>,
    socket: LiveSocket<'a>,
    opener: Arc<OpeningToken>,
    info: StreamInfo,
    sample_rate: u32,
    text: SpokenText,
    speech: Option<Speech>,
    /// True if no more text will come.
    is_closing: bool,
    is_draining: bool,
}

impl Talk<'_> {
    async fn run(&mut self, place: &PendingPlace) -> Result<(), Failure> {
        self.socket.send(&json!({
            "type": "Metadata",
            "request_id": self.info.request_id,
            "model_name": self.info.model,
            "model_version": env!("CARGO_PKG_VERSION"),
            "model_uuid": self.info.model_uuid(),
        }));
        let displaced = place.displacement();
        let draining = self.gateway.sessions.shutdown.draining.clone();
        loop {
            // A socket whose text is spoken has nothing to wait for when the gateway stops.
            let is_idle = self.speech.is_none() && self.text.is_empty() && !self.is_draining;
            let reads = !self.is_closing && self.text.has_room();
            let input = tokio::select! {
                input = self.socket.next(&mut [], reads) => Some(input?),
                // A socket that is speaking is in use.
                () = displaced.cancelled(), if self.speech.is_none() => return Err(Failure::Displaced),
                () = draining.cancelled(), if is_idle => Some(LiveInput::Drain),
                piece = next_piece(&mut self.speech), if self.speech.is_some() => {
                    match piece.transpose()? {
                        Some(pcm) => self.is_draining |= self.socket.send_audio(pcm).await?,
                        None => self.speech = None,
                    }
                    None
                }
            };
            match input {
                Some(LiveInput::Text(text)) => self.take(&text),
                Some(LiveInput::Audio(_)) => self.warn("BINARY", "messages are texts here"),
                Some(LiveInput::Drain) => self.is_draining = true,
                Some(LiveInput::Event(..) | LiveInput::Idle) | None => {}
            }
            if self.is_draining && !self.is_closing {
                self.close();
            }
            if self.go_on()? && self.is_closing {
                return Ok(());
            }
        }
    }

    fn take(&mut self, message: &str) {
        match serde_json::from_str(message) {
            Ok(Message::Speak { text }) => self.text.add(&text),
            Ok(Message::Flush) => self.text.flush(),
            Ok(Message::Clear) => {
                self.speech = None;
                let number = self.text.clear();
                self.socket.send(&json!({ "type": "Cleared", "sequence_id": number }));
            }
            Ok(Message::Close) => self.close(),
            Err(error) => self.warn("SCHEMA", &format!("message can't be read: {error}")),
        }
    }

    /// Ends the text. What came is still spoken.
    fn close(&mut self) {
        self.is_closing = true;
        self.text.flush();
    }

    fn warn(&mut self, code: &str, description: &str) {
        let warning: Value = json!({ "type": "Warning", "code": code, "description": description });
        self.socket.send(&warning);
    }

    /// Starts to speak what can be spoken. Returns whether there is nothing left to speak.
    fn go_on(&mut self) -> Result<bool, Failure> {
        while self.speech.is_none() {
            match self.text.take() {
                None => return Ok(true),
                Some(Part::Text(text)) => self.speech = Some(self.speak(text)?),
                Some(Part::Flushed(number)) => {
                    self.socket.send(&json!({ "type": "Flushed", "sequence_id": number }));
                }
            }
        }
        Ok(false)
    }

    fn speak(&self, text: String) -> Result<Speech, ApiError> {
        let voice = voice_named(&self.gateway.voices, &self.info.model, language_of(&text));
        let voice: Arc<dyn Voice> = voice.map_err(|error| ApiError::bad_request(400, error.to_string()))?;
        let format = Format::PcmLittleEndian(self.sample_rate);
        let (characters, bytes) = (text.chars().count(), text.len());
        let synthesis = Synthesis { voice, text, tempo: 1.0, format, characters, bytes };
        let (gateway, opener) = (self.gateway.clone(), self.opener.clone());
        let speech = async move {
            let speech = gateway.speak(API, Some(&opener.identity), synthesis).await?;
            Ok::<_, ApiError>(speech.map_err(|error| ApiError::internal(&chain(&error))))
        };
        Ok(speech.try_flatten_stream().boxed())
    }
}

/// Waits for the next piece of a speech. Cancel safe.
async fn next_piece(speech: &mut Option<Speech>) -> Option<Result<Bytes, ApiError>> {
    speech.as_mut()?.next().await
}
