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
