//! Integration tests, which use voxline from outside: one binary, with a module for each behaviour.
#![allow(clippy::unwrap_used, reason = "in a test an unwrap is an assertion, in its fixtures too")]

mod access;
mod attempts;
mod authority;
mod bench;
mod certificates;
mod client;
mod cli;
mod cli_audio;
mod cli_flags;
mod cli_output;
mod cli_token;
mod config;
#[cfg(target_os = "linux")]
mod confinement;
mod conformance;
mod console;
mod context;
mod core_turns;
mod crowds;
mod dependencies;
mod documents;
mod drain;
mod endurance;
mod example;
mod front_end;
mod gateway;
mod gateway_tls;
mod hostile_client;
mod hostile_peer;
mod kills;
mod languages;
mod metrics;
mod model_shapes;
mod models;
mod network;
mod origins;
mod overload;
mod protocol_conformance;
mod proxy;
mod random;
mod recognition;
mod recognition_guards;
mod recognition_noise;
mod refusals;
mod residence;
mod restart;
mod samples;
mod schedule;
mod secrecy;
mod session;
mod siege;
mod slow_clients;
mod speaking;
mod spool;
mod spooling;
mod stream;
mod successor;
mod support;
mod tasks;
mod tokens;
mod trusted_proxy;
mod uploads;
mod voices;
mod writers;

/// Allocator that counts for the tests of memory. For all other tests it is the system's allocator.
#[global_allocator]
static ALLOCATOR: support::allocations::Counting = support::allocations::Counting;
