//! `GET /v1/status` and `GET /v1/status/engine`: the state of a self-hosted service, which needs no token.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use crate::gateway::Gateway;
use crate::http::error::json_response;

/// Reports the health of the gateway and its load. A gateway that takes no stream is in a critical state.
pub(super) async fn health(State(gateway): State<Arc<Gateway>>) -> Response {
    let is_ready = gateway.recognizer().is_ok() && gateway.sessions.room_for_session().is_ok();
    let health = if is_ready { "Healthy" } else { "Critical" };
    report(&gateway, "system_health", health)
}

/// Reports whether there is a recogniser.
pub(super) async fn engine(State(gateway): State<Arc<Gateway>>) -> Response {
    let status = if gateway.recognizer().is_ok() { "Connected" } else { "Disconnected" };
    report(&gateway, "engine_connection_status", status)
}

fn report(gateway: &Gateway, field: &str, value: &str) -> Response {
    let batch = gateway.options.max_requests.saturating_sub(gateway.authenticated.places.available_permits());
    let streams = gateway.sessions.registry.count();
    let body = json!({ field: value, "active_batch_requests": batch, "active_stream_requests": streams });
    json_response(StatusCode::OK, &body)
}
