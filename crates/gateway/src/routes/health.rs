//! `GET /healthz` and `GET /readyz`: the state of the gateway, for those who operate it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use crate::admission::reject::RejectReason;
use crate::authority::AuthorityError;
use crate::gateway::Gateway;
use crate::http::error::{ApiError, BUSY_WAIT, json_response};

/// Reports liveness. The answer is positive also while the gateway drains, when it must not be killed.
pub(crate) async fn liveness(State(gateway): State<Arc<Gateway>>) -> Response {
    let body = json!({
        "status": if gateway.sessions.shutdown.is_draining() { "draining" } else { "ok" },
        "recognizer": gateway.recognizer_name(),
        "sessions": gateway.sessions.registry.count(),
    });
    json_response(StatusCode::OK, &body)
}

/// Reports readiness for a new session, for a load balancer that decides where to send the next one.
pub(crate) async fn readiness(State(gateway): State<Arc<Gateway>>) -> Response {
    if let Some(AuthorityError::Unavailable { reason, wait, .. }) = gateway.authority.outage() {
        let message = format!("the token store is unavailable: {reason}");
        return ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, &message, wait).into_response();
    }
    match gateway.recognizer().and_then(|_| gateway.sessions.room_for_session().map_err(RejectReason::error))
    {
        Ok(()) => json_response(StatusCode::OK, &json!({ "status": "ready" })),
        // Any refusal means that no client should be sent here now.
        Err(refusal) => {
            ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, &refusal.message, BUSY_WAIT).into_response()
        }
    }
}
