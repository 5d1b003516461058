//! Bodies of dialects in JSON: texts that are to be spoken, and requests for keys.

use axum::extract::Request;
use serde::de::DeserializeOwned;

use super::recordings::body_error;
use crate::gateway::Gateway;
use crate::http::body;
use crate::http::error::ApiError;
use voxline::sentences::sentences;

/// Longest text in characters, as of `/tts`.
pub(super) const MAX_CHARACTERS: usize = 20_000;
/// Longest body in bytes: a character takes up to twelve as JSON, and there may be instructions.
const MAX_BODY: usize = 384 * 1024;

/// Takes all but the last sentence of a text, which may go on.
pub(super) fn take_sentences(text: &mut String) -> String {
    let said = text.trim_end();
    let last = sentences(said).last().map_or(0, str::len);
    let rest = text.split_off(said.len() - last);
    std::mem::replace(text, rest)
}

/// Reads the body of a request to speak, whatever its content type says.
///
/// # Errors
/// Returns [`ApiError`] if the body is too large or late, or is no such JSON.
pub(super) async fn read<T: DeserializeOwned>(gateway: &Gateway, request: Request) -> Result<T, ApiError> {
    parsed(&whole(gateway, request).await?)
}

/// Reads a body in JSON that may be left out.
///
/// # Errors
/// Returns [`ApiError`] if the body is too large or late, or is no such JSON.
pub(super) async fn read_optional<T: DeserializeOwned + Default>(
    gateway: &Gateway,
    request: Request,
) -> Result<T, ApiError> {
    let body = whole(gateway, request).await?;
    if body.is_empty() { Ok(T::default()) } else { parsed(&body) }
}

async fn whole(gateway: &Gateway, request: Request) -> Result<Vec<u8>, ApiError> {
    let patience = gateway.options.connections.body_timeout;
    let body = body::read(request.into_body(), MAX_BODY, patience).await;
    body.map_err(|error| body_error(error, MAX_BODY as u64))
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(400, format!("the body can't be read: {error}")))
}
