//! The configuration file as it is written.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ConfigError;

/// Every key is optional; an unknown one is refused, since it is a known one misspelt.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) endpoint: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret_file: Option<PathBuf>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) models: Option<PathBuf>,
    pub(super) language: Option<String>,
}

impl Raw {
    /// The file at `path`. One that was not asked for by name may be missing.
    pub(super) fn read(path: &Path, required: bool) -> Result<Raw, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {
                return Ok(Raw::default());
            }
            Err(error) => return Err(ConfigError::Read { path: path.to_owned(), error }),
        };
        toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            reason: error.message().lines().next().unwrap_or_default().to_owned(),
            line: error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1),
        })
    }
}
