//! Deepgram's live recognition, at `/v1/listen`: audio in binary messages, results in JSON. And the status of
//! a self-hosted service.

mod channel;
mod error;
mod input;
mod live;
pub(crate) mod messages;
pub(crate) mod parameters;
mod status;

use axum::routing::get;

use crate::gateway::Route;

/// Returns the routes that need a token.
pub(super) fn routes() -> Vec<Route> {
    vec![("/v1/listen", get(live::upgrade))]
}

/// Returns the routes that every client may use.
pub(super) fn open_routes() -> Vec<Route> {
    vec![("/v1/status", get(status::health)), ("/v1/status/engine", get(status::engine))]
}
