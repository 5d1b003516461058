//! `POST /v1/auth/grant`: a short-lived key for a browser.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::{self, REQUEST_ID};
use super::messages::request_id;
use crate::authority::Scope;
use crate::dialects::texts;
use crate::gateway::Gateway;
use crate::http::client::{bearer_or_key, peer};
use crate::http::error::{ApiError, json_response};

/// Lifetimes that a client may choose, in seconds, and the one of a client that chooses none, as documented.
const LIFETIMES: std::ops::RangeInclusive<f64> = 1.0..=3_600.0;
const LIFETIME: f64 = 30.0;

/// Body of a request.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    /// Clients declare it as a floating-point number.
    ttl_seconds: Option<f64>,
}

pub(super) async fn grant(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let request_id = request_id();
    match granted(&gateway, request).await {
        Ok(answer) => {
            let mut response = json_response(StatusCode::OK, &answer);
            let id = HeaderValue::try_from(request_id).expect("a UUID fits a header");
            response.headers_mut().insert(REQUEST_ID, id);
            response
        }
        Err(refusal) => error::answer(refusal, &request_id),
    }
}

async fn granted(gateway: &Gateway, request: Request) -> Result<Value, ApiError> {
    let authorise = |token: &str| gateway.authority.authorise(token, Scope::AsrStream, peer(&request));
    let identity = gateway.identify(&request, bearer_or_key(request.headers()), authorise)?;
    let peer = peer(&request);
    let Body { ttl_seconds } = texts::read_optional(gateway, request).await?;
    let seconds = ttl_seconds.unwrap_or(LIFETIME);
    if !LIFETIMES.contains(&seconds) {
        let message = format!("ttl_seconds is not between {} and {}", LIFETIMES.start(), LIFETIMES.end());
        return Err(ApiError::bad_request(400, message));
    }
    let lifetime = Duration::from_secs_f64(seconds);
    let made = gateway.authority.make_short_lived(&identity, lifetime, "", peer)?;
    // It ends with its token, if that is sooner.
    let left = identity.expires_in.map_or(lifetime, |left| left.min(lifetime));
    Ok(json!({ "access_token": made.key.expose_secret(), "expires_in": left.as_secs() }))
}
