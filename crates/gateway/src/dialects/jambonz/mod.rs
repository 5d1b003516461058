//! jambonz' custom speech recognition, at `/jambonz`: audio of a call in binary messages, transcriptions in
//! JSON.

pub(crate) mod messages;
mod server;

use axum::routing::get;

use super::Routes;

/// Returns the routes of the dialect.
pub(super) fn routes() -> Routes {
    Routes { guarded: vec![("/jambonz", get(server::upgrade))], ..Routes::default() }
}
