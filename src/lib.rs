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
//! Recognisers and voices stand behind the traits of [`engine`]. Those that voxline brings are in the package
//! `voxline-engines`, the server side of it all in `voxline-gateway`, test doubles and fault injection in
//! `voxline-testing`, and the program in `voxline-cli`. ARCHITECTURE.md has the protocol and the reasons.
#![forbid(unsafe_code)]

pub mod audio;
pub mod auth;
pub mod chunk;
pub mod client;
pub mod decode;
pub mod engine;
pub mod language;
pub mod net;
pub mod pace;
pub mod pipeline;
pub mod recovery;
pub mod resample;
pub mod sentences;
pub mod session;
pub mod source;
pub mod speech;
pub mod spool;
pub mod transcript;
pub mod transport;
#[cfg(feature = "vad")]
pub mod voice;

pub use client::Client;
pub use voxline_support::clock;

/// Parts that voxline's own test kit drives. Nothing here is stable.
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod internals {
    pub use crate::auth::renewal::{Answer, Renewal, Renewed, Step};
    pub use crate::transport::websocket::{unreachable, upgrade};
}

/// The examples in the documents compile.
#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
struct Library;
