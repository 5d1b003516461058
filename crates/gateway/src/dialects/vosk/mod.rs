//! Vosk's WebSocket protocol (alphacep/vosk-server), at `/vosk`: PCM in binary messages, each answered by
//! exactly one JSON object. Clients without a token have a listener of their own.

pub(crate) mod messages;
mod server;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use super::Routes;
use crate::gateway::Gateway;

/// Returns the routes of the dialect.
pub(super) fn routes() -> Routes {
    Routes { guarded: vec![("/vosk", get(server::upgrade))], ..Routes::default() }
}

/// Returns the router of a listener for clients without a token, who connect to any path.
pub(crate) fn open_router() -> Router<Arc<Gateway>> {
    Router::new().fallback(server::upgrade_open)
}
