//! Helpers that several tests need: a browser, a hub of models, and `voxline serve` as a process.

pub(crate) mod browser;
pub(crate) mod model_hub;
pub(crate) mod serving;
