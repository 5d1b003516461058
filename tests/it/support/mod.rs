//! What several tests need: where the models are, and test doubles by name.

pub(crate) mod clips;
pub(crate) mod model_hub;
pub(crate) mod server;
pub(crate) mod words;

use std::path::PathBuf;

/// The directory with the models (`piper-joe`, `whisper-base`): `VOXLINE_MODELS`, or where `voxline models pull` puts
/// them.
#[expect(clippy::disallowed_methods, reason = "where the models are is not the tests' to decide")]
pub(crate) fn models_dir() -> PathBuf {
    if let Some(models) = std::env::var_os("VOXLINE_MODELS") {
        return models.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("neither VOXLINE_MODELS nor HOME is set"));
    cache.unwrap_or_else(|| home().join(".cache")).join("voxline/models")
}
