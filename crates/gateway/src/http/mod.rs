//! HTTP plumbing, without knowledge of what the routes serve: connections and TLS, proxies, the request log,
//! limits by client address, request bodies and error answers.
//!
//! This room imports [`authority`](crate::authority), whose errors become answers, and
//! [`metrics`](crate::metrics).

pub(crate) mod auth_rate_limiter;
pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod connection_limiter;
pub(crate) mod cors;
pub(crate) mod error;
pub(crate) mod multipart;
pub(crate) mod proxies;
pub(crate) mod request_log;
pub(crate) mod request_metrics;
pub(crate) mod server;
pub(crate) mod sse;
pub(crate) mod tls;
pub(crate) mod upload;
pub(crate) mod url_client;
pub(crate) mod url_host;
pub(crate) mod websocket;
