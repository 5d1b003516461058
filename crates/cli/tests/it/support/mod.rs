//! Helpers that several tests need: the directory of the models, and test doubles by name.

pub(crate) mod allocations;
pub(crate) mod browser;
pub(crate) mod clips;
pub(crate) mod deadline;
pub(crate) mod gateway_process;
pub(crate) mod log;
pub(crate) mod model_hub;
pub(crate) mod server;
pub(crate) mod serving;
pub(crate) mod sounds;
pub(crate) mod synthetic_whisper;
pub(crate) mod tls;
pub(crate) mod voice_info;
pub(crate) mod whisper;
pub(crate) mod words;

use std::path::PathBuf;

/// Returns the directory with the models (`piper-joe`, `whisper-base`): `VOXLINE_MODELS`, or the directory
/// in which `voxline models pull` puts them.
#[expect(clippy::disallowed_methods, reason = "where the models are is not the tests' to decide")]
pub(crate) fn models_dir() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("VOXLINE_MODELS").unwrap_or_else(|| {
        let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
        cache.expect("neither VOXLINE_MODELS nor HOME is set").join("voxline/models")
    })
}
