//! The life of tokens at the gateway: who is granted them, what they give access to, how they end, and what
//! survives a crash.

mod admin;
mod audit;
mod backup;
mod budgets;
mod crashes;
mod documented;
mod files;
mod limits;
mod outage;
mod program;
mod revocation;
mod rotation;
mod scopes;

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use voxline::auth::{AccessToken, TokenGeneration};
use voxline_gateway::authority::{Authority, NewClient, NewToken, Terms};
use voxline_testing::{DigestRecognizer, ManualClock};

use crate::gateway::Tone;
use crate::support::server::{Server, Setup};

/// 2023-11-14, 22:13:20 UTC: 6,400 seconds before midnight.
const NOW: Duration = Duration::from_secs(1_700_000_000);
const TO_MIDNIGHT: Duration = Duration::from_secs(6_400);
const HOUR: Duration = Duration::from_secs(3_600);

fn clock() -> ManualClock {
    ManualClock::new(NOW)
}

/// Creates an authority in memory with one project, called `a`, and its first client.
fn authority(clock: &ManualClock) -> (Authority, NewClient) {
    let authority = Authority::in_memory(HOUR, Arc::new(clock.clone())).unwrap();
    let client = authority.create_project("a").unwrap();
    (authority, client)
}

/// Starts a gateway with a voice and a recogniser, whose clock stands still.
async fn server(clock: &ManualClock) -> Server {
    serving(Setup { clock: Arc::new(clock.clone()), ..Setup::default() }).await
}

async fn serving(setup: Setup) -> Server {
    Server::with(Arc::new(DigestRecognizer::new(8_000)), Setup { voices: Tone::voices(), ..setup }).await
}

/// Creates a service token of the server's project.
fn service_token(server: &Server, terms: Terms) -> NewToken {
    server.gateway.authority().create_service_token("test", terms).unwrap()
}

/// Returns whether the token is valid.
fn is_good(authority: &Authority, token: &SecretString) -> bool {
    authority.check(token.expose_secret()).is_ok()
}

fn bearer(token: &SecretString) -> AccessToken {
    AccessToken::new(token, TokenGeneration(0)).unwrap()
}
