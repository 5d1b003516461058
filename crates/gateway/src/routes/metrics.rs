//! `GET /metrics`: the metrics of the gateway.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};

use crate::gateway::Gateway;
use crate::http::error::ApiError;
use crate::metrics::{Format, Gauges};

pub(crate) const PATH: &str = "/metrics";

/// Answers with all metrics, in the format that the client prefers.
pub(crate) async fn report(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    let sessions = &gateway.sessions;
    let gauges = Gauges {
        sessions: sessions.registry.count(),
        waiting: sessions.registry.waiting(),
        lateness: sessions.scheduler.lateness(),
    };
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::preferred(accept);
    match gateway.metrics.text(&gauges, format) {
        Ok(text) => {
            let mut response = Response::new(Body::from(text));
            let content_type = HeaderValue::from_static(format.content_type());
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
            response
        }
        Err(error) => ApiError::internal(&error).into_response(),
    }
}
