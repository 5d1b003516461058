//! One synthesis request, and its response.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use tokio::time::timeout;

use super::{Codec, PATH, SpeechError, SpeechOptions};
use crate::auth::{AccessToken, TokenProvider};
use crate::net::refusal::Refusal;
use crate::net::{Endpoint, objection, read_answer, reason};
use crate::recovery::{Recovery, retry_after};

/// Largest error body that is read, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;

/// The synthesis service: its address, and the means to reach it.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) http: reqwest::Client,
    pub(super) endpoint: Endpoint,
    pub(super) tokens: TokenProvider,
}

impl Service {
    /// Requests `text`. Returns once the service starts to respond.
    pub(super) async fn ask(
        &self,
        text: &str,
        codec: Option<Codec>,
        options: &SpeechOptions,
        token: &AccessToken,
    ) -> Result<Answer<'_>, SpeechError> {
        let mut url = self.endpoint.url(PATH);
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("encoder", codec.map_or("pcm", Codec::name));
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
        let answer = timeout(options.patience, request.send()).await;
        let answer = answer.map_err(|_| self.lost("no answer in time"))?;
        let response = answer.map_err(|error| self.unreachable(&error))?;
        if !response.status().is_success() {
            return Err(self.refused(response, token, options.patience).await);
        }
        match is_text(&response) {
            true => Err(SpeechError::Answer { endpoint: self.endpoint.to_string(), what: "text" }),
            false => Ok(Answer { service: self, response, patience: options.patience }),
        }
    }

    /// Returns the error of a lost connection, which is worth a retry.
    pub(super) fn lost(&self, reason: &str) -> SpeechError {
        let (endpoint, reason) = (self.endpoint.to_string(), reason.to_owned());
        SpeechError::Unreachable { endpoint, reason, recovery: Recovery::Retry }
    }

    fn unreachable(&self, error: &reqwest::Error) -> SpeechError {
        // Retrying does not fix a certificate.
        let recovery = match error.is_connect() && objection(error).is_some() {
            true => Recovery::Fatal,
            false => Recovery::Retry,
        };
        SpeechError::Unreachable { endpoint: self.endpoint.to_string(), reason: reason(error), recovery }
    }

    async fn refused(
        &self,
        mut response: reqwest::Response,
        token: &AccessToken,
        patience: Duration,
    ) -> SpeechError {
        let status = response.status();
        let recovery = Recovery::from_status(status, retry_after(response.headers()));
        // If the body does not arrive, the status says enough.
        let body = timeout(patience, read_answer(&mut response, MAX_MESSAGE)).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        let refusal = Refusal::parse(&body, &[token.expose()]);
        let recovery = match status {
            StatusCode::BAD_REQUEST if refusal.is_of_token() => Recovery::RefreshToken,
            _ => recovery,
        };
        let untold = match recovery {
            Recovery::RefreshToken => "access token not accepted",
            _ => "no reason given",
        };
        SpeechError::Refused {
            endpoint: self.endpoint.to_string(),
            status: status.as_u16(),
            code: refusal.code,
            reason: refusal.message.unwrap_or_else(|| untold.to_owned()),
            recovery,
        }
    }
}

/// A response of the service, whose speech is arriving.
pub(super) struct Answer<'a> {
    service: &'a Service,
    response: reqwest::Response,
    patience: Duration,
}

impl Answer<'_> {
    /// Returns the next bytes, or `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, SpeechError> {
        match timeout(self.patience, self.response.chunk()).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(_)) => Err(self.service.lost("speech broke off")),
            Err(_) => Err(self.service.lost("speech stopped")),
        }
    }
}

/// Returns whether the content type is text for people or programs. The content type of audio is not
/// documented.
fn is_text(response: &reqwest::Response) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|name| {
        let name = name.to_ascii_lowercase();
        let kind = name.split(';').next().unwrap_or_default().trim();
        let program = kind.starts_with("application/") && (kind.ends_with("json") || kind.ends_with("xml"));
        program || kind.starts_with("text/")
    })
}
