//! Live audio to text, and text to audio, without losing a sample.
//!
//! # The line
//!
//! A [`source`] is opened, [decoded](decode), [resampled](resample) and cut into [chunks](chunk) by one worker thread
//! (the [`pipeline`]), which feeds a bounded channel. A [`session`] takes audio from the channel and carries it over a
//! [`transport`] to a recogniser; what comes back are the events of a [`transcript`]. Tokens come in from the side, from
//! [`auth`]. The other way round, [`speech`] turns text into PCM.
//!
//! # The guarantee
//!
//! Every frame that a session accepted is covered by a final segment or still in its replay buffer, whatever happens to
//! connections and tokens. Finals are told once, in order, without holes.
//!
//! # Layout
//!
//! Without features the crate is the pipeline, the session and the token client. Features add the rest: `engine` (the
//! traits behind which recognisers and voices stand), `whisper`, `voices`, `models`, `gateway` (the server side of it
//! all), `cli` (the program) and `test-util` (test doubles). ARCHITECTURE.md has the protocol and the reasons.
#![forbid(unsafe_code)]

pub mod audio;
pub mod auth;
pub mod chunk;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
#[cfg(feature = "cli")]
pub mod config;
pub mod decode;
#[cfg(feature = "engine")]
pub mod engine;
#[cfg(feature = "gateway")]
pub mod gateway;
mod hex;
#[cfg(feature = "engine")]
pub mod language;
#[cfg(feature = "models")]
pub mod models;
pub mod net;
pub mod pace;
pub mod pipeline;
#[cfg(any(feature = "voices", feature = "models"))]
mod program;
mod random;
pub mod recovery;
pub mod resample;
#[cfg_attr(not(feature = "voices"), expect(dead_code, unreachable_pub, reason = "clauses are for voices"))]
mod sentences;
pub mod session;
pub mod source;
pub mod speech;
pub mod spool;
#[cfg(feature = "test-util")]
pub mod testing;
pub mod transcript;
pub mod transport;
#[cfg(feature = "engine")]
pub mod voice;
pub mod wer;

/// The examples in the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
