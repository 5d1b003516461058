//! The Realtime API of OpenAI for transcription, at `/v1/realtime`: a WebSocket with audio as base64 in JSON.
//!
//! - `messages`, `settings`, `fields`, `bad_event`: events of the client, the settings that they carry, in
//!   two generations, and their errors.
//! - `items`, `deltas`: results as items of a conversation, and text that is told while it may still change.
//! - `server`, `connection`: the upgrade, and the connection.

mod bad_event;
pub(super) mod client_secrets;
mod connection;
mod deltas;
mod fields;
mod items;
mod messages;
mod server;
mod settings;

pub(super) use self::server::upgrade;

/// Applies events with settings, for a fuzz target.
#[cfg(feature = "test-util")]
pub(crate) fn apply<'a>(events: impl Iterator<Item = &'a str>) {
    use self::messages::{Request, parse};
    use self::settings::{Generation, Settings};

    let mut settings = Settings::of_model(None);
    for event in events {
        let Ok(Request::Update(_, session)) = parse(event).request else { continue };
        let Ok(updated) = settings.updated(&session) else { continue };
        for generation in [Generation::Beta, Generation::Current] {
            let told = updated.told("id", generation);
            let again = Settings::of_model(None).updated(&told).expect("settings that are told are accepted");
            assert_eq!(
                again.told("id", generation),
                told,
                "settings are told otherwise than they were taken"
            );
        }
        settings = updated;
    }
}
