//! What several tests need.

pub(crate) mod clips;
pub(crate) mod words;
