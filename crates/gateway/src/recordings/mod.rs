//! Recordings from clients: their decoding, and the recognition of one as a job of the scheduler.
//!
//! This room imports [`scheduler`](crate::scheduler) and [`http`](crate::http).

pub(crate) mod decoding;
pub(crate) mod recording_job;
