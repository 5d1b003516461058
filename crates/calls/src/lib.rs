//! Telephone calls to text, and text back into calls.
//!
//! A telephone system sends the audio of its calls over sockets, each by a protocol of its own. This package
//! takes each leg of a call as a live session of [`voxline::Client`].
//!
//! # Rooms
//!
//! - [`peers`]: a codec for each protocol, without sockets and clocks: messages in, events out.
//! - [`timeline`]: the audio of a leg in order, by the clock of its peer, with gaps named.
//! - [`media`]: payloads to samples, and samples in place of lost ones.

pub mod media;
pub mod peers;
pub mod timeline;
