//! Answers of server-sent events (HTML Standard, section 9.2): one JSON object in each event.

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::{HeaderName, HeaderValue, header};
use serde_json::Value;

/// Comment that keeps proxies from closing a connection without events.
pub(crate) const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// Returns an event with `data`.
pub(crate) fn event(data: &Value) -> Bytes {
    // JSON has no line break outside of strings, where it is escaped.
    format!("data: {data}\n\n").into()
}

/// Returns the answer whose body is a stream of events.
pub(crate) fn response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would gather the events otherwise.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}
