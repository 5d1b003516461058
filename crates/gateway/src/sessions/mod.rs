//! Live sessions: their state, their recognition, their registries, and the sockets and numbered chunks that
//! feed them.
//!
//! This room imports [`admission`](crate::admission), [`scheduler`](crate::scheduler), [`http`](crate::http),
//! [`authority`](crate::authority) and [`metrics`](crate::metrics).

pub(crate) mod chunked_registry;
pub(crate) mod chunked_session;
mod latency_clock;
mod message_rate_limiter;
mod queue;
mod recognition;
pub(crate) mod registry;
pub(crate) mod session;
mod socket;
mod state;
mod timeline;
pub(crate) mod websocket;
