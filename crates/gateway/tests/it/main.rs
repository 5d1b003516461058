//! Integration tests of the gateway, which use it as a library: one binary, with a module for each behaviour.
//! Tests that start the program `voxline` are with the program.
#![allow(clippy::unwrap_used, reason = "in a test an unwrap is an assertion, in its fixtures too")]

mod access;
mod attempts;
mod authority;
mod client;
mod client_spool;
mod conformance;
mod console;
mod context;
mod crowds;
mod dialects;
mod drain;
mod endurance;
mod first_audio;
mod gateway;
mod gateway_tls;
mod hints;
mod hostile_client;
mod kills;
mod languages;
mod metrics;
mod origins;
mod overload;
mod protocol_conformance;
mod refusals;
mod secrecy;
mod session;
mod slow_clients;
mod speaking;
mod stream;
mod tasks;
mod tokens;
mod trusted_proxy;
mod uploads;

use voxline_fixtures::allocations::Counting;
use voxline_fixtures::gateway::process::serve_until_told;

/// Allocator that counts for the tests of memory. For all other tests it is the system's allocator.
#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs a gateway. The tests that need a gateway to kill start this one as a process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a gateway for other tests, which start it"]
async fn gateway_process() {
    serve_until_told().await;
}
