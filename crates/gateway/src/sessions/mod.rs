//! Live sessions: their state, their recognition, their registries, and their feeders: resumable sockets,
//! numbered chunks, and the dialects by [`live`].
//!
//! This room imports [`recordings`](crate::recordings), [`admission`](crate::admission),
//! [`options`](crate::options), [`scheduler`](crate::scheduler), [`http`](crate::http),
//! [`authority`](crate::authority) and [`metrics`](crate::metrics).

mod chunk_intake;
pub(crate) mod chunked_registry;
pub(crate) mod chunked_session;
mod chunked_supervision;
mod close_reason;
pub(crate) mod credential;
mod latency_clock;
pub(crate) mod live;
pub(crate) mod live_socket;
pub(crate) mod live_supervision;
pub(crate) mod manager;
pub(crate) mod message_rate_limiter;
pub(crate) mod messages;
pub(crate) mod plain_text;
mod queue;
pub(crate) mod registry;
pub(crate) mod session;
mod session_job;
mod shutdown;
mod socket;
mod state;
mod supervision;
mod timeline;
pub(crate) mod websocket;
