//! Metrics of requests: their number, by path, method and status.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::request_log::method_name;
use crate::metrics::Metrics;

/// Middleware around all routes: counts requests and the status of their answers.
pub(crate) async fn count(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let method = method_name(request.method()).to_owned();
    let response = next.run(request).await;
    metrics.count_request(path, method, response.status().as_str().to_owned());
    response
}
