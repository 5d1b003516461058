//! Integration tests, which use voxline from outside: one binary, with a module for each behaviour.
#![allow(clippy::unwrap_used, reason = "in a test an unwrap is an assertion, in its fixtures too")]

mod access;
mod attempts;
mod authority;
mod bench;
mod certificates;
mod cli;
mod cli_audio;
mod cli_flags;
mod cli_help;
mod cli_output;
mod cli_token;
mod client;
mod client_spool;
mod config;
#[cfg(target_os = "linux")]
mod confinement;
mod conformance;
mod console;
mod context;
mod crowds;
mod dependencies;
mod documents;
mod drain;
mod endurance;
mod example;
mod gateway;
mod gateway_tls;
mod hostile_client;
mod imports;
mod kills;
mod languages;
mod metrics;
mod models;
mod origins;
mod overload;
mod protocol_conformance;
mod refusals;
mod residence;
mod restart;
mod secrecy;
mod session;
mod siege;
mod slow_clients;
mod speaking;
mod spooling;
mod stream;
mod successor;
mod support;
mod tasks;
mod tokens;
mod trusted_proxy;
mod uploads;
mod voices;

use voxline_fixtures::allocations::Counting;

/// Allocator that counts for the tests of memory. For all other tests it is the system's allocator.
#[global_allocator]
static ALLOCATOR: Counting = Counting;
