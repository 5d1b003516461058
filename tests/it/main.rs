//! The tests that use voxline from outside: one binary, a module for each behaviour.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, with the line that says where")]

mod models;
mod support;
mod voices;
