//! Telephone calls to text, and text back into calls.
//!
//! A telephone system sends the audio of its calls over sockets, each by a protocol of its own. This package
//! takes each leg of a call as a live session of [`voxline::Client`].
//!
//! # Rooms
//!
//! From the outside in:
//!
//! - `calls`: the listeners by which calls come, and who may use them.
//! - `drivers`: the connections of peers, which carry the messages of a codec.
//! - [`peers`]: a codec for each protocol, without sockets and clocks: messages in, events out.
//! - `call`: a call under way, with its legs.
//! - `leg`: a leg as a live session.
//! - [`timeline`]: the audio of a leg in order, by the clock of its peer, with gaps named.
//! - [`media`]: payloads to samples, and samples in place of lost ones.
//! - `recording`: a file for each call.
//! - `unfinished`: legs on disk, which a later process finishes.
//! - [`event`]: what a call tells; `event_files`: a file of it for each call;
//!   `webhook`: what is in the files, posted to an address.

mod call;
mod calls;
mod drivers;
pub mod event;
mod event_files;
mod leg;
pub mod media;
pub mod peers;
mod recording;
pub mod timeline;
mod unfinished;
mod webhook;

pub use self::call::CallSettings;
pub use self::calls::{Calls, CallsOptions};
pub use self::event_files::EventFiles;
pub use self::webhook::{BadWebhook, Webhook};
