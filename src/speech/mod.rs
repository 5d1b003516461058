//! Text to audio: the client of `/tts`.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE};

use crate::auth::{AccessToken, AuthError, TokenProvider};
use crate::net::{Endpoint, read_answer, reason};
use crate::recovery::{Recovery, retry_after};

/// The path of synthesis.
pub const PATH: &str = "/tts";

/// The service's PCM: headerless, 24 kHz, mono, 16-bit big-endian.
pub(crate) const PCM_RATE: u32 = 24_000;
/// The longest refusal that is read.
const MAX_MESSAGE: usize = 64 * 1024;
/// How long the first sentence may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How to say it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpeechOptions {
    /// The voice's name; the service's default where absent.
    pub voice: Option<String>,
    /// The speed, 1.0 as the voice was made.
    pub tempo: Option<f32>,
}

/// Why there is no speech, or not all of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpeechError {
    /// No token.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The service could not be reached, or not kept.
    #[error("{endpoint}: {reason}")]
    Unreachable {
        /// Its address.
        endpoint: String,
        /// What happened.
        reason: String,
    },
    /// The service said no.
    #[error("{endpoint} refused to speak (status {status}): {reason}")]
    Refused {
        /// Its address.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// What it said about it.
        reason: String,
        /// What to do about it.
        recovery: Recovery,
    },
}

/// Speaks by a service's voice.
#[derive(Debug)]
pub struct SpeechClient<'a> {
    http: reqwest::Client,
    endpoint: Endpoint,
    tokens: &'a TokenProvider,
}

impl<'a> SpeechClient<'a> {
    /// A client of the service at `endpoint`, with tokens from `tokens`.
    #[must_use]
    pub fn new(http: reqwest::Client, endpoint: Endpoint, tokens: &'a TokenProvider) -> SpeechClient<'a> {
        SpeechClient { http, endpoint, tokens }
    }

    /// Has `text` spoken. Returns once the first audio is there; the rest comes while it is synthesised. A token that
    /// the service refuses is replaced once.
    ///
    /// # Errors
    /// See [`SpeechError`].
    pub async fn speak(&self, text: &str, options: &SpeechOptions) -> Result<PcmStream, SpeechError> {
        let token = self.tokens.token().await?;
        match self.ask(text, options, &token).await {
            Err(SpeechError::Refused { recovery: Recovery::RefreshToken, .. }) => {
                let token = self.tokens.newer_than(token.generation()).await?;
                self.ask(text, options, &token).await
            }
            answer => answer,
        }
    }

    async fn ask(
        &self,
        text: &str,
        options: &SpeechOptions,
        token: &AccessToken,
    ) -> Result<PcmStream, SpeechError> {
        let mut url = self.endpoint.url(PATH);
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("encoder", "pcm");
            if let Some(voice) = &options.voice {
                query.append_pair("model_name", voice);
            }
            if let Some(tempo) = options.tempo {
                query.append_pair("tempo", &tempo.to_string());
            }
        }
        let request = self
            .http
            .post(url)
            .header(AUTHORIZATION, token.bearer())
            .header(CONTENT_TYPE, "text/plain; charset=utf-8")
            .body(text.to_owned());
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, request.send()).await;
        let answer = answer.map_err(|_| self.unreachable("no answer in time"))?;
        let response = answer.map_err(|error| self.unreachable(&reason(&error)))?;
        if !response.status().is_success() {
            return Err(self.refused(response, token).await);
        }
        Ok(PcmStream { endpoint: self.endpoint.clone(), body: response.bytes_stream().boxed(), half: None })
    }

    fn unreachable(&self, reason: &str) -> SpeechError {
        SpeechError::Unreachable { endpoint: self.endpoint.to_string(), reason: reason.to_owned() }
    }

    async fn refused(&self, response: reqwest::Response, token: &AccessToken) -> SpeechError {
        let status = response.status();
        let recovery = Recovery::from_status(status, retry_after(response.headers()));
        let reason = match status {
            StatusCode::UNAUTHORIZED => "access token not accepted".to_owned(),
            _ => message(response, token).await.unwrap_or_else(|| "no reason given".to_owned()),
        };
        SpeechError::Refused {
            endpoint: self.endpoint.to_string(),
            status: status.as_u16(),
            reason,
            recovery,
        }
    }
}

/// The message in an error's body, where it has one of ours; cut to a line. One that repeats our token is none.
async fn message(mut response: reqwest::Response, token: &AccessToken) -> Option<String> {
    let body = read_answer(&mut response, MAX_MESSAGE).await.ok()?;
    let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
    let message = body.get("error")?.get("message")?.as_str()?;
    if message.contains(token.expose()) {
        return None;
    }
    Some(message.chars().filter(|c| !c.is_control()).take(200).collect())
}

/// Speech as it arrives: mono PCM.
pub struct PcmStream {
    endpoint: Endpoint,
    body: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    /// The first byte of a sample whose second has not come.
    half: Option<u8>,
}

impl PcmStream {
    /// Frames per second.
    #[must_use]
    pub fn sample_rate(&self) -> u32 {
        PCM_RATE
    }

    /// The next samples; `None` at the end. May be dropped at any time without losing any.
    ///
    /// # Errors
    /// [`SpeechError::Unreachable`] where the connection is lost: what came before is all there is.
    pub async fn next(&mut self) -> Result<Option<Vec<i16>>, SpeechError> {
        let lost = |_| SpeechError::Unreachable {
            endpoint: self.endpoint.to_string(),
            reason: "speech broke off".to_owned(),
        };
        let Some(part) = self.body.next().await.transpose().map_err(lost)? else { return Ok(None) };
        let mut samples = Vec::with_capacity(part.len() / 2 + 1);
        for byte in part {
            match self.half.take() {
                None => self.half = Some(byte),
                Some(first) => samples.push(i16::from_be_bytes([first, byte])),
            }
        }
        Ok(Some(samples))
    }
}
