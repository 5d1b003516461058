//! The opening of a connection.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

use super::super::API;
use super::super::error::OpenAiError;
use super::client_secrets::with_session;
use super::connection::Connection;
use super::settings::Settings;
use crate::admission::pending::PendingPlace;
use crate::authority::Amount;
use crate::dialects::live::{admit, authorise};
use crate::gateway::Gateway;
use crate::http::client::bearer;
use crate::http::error::ApiError;
use crate::http::websocket::{self, Upgrade};
use crate::sessions::credential::OpeningToken;
use crate::sessions::live_socket::LiveSocket;

/// Subprotocol of the API, which a browser offers beside its key.
const SUBPROTOCOL: &str = "realtime";
/// Start of the subprotocol that carries the key of a browser, which can set no header.
const KEY_PREFIX: &str = "openai-insecure-api-key.";
/// Longest event, in bytes: half a minute of PCM at 24 kHz, in base64.
const MAX_EVENT: usize = 2 * 1024 * 1024;
/// Longest name of a model that is kept, in bytes.
const MAX_MODEL: usize = 256;

/// A client that was admitted.
struct Admitted {
    opener: Arc<OpeningToken>,
    place: PendingPlace,
    upgrade: Upgrade,
    subprotocol: Option<&'static str>,
    settings: Settings,
}

/// Answers the upgrade request. A session begins with the first audio.
pub(in super::super) async fn upgrade(State(gateway): State<Arc<Gateway>>, mut request: Request) -> Response {
    let Admitted { opener, place, upgrade, subprotocol, settings } = match enter(&gateway, &mut request) {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal.into_response(),
    };
    let response = upgrade.answer(subprotocol);
    let manager = gateway.sessions.clone();
    gateway.sessions.shutdown.spawn(async move {
        if let Some(wire) = upgrade.socket_for(MAX_EVENT).await {
            let socket = LiveSocket::new(&manager, opener.clone(), API, wire, None).with_audio_in_texts();
            Connection::new(&manager, opener, place, socket, settings).serve().await;
        }
    });
    response
}

fn enter(gateway: &Gateway, request: &mut Request) -> Result<Admitted, OpenAiError> {
    let offered = || websocket::offered(request.headers());
    let token =
        bearer(request.headers()).or_else(|| offered().find_map(|offer| offer.strip_prefix(KEY_PREFIX)));
    let opener = authorise(gateway, request, token)?;
    let subprotocol = offered().any(|offer| offer == SUBPROTOCOL).then_some(SUBPROTOCOL);
    gateway.authority.afford(&opener.identity, Amount::audio(1)).map_err(ApiError::from)?;
    let mut settings = settings(request.uri().query().unwrap_or_default())?;
    if let Some(signed) = opener.identity.settings() {
        let session = serde_json::from_str(signed).expect("what is signed was JSON");
        settings = with_session(&session)?;
    }
    admit(gateway, request)?;
    let place = gateway.sessions.place_for_socket(&opener.identity)?;
    let upgrade = Upgrade::take(request)?;
    Ok(Admitted { opener: Arc::new(opener), place, upgrade, subprotocol, settings })
}

/// Reads the query. Parameters other than `intent` and `model` are ignored.
fn settings(query: &str) -> Result<Settings, OpenAiError> {
    let mut model = None;
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "intent" if value != "transcription" => {
                return Err(OpenAiError::invalid("intent", "only the intent 'transcription' is supported"));
            }
            "model" if !value.is_empty() && value.len() <= MAX_MODEL => model = Some(value.into_owned()),
            _ => {}
        }
    }
    Ok(Settings::of_model(model))
}
