//! Deepgram's API: recognition of live audio and recordings at `/v1/listen`, speech at `/v1/speak`, and the
//! status of a self-hosted service.
//!
//! - `query`, `parameters`: the query of a request, read.
//! - `live`: the server half of live audio; `input` decodes it, and `channel` translates its results.
//! - `prerecorded`: the handler of recordings; `transcript` writes the result.
//! - `callback`: results that are sent to an address of the client's.
//! - `speak`: synthesis; `speak_live`: the same by WebSocket, and `spoken_text` is the text of it.
//! - `grant`: short-lived keys.
//! - `messages`: messages, and what results have in common.
//! - `error`: errors in the shape of Deepgram.

mod callback;
mod channel;
mod error;
mod grant;
mod input;
mod live;
pub(crate) mod messages;
pub(crate) mod parameters;
pub(crate) mod prerecorded;
mod query;
pub(crate) mod speak;
mod speak_live;
mod spoken_text;
mod status;
mod transcript;

use axum::routing::{get, post};

use super::Routes;
use crate::options::Dialect;

/// Label of the dialect in the metrics.
const API: &str = Dialect::Deepgram.name();

/// Returns the routes of the dialect.
pub(super) fn routes() -> Routes {
    Routes {
        guarded: vec![
            ("/v1/listen", get(live::upgrade).post(prerecorded::transcribe)),
            ("/v1/speak", get(speak_live::upgrade).post(speak::speak)),
            ("/v1/auth/grant", post(grant::grant)),
        ],
        open: vec![("/v1/status", get(status::health)), ("/v1/status/engine", get(status::engine))],
        reshape: Some(error::reshape),
        ..Routes::default()
    }
}
