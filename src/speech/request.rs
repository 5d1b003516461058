//! One synthesis request, and its response.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::timeout;

use super::{Codec, Interruption, SpeechError, SpeechOptions};
use crate::auth::{AccessToken, TokenProvider};
use crate::net::refusal::Refusal;
use crate::net::{Endpoint, HttpClient, RequestError, Response, query};
use crate::protocol::tts::PATH;
use crate::recovery::{Recovery, retry_after};

/// Largest error body that is read, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;

/// The synthesis service: its address, and the means to reach it.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) http: HttpClient,
    pub(super) endpoint: Endpoint,
    pub(super) tokens: TokenProvider,
}

impl Service {
    /// Requests `text`. Returns once the service starts to respond.
    pub(super) async fn request(
        &self,
        text: &str,
        codec: Option<Codec>,
        options: &SpeechOptions,
        token: &AccessToken,
    ) -> Result<SpeechResponse<'_>, SpeechError> {
        let tempo = options.tempo.map(|tempo| tempo.to_string());
        let parameters = [
            ("encoder", Some(codec.map_or("pcm", Codec::name))),
            ("model_name", options.voice.as_deref()),
            ("tempo", tempo.as_deref()),
        ];
        let parameters = parameters.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let path = format!("{PATH}{}", query(parameters));
        let headers = [
            (AUTHORIZATION, token.bearer()),
            (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        ];
        let posted = self.http.post(&self.endpoint, &path, headers, text.to_owned().into());
        let answer = timeout(options.stall_timeout, posted).await;
        let answer = answer.map_err(|_| self.interrupted(RequestError::TimedOut))?;
        let response = answer.map_err(|error| self.interrupted(error.reason))?;
        if !response.status.is_success() {
            return Err(self.refused(response, token, options.stall_timeout).await);
        }
        if is_text(&response.headers) {
            return Err(SpeechError::InvalidResponse { endpoint: self.endpoint.to_string(), what: "text" });
        }
        Ok(SpeechResponse { service: self, response, stall_timeout: options.stall_timeout })
    }

    /// Returns the error of a request without a response, or without all of it.
    pub(super) fn interrupted(&self, source: impl Into<Interruption>) -> SpeechError {
        let source = source.into();
        let recovery = match &source {
            // Retrying does not fix a certificate.
            Interruption::Request(error) if error.is_tls() => Recovery::Fatal,
            _ => Recovery::Retry,
        };
        SpeechError::Unreachable { endpoint: self.endpoint.to_string(), recovery, source }
    }

    async fn refused(
        &self,
        mut response: Response,
        token: &AccessToken,
        stall_timeout: Duration,
    ) -> SpeechError {
        let status = response.status;
        let recovery = Recovery::from_status(status, retry_after(&response.headers));
        // If the body does not arrive, the status says enough.
        let body = timeout(stall_timeout, response.read(MAX_MESSAGE)).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        let refusal = Refusal::parse(&body, &[token.expose()]);
        let recovery = match status {
            StatusCode::BAD_REQUEST if refusal.is_of_token() => Recovery::RefreshToken,
            _ => recovery,
        };
        let default_reason = match recovery {
            Recovery::RefreshToken => "access token not accepted",
            _ => "no reason given",
        };
        SpeechError::Refused {
            endpoint: self.endpoint.to_string(),
            status: status.as_u16(),
            code: refusal.code,
            reason: refusal.message.unwrap_or_else(|| default_reason.to_owned()),
            recovery,
        }
    }
}

/// A response of the service, whose speech is arriving.
pub(super) struct SpeechResponse<'a> {
    service: &'a Service,
    response: Response,
    stall_timeout: Duration,
}

impl SpeechResponse<'_> {
    /// Returns the next bytes, or `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, SpeechError> {
        match timeout(self.stall_timeout, self.response.chunk()).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => Err(self.service.interrupted(Interruption::BrokenOff(Some(error.reason)))),
            Err(_) => Err(self.service.interrupted(Interruption::Stalled)),
        }
    }
}

/// Returns whether the content type is text for people or programs. The content type of audio is not
/// documented.
fn is_text(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|name| {
        let name = name.to_ascii_lowercase();
        let kind = name.split(';').next().unwrap_or_default().trim();
        let program = kind.starts_with("application/") && (kind.ends_with("json") || kind.ends_with("xml"));
        program || kind.starts_with("text/")
    })
}
