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

use super::Routes;
use crate::options::Dialect;

/// Label of the dialect in the metrics.
const API: &str = Dialect::Deepgram.name();

/// Returns the routes of the dialect.
pub(super) fn routes() -> Routes {
    Routes {
        guarded: vec![("/v1/listen", get(live::upgrade))],
        open: vec![("/v1/status", get(status::health)), ("/v1/status/engine", get(status::engine))],
        reshape: Some(error::reshape),
        ..Routes::default()
    }
}
