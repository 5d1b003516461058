//! Recordings from clients: their decoding, and the recognition of one as a job of the scheduler.

pub(crate) mod decoding;
pub(crate) mod recognition;
