//! The commands, one module each, with their arguments and implementation.

pub(crate) mod bench;
pub(crate) mod calls;
pub(crate) mod config;
pub(crate) mod decode;
pub(crate) mod documentation;
pub(crate) mod gateway;
pub(crate) mod models;
pub(crate) mod probe;
pub(crate) mod serve;
pub(crate) mod speak;
pub(crate) mod token;
pub(crate) mod transcribe;
pub(crate) mod voices;
