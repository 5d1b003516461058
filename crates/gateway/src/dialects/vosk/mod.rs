//! Vosk's WebSocket protocol (alphacep/vosk-server), at `/vosk`: PCM in binary messages, each answered by
//! exactly one JSON object.

pub(crate) mod messages;
mod server;

use axum::routing::get;

use super::Routes;

/// Returns the routes of the dialect.
pub(super) fn routes() -> Routes {
    Routes { guarded: vec![("/vosk", get(server::upgrade))], ..Routes::default() }
}
