//! `POST /tts_demo` and `POST /asr_demo`: the endpoints of the service's web page, which need no token.
//! They are off unless [`Options::demo`](crate::Options::demo) is set.
//!
//! Use of the demo is not charged. The demo has its own capacity, so that no client with a token waits for
//! clients without.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};

use super::asr;
use super::tts;
use crate::gateway::Gateway;
use crate::http::error::ApiError;

/// Longest recording.
const MAX_DURATION: Duration = Duration::from_secs(120);

pub(crate) async fn speak(
    State(gateway): State<Arc<Gateway>>,
    query: tts::QueryResult,
    request: Request,
) -> Response {
    let answer = async move {
        let Query(mut parameters) = query?;
        let patience = gateway.options.connections.body_timeout;
        let text = tts::read_text(request, &tts::DEMO, patience, &mut parameters).await?;
        tts::speak(&gateway, None, &tts::DEMO, &parameters, unquoted(&text)).await
    };
    answer.await.unwrap_or_else(ApiError::into_response)
}

pub(crate) async fn recognise(
    State(gateway): State<Arc<Gateway>>,
    query: Result<Query<asr::Parameters>, QueryRejection>,
    request: Request,
) -> Response {
    asr::answer(gateway, Ok(None), MAX_DURATION, query, request).await
}

/// Removes the double quotes in which some clients send the text.
fn unquoted(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_around_a_text_are_removed() {
        for (text, expected) in
            [("\"a\"\n", "a"), ("a", "a"), ("\"a", "\"a"), ("\"", "\""), ("\"\"", ""), ("a \"b\"", "a \"b\"")]
        {
            assert_eq!(unquoted(text), expected);
        }
    }
}
