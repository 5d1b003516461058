//! Recordings from clients: their storage, their decoding, and the recognition of one as a job of the
//! scheduler.
//!
//! This room imports [`scheduler`](crate::scheduler), [`http`](crate::http) and
//! [`admission`](crate::admission), and the settings of uploads.

pub(crate) mod decoding;
mod part_queue;
mod recording_job;
pub(crate) mod transcription;
pub(crate) mod uploads;
