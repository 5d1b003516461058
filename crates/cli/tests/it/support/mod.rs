//! Helpers that several tests need: the directory of the models, and test doubles by name.

pub(crate) mod browser;
pub(crate) mod gateway_process;
pub(crate) mod http;
pub(crate) mod log;
pub(crate) mod model_hub;
pub(crate) mod server;
pub(crate) mod serving;
pub(crate) mod tls;
pub(crate) mod voice_info;
pub(crate) mod words;
