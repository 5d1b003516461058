//! Live audio to text, and text to audio, without losing a sample.
//!
//! # Data flow
//!
//! A `source` is opened, decoded, resampled and split into [chunks](chunk) by one
//! worker thread (the `pipeline`), which feeds a bounded channel. A [`session`] takes audio from the
//! channel and sends it over a [`transport`] to a recogniser; the results are the events of a
//! [`transcript`]. [`auth`] provides the tokens. In the other direction, [`speech`] turns text into PCM.
//!
//! # Guarantee
//!
//! Every frame that a session accepted is covered by a final result or still in its replay buffer,
//! whatever happens to connections and tokens. Final results are delivered once, in order, without gaps.
//!
//! # Features
//!
//! The default features serve a client of a speech service. They build pure Rust, except ring, which needs a
//! C compiler. An item whose feature is absent does not exist: [`Client`] has only the methods that the build
//! can carry out.
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `decode` | yes | recordings: `source`, `decode` (WAV, FLAC, MP3, Ogg Vorbis, M4A and others), `pipeline`, `Client::transcribe`; enables `resample` |
//! | `oauth` | yes | access tokens by client id and secret, stored on disk: `auth::{OAuthClient, Vault}`, `ClientBuilder::credentials` |
//! | `speech` | yes | text to audio: `speech`, `Client::speak`; enables `resample` |
//! | `tls` | yes | `https`, with the system's certificates and those of files; without it only services on loopback can be reached, and no C is compiled |
//! | `resample` | by others | `resample`: conversion between any two sample rates |
//! | `opus` | no | Opus in `decode`, by libopus, which cmake builds |
//! | `url-source` | no | `Source::url`: recordings on the web, by reqwest |
//! | `vad` | no | `vad`: voice activity of chunks, to leave out silence that would be paid for |
//! | `download` | no | `net::download_client`: reqwest for public files, with the roots of the other connections |
//!
//! Live audio with a service token needs `tls` alone:
//! `voxline = { version = "0.1", default-features = false, features = ["tls"] }`.
//!
//! # Layout
//!
//! Recognisers and voices implement the traits of [`engine`]. The package `voxline-engines` has those
//! that voxline provides, `voxline-gateway` the server, `voxline-testing` test doubles and fault
//! injection, and `voxline-cli` the program. docs/protocol.md specifies the protocol, and ARCHITECTURE.md
//! gives the reasons of the design.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod audio;
pub mod auth;
pub mod chunk;
pub mod client;
#[cfg(feature = "decode")]
pub mod decode;
pub mod engine;
pub mod language;
pub mod net;
pub mod pace;
pub mod peer;
#[cfg(feature = "decode")]
pub mod pipeline;
pub mod protocol;
pub mod recovery;
#[cfg(feature = "resample")]
pub mod resample;
pub mod sentences;
pub mod session;
#[cfg(feature = "decode")]
pub mod source;
pub mod speech;
pub mod spool;
pub mod transcript;
pub mod transport;
#[cfg(feature = "vad")]
pub mod vad;

pub use client::Client;
pub use voxline_support::clock;

/// Internals that voxline's own test kit uses. Nothing here is stable.
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod internals {
    pub use crate::auth::renewal::{Renewal, Renewed, Step, TokenLookup};
    pub use crate::transport::websocket::{unreachable, upgrade};
}

/// Compiles the examples in the documents.
#[cfg(all(doctest, feature = "decode", feature = "oauth", feature = "speech", feature = "tls"))]
#[doc = include_str!("../docs/library.md")]
struct Library;
