//! `GET /metrics`: the metrics of the gateway.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};

use crate::gateway::Gateway;
use crate::http::error::ApiError;
use crate::metrics::{CONTENT_TYPE, Gauges};

pub(crate) const PATH: &str = "/metrics";

/// Answers with all metrics.
pub(crate) async fn report(State(gateway): State<Arc<Gateway>>) -> Response {
    let sessions = &gateway.sessions;
    let gauges = Gauges {
        sessions: sessions.registry.count(),
        waiting: sessions.registry.waiting(),
        lateness: sessions.scheduler.lateness(),
    };
    match gateway.metrics.text(&gauges) {
        Ok(text) => {
            let mut response = Response::new(Body::from(text));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
            response
        }
        Err(error) => ApiError::internal(&error).into_response(),
    }
}
