//! Integration tests of the program, and of what surrounds it: one binary, with a module for each behaviour.
#![allow(clippy::unwrap_used, reason = "in a test an unwrap is an assertion, in its fixtures too")]

mod access;
mod authority;
mod bench;
mod calls;
mod certificates;
mod cli;
mod cli_audio;
mod cli_flags;
mod cli_help;
mod cli_output;
mod cli_token;
mod config;
#[cfg(target_os = "linux")]
mod confinement;
mod console;
mod dependencies;
mod documents;
mod example;
mod gateway_tls;
mod imports;
mod languages;
mod models;
mod recognition_kills;
mod refusals;
mod residence;
mod sdks;
mod secrecy;
mod siege;
mod speaking;
mod spooling;
mod successor;
mod support;
mod trusted_proxy;

use voxline_fixtures::gateway::process::serve_until_told;

/// Runs a gateway. The tests that need a gateway to kill start this one as a process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a gateway for other tests, which start it"]
async fn gateway_process() {
    serve_until_told().await;
}
