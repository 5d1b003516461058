//! The Realtime API: the events of the client on a socket.

use std::fs;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::types::realtime::{
    AudioInput, AudioTranscription, ClientSecretExpiration, RealtimeAudioFormats,
    RealtimeClientEventInputAudioBufferAppend, RealtimeClientEventInputAudioBufferClear,
    RealtimeClientEventInputAudioBufferCommit, RealtimeClientEventSessionUpdate,
    RealtimeCreateClientSecretRequest, RealtimeServerEvent, RealtimeTranscriptionSession,
    RealtimeTurnDetection, Session, TranscriptionAudio,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json, to_value};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{Calls, failure};
use crate::Outcome;

/// Size of a tenth of a second.
const PIECE: usize = 4_800;
const COMPLETED: &str = "conversation.item.input_audio_transcription.completed";

impl Calls<'_> {
    /// Sends two utterances by a short-lived key: the first is committed, the end of the second is detected.
    pub(super) async fn realtime(&self) -> Outcome<Value> {
        let expires_after = ClientSecretExpiration { anchor: Some("created_at".to_owned()), seconds: 60 };
        let request =
            RealtimeCreateClientSecretRequest { session: session(None), expires_after: Some(expires_after) };
        let secret = self.client.realtime().create_client_secret(request).await?;
        let mut socket = Socket::connect(self.gateway, &secret.value).await?;
        let [first, second] = [fs::read(self.utterances[0])?, fs::read(self.utterances[1])?];
        socket.append(&first).await?;
        let commit = |id: &str| RealtimeClientEventInputAudioBufferCommit { event_id: Some(id.to_owned()) };
        socket.say(commit("whole")).await?;
        socket.until(COMPLETED).await?;
        socket.say(commit("empty")).await?;
        socket.until("error").await?;
        let detection = RealtimeTurnDetection::ServerVAD {
            create_response: None,
            idle_timeout_ms: None,
            interrupt_response: None,
            prefix_padding_ms: 300,
            silence_duration_ms: 500,
            threshold: 0.5,
        };
        let update = RealtimeClientEventSessionUpdate { event_id: None, session: session(Some(detection)) };
        socket.say(update).await?;
        socket.until("session.updated").await?;
        socket.append(&[second, vec![0; 20 * PIECE]].concat()).await?;
        socket.until(COMPLETED).await?;
        socket.append(&first).await?;
        socket.say(RealtimeClientEventInputAudioBufferClear::default()).await?;
        socket.until("input_audio_buffer.cleared").await?;
        let page =
            OpenAIConfig::new().with_api_base(format!("{}/v1", self.gateway)).with_api_key(&secret.value);
        Ok(json!({
            "secret": { "value": secret.value, "session": to_value(secret.session)? },
            "events": socket.events,
            "refusal": failure(Client::with_config(page).models().list().await),
        }))
    }
}

fn session(turn_detection: Option<RealtimeTurnDetection>) -> Session {
    let transcription = AudioTranscription {
        model: Some("gpt-4o-transcribe".to_owned()),
        language: Some("en".to_owned()),
        ..AudioTranscription::default()
    };
    let input = AudioInput {
        format: RealtimeAudioFormats::PCMAudioFormat { rate: 24_000 },
        noise_reduction: None,
        transcription: Some(transcription),
        turn_detection,
    };
    let audio = TranscriptionAudio { input };
    let session = RealtimeTranscriptionSession { id: None, expires_at: None, audio, include: None };
    Session::RealtimeTranscriptionSession(Box::new(session))
}

/// A socket, and the events of the server so far.
struct Socket {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    events: Vec<Value>,
}

impl Socket {
    async fn connect(gateway: &str, key: &str) -> Outcome<Socket> {
        let address = format!("{}/v1/realtime?intent=transcription", gateway.replacen("http", "ws", 1));
        let mut request = address.into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse()?);
        Ok(Socket { socket: connect_async(request).await?.0, events: Vec::new() })
    }

    async fn say(&mut self, event: impl Into<Message>) -> Outcome<()> {
        Ok(self.socket.send(event.into()).await?)
    }

    async fn append(&mut self, pcm: &[u8]) -> Outcome<()> {
        for piece in pcm.chunks(PIECE) {
            let audio = STANDARD.encode(piece);
            self.say(RealtimeClientEventInputAudioBufferAppend { event_id: None, audio }).await?;
        }
        Ok(())
    }

    /// Reads until an event of this type. Each has to have the fields that the client's types have.
    async fn until(&mut self, kind: &str) -> Outcome<()> {
        loop {
            let message = self.socket.next().await.ok_or("the gateway closed")??;
            let Message::Text(text) = message else { continue };
            let told: Value = serde_json::from_str(&text)?;
            let event = match told["type"].as_str() {
                // The client's type of an item has its audio, which OpenAI leaves out.
                Some("conversation.item.added" | "conversation.item.done") => told,
                _ => {
                    let event: RealtimeServerEvent =
                        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
                    to_value(event)?
                }
            };
            let is_awaited = event["type"] == kind;
            self.events.push(event);
            if is_awaited {
                return Ok(());
            }
        }
    }
}
