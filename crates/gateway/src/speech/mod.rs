//! Speech: synthesis of texts, the encoders of its audio, and the choice of a speaker.
//!
//! This room imports [`http`](crate::http) and [`metrics`](crate::metrics).

pub(crate) mod encoder;
mod flac;
mod ogg_opus;
pub(crate) mod speakers;
pub(crate) mod synthesis;
