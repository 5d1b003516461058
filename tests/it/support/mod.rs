//! What several tests need.

#[cfg(feature = "whisper")]
pub(crate) mod clips;
#[cfg(feature = "whisper")]
pub(crate) mod words;
