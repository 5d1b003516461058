<<<<<<< HEAD
<<<<<<< HEAD
//! The integration tests: one binary, a module for each part of the behaviour.

mod front_end;
mod random;
mod writers;
=======
//! The tests that use voxline from outside: one binary, a module for each behaviour.

mod models;
mod support;
mod voices;
>>>>>>> 859e44e228601a266776fa6e863c79d12501f1a5
=======
//! The integration tests: one binary, a module per behaviour.

mod support;

#[cfg(feature = "whisper")]
mod recognition;
>>>>>>> 5eb496961db7c70cd6cf9f634d0d972c28bca5d8
