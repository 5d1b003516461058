//! The tests of recognisers and voices: one binary, a module for each behaviour.
#![allow(clippy::unwrap_used, reason = "in a test an unwrap is an assertion, in its fixtures too")]

mod keywords;
mod languages;
mod model_shapes;
mod processors;
mod recognition;
mod recognition_guards;
mod recognition_noise;
mod recordings;
mod requests;
mod samples;
mod voices;
