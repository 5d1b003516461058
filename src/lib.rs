//! Live audio to text, and text to audio, without losing a sample.
//!
//! # Data flow
//!
//! A [`source`] is opened, [decoded](decode), [resampled](resample) and split into [chunks](chunk) by one
//! worker thread (the [`pipeline`]), which feeds a bounded channel. A [`session`] takes audio from the
//! channel and sends it over a [`transport`] to a recogniser; the results are the events of a
//! [`transcript`]. [`auth`] provides the tokens. In the other direction, [`speech`] turns text into PCM.
//!
//! # Guarantee
//!
//! Every frame that a session accepted is covered by a final result or still in its replay buffer,
//! whatever happens to connections and tokens. Final results are delivered once, in order, without gaps.
//!
//! # Layout
//!
//! Recognisers and voices implement the traits of [`engine`]. The package `voxline-engines` has those
//! that voxline provides, `voxline-gateway` the server, `voxline-testing` test doubles and fault
//! injection, and `voxline-cli` the program. docs/protocol.md specifies the protocol, and ARCHITECTURE.md
//! gives the reasons of the design.
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
pub mod peer;
pub mod pipeline;
pub mod protocol;
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

/// Internals that voxline's own test kit uses. Nothing here is stable.
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod internals {
    pub use crate::auth::renewal::{Answer, Renewal, Renewed, Step};
    pub use crate::transport::websocket::{unreachable, upgrade};
}

/// Compiles the examples in the documents.
#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
struct Library;
