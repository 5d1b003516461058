//! The Wyoming protocol of Home Assistant's voice services: recognition and speech over TCP and Unix sockets.
//! It knows no tokens, so its clients use the project that the operator opens to them.
//!
//! - `frames`, `messages`: the framing of events, and their data; `info` describes the gateway.
//! - `listener`, `server`: connections, and the admission of their clients.
//! - `socket`, `connection`: a connection, which is written while it is read.
//! - `transcription`, `speaking`: a transcription, and a speech.

mod connection;
pub(crate) mod frames;
mod info;
mod listener;
pub(crate) mod messages;
mod server;
mod socket;
mod speaking;
mod transcription;

pub use self::listener::WyomingListener;
pub(crate) use self::server::serve;

/// Label of the protocol in the metrics.
const API: &str = "wyoming";
