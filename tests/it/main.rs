//! The tests that use voxline from outside: one binary, a module for each behaviour.

mod models;
mod support;
mod voices;
