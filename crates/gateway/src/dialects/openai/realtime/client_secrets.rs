//! `POST /v1/realtime/client_secrets`: a short-lived key for a browser, with the settings of its session.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::error::OpenAiError;
use super::bad_event::BadEvent;
use super::settings::{Generation, Settings};
use crate::authority::{Scope, new_id};
use crate::dialects::texts;
use crate::gateway::Gateway;
use crate::http::client::peer;
use crate::http::error::{ApiError, json_response};

/// Lifetimes that a client may choose, in seconds, and the one of a client that chooses none, as documented.
const LIFETIMES: std::ops::RangeInclusive<u64> = 10..=7_200;
const LIFETIME: u64 = 600;
/// Longest settings in a key, in bytes: the key has to fit a header.
const MAX_SETTINGS: usize = 2_048;

/// Body of a request. Fields that are absent have their defaults.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    expires_after: Option<ExpiresAfter>,
    session: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ExpiresAfter {
    seconds: Option<u64>,
}

pub(in super::super) async fn make(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    match made(&gateway, request).await {
        Ok(answer) => json_response(StatusCode::OK, &answer),
        Err(refusal) => refusal.into_response(),
    }
}

async fn made(gateway: &Gateway, request: Request) -> Result<Value, OpenAiError> {
    let identity = gateway.authorise(&request, Scope::AsrStream)?;
    let peer = peer(&request);
    let Body { expires_after, session } = texts::read_optional(gateway, request).await?;
    let seconds = expires_after.and_then(|after| after.seconds).unwrap_or(LIFETIME);
    if !LIFETIMES.contains(&seconds) {
        let message =
            format!("expires_after.seconds is not between {} and {}", LIFETIMES.start(), LIFETIMES.end());
        return Err(OpenAiError::invalid("expires_after.seconds", message));
    }
    let (settings, signed) = match session {
        Some(session) => (with_session(&session)?, session.to_string()),
        None => (Settings::default(), String::new()),
    };
    if signed.len() > MAX_SETTINGS {
        let message = format!("session is longer than {MAX_SETTINGS} bytes: send the rest as session.update");
        return Err(OpenAiError::invalid("session", message));
    }
    let lifetime = Duration::from_secs(seconds);
    let made =
        gateway.authority.make_short_lived(&identity, lifetime, &signed, peer).map_err(ApiError::from)?;
    Ok(json!({
        "value": made.key.expose_secret(),
        "expires_at": made.expires_at / 1_000,
        "session": settings.told(&format!("sess_{}", new_id()), Generation::Current),
    }))
}

/// Returns the settings that a key's session begins with.
///
/// # Errors
/// Returns [`OpenAiError`] if the session makes no sense.
pub(super) fn with_session(session: &Value) -> Result<Settings, OpenAiError> {
    let bad = |BadEvent { message, .. }| OpenAiError::invalid("session", message);
    Settings::default().updated(session).map_err(bad)
}
