//! Live audio to text, and text to audio, without losing a sample.
//!
//! # First use
//!
//! ```no_run
//! use voxline::Client;
//! use voxline::source::Source;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("https://speech.example").credentials("ID", "SECRET").build()?;
//! let mut transcript = client.transcribe(Source::open("call.mp3")?).language("en").start().await?;
//! while let Some(event) = transcript.next().await {
//!     if let Some(text) = event?.final_text() {
//!         println!("{text}");
//!     }
//! }
//! println!("{}", transcript.ledger());
//! # Ok(())
//! # }
//! ```
//!
//! [`Client::live`] takes audio as it is spoken, and `Client::speak` returns speech. The package's examples
//! show both, and a test of one's own integration under faults.
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
//! The default features serve a client of a speech service. They build pure Rust, except ring (of `tls`),
//! which needs a C compiler. An item whose feature is absent does not exist: [`Client`] has only the methods
//! that the build can carry out.
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `decode` | yes | recordings: `source`, `decode`, `pipeline`, `Client::transcribe`; enables `resample` |
//! | `oauth` | yes | tokens by client id and secret: `auth::{OAuthClient, Vault}` |
//! | `speech` | yes | text to audio: `speech`, `Client::speak`; enables `resample` |
//! | `tls` | yes | `https`; without it only services on loopback can be reached |
//! | `resample` | by others | `resample`: conversion between any two sample rates |
//! | `opus` | no | Opus in `decode`, by libopus, which cmake builds |
//! | `url-source` | no | `Source::url`: recordings on the web, by reqwest |
//! | `vad` | no | `vad`: voice activity of chunks, to leave out silence that would be paid for |
//! | `download` | no | `net::download_client`: public files, by reqwest |
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
pub mod backoff;
pub mod chunk;
pub mod client;
#[cfg(feature = "decode")]
pub mod decode;
pub mod engine;
pub mod error;
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
#[cfg(feature = "speech")]
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
    pub use crate::auth::vault::{SystemDisk, VaultDisk};
    pub use crate::transport::websocket::{unreachable, upgrade};
}

/// Compiles the examples in the documents.
#[cfg(all(doctest, feature = "decode", feature = "oauth", feature = "speech", feature = "tls"))]
#[doc = include_str!("../docs/library.md")]
struct Library;
