//! Status data of the console: the load of the gateway, and the sessions, tokens and usage of the caller's
//! project.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::admission::reject::RejectReason;
use crate::authority::{Authority, AuthorityError, Identity, to_rfc3339};
use crate::dialects;
use crate::gateway::Gateway;
use crate::http::client::{bearer, peer};
use crate::http::error::{ApiError, json_response};
use crate::http::request_log;
use crate::options::Dialect;
use crate::sessions::session::Session;

/// Answers `GET /console/status`, with a token of any scope: the load and the dialects of the whole gateway,
/// and the sessions, tokens and usage of the token's project. The page shows every entry of `load`.
pub(crate) async fn status(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let identity = match identify(&gateway, &request) {
        Ok(identity) => identity,
        Err(refusal) => return refusal.into_response(),
    };
    // The description reads the store, which may block.
    let describing = request_log::spawn_blocking(move || describe(&gateway, &identity));
    match describing.await {
        Ok(Ok(status)) => fresh(&status),
        Ok(Err(error)) => ApiError::from(error).into_response(),
        Err(panic) => ApiError::internal(&panic).into_response(),
    }
}

/// Answers `GET /console/voices`, with a token of any scope: the available voices, the best of each
/// language first.
pub(crate) async fn voices(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    if let Err(refusal) = identify(&gateway, &request) {
        return refusal.into_response();
    }
    let voices = gateway.voices.list().into_iter().map(|voice| {
        json!({
            "name": voice.name,
            "language": voice.language,
            "quality": voice.quality.to_string(),
            "license": voice.license,
            "speakers": voice.speakers,
        })
    });
    fresh(&json!({ "voices": voices.collect::<Vec<_>>() }))
}

/// Returns the identity behind the request's token. Looking at the console doesn't count as use of the
/// token: see [`Authority::admit`].
fn identify(gateway: &Gateway, request: &Request) -> Result<Identity, ApiError> {
    let admit = |token: &str| gateway.authority.admit(token, peer(request));
    gateway.identify(request, bearer(request.headers()), admit)
}

/// Returns an answer that must not be cached.
fn fresh(body: &Value) -> Response {
    let mut response = json_response(StatusCode::OK, body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn describe(gateway: &Gateway, identity: &Identity) -> Result<Value, AuthorityError> {
    let authority = &gateway.authority;
    let name = authority.project_name(&identity.project)?;
    let options = &gateway.options;
    let mut sessions = gateway.sessions.registry.of(&identity.project);
    sessions.sort_by(|one, other| one.name().cmp(other.name()));
    let busy = options.max_requests.saturating_sub(gateway.authenticated.places.available_permits());
    let uptime = authority.clock().monotonic().saturating_sub(gateway.started);
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": uptime.as_secs(),
        "now": to_rfc3339(u64::try_from(authority.clock().unix().as_millis()).unwrap_or(u64::MAX)),
        "state": gateway.sessions.room_for_session().map_or_else(RejectReason::name, |()| "ready"),
        "recognizer": gateway.recognizer_name(),
        "dialects": options.dialects.iter().map(|dialect| dialect_entry(*dialect)).collect::<Vec<_>>(),
        "load": [
            { "what": "sessions", "now": gateway.sessions.registry.count(), "limit": options.max_sessions },
            { "what": "requests", "now": busy, "limit": options.max_requests },
            { "what": "longest wait for a recognition thread, in seconds", "now": gateway.sessions.scheduler.lateness().as_secs_f64() },
        ],
        "token": {
            "id": identity.token,
            "scopes": identity.terms.scopes,
            "expires_in_seconds": identity.expires_in.map(|left| left.as_secs()),
        },
        "project": {
            "name": name,
            "sessions": sessions.iter().map(|session| progress(session)).collect::<Vec<_>>(),
            "usage": authority.usage(Some(&name))?,
            "tokens": tokens(authority, &name)?,
        },
    }))
}

/// Returns a dialect with its paths.
fn dialect_entry(dialect: Dialect) -> Value {
    json!({ "name": dialect.name(), "paths": dialects::paths(dialect) })
}

/// Returns the tokens that a project may see: granted tokens, then service tokens, each the oldest first.
/// The terms of a service token are left out, since they concern only its holder.
fn tokens(authority: &Authority, project: &str) -> Result<Vec<Value>, AuthorityError> {
    let shown = |id: String, kind: &str, created: u64, expires: Option<u64>| {
        let (created, expires) = (to_rfc3339(created), expires.map(to_rfc3339));
        json!({ "id": id, "kind": kind, "created": created, "expires": expires })
    };
    let granted = authority.tokens(Some(project))?.into_iter().map(|token| {
        let kind = if token.refresh_token.is_some() { "access" } else { "refresh" };
        shown(token.id, kind, token.created, token.expires)
    });
    let services = authority.service_tokens(Some(project))?.into_iter();
    let services = services.map(|token| shown(token.id, "service", token.created, token.expires));
    Ok(granted.chain(services).collect())
}

/// Returns the progress of a session. The session's name gives no access, since a resume needs its key,
/// too.
fn progress(session: &Session) -> Value {
    let state = session.state().lock();
    json!({
        "session": session.name(),
        "holder": session.holder(),
        "sample_rate": session.sample_rate(),
        "received": state.input.received,
        "final": state.results.final_,
        "finals": state.results.count(),
    })
}
