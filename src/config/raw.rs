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
    pub(super) ca_file: Option<PathBuf>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_has_every_key() {
        let sample = include_str!("../../samples/voxline.toml").replace("# token_file", "token_file");
        let raw: Raw = toml::from_str(&sample).unwrap();
        let Raw { endpoint, client_id, client_secret_file, token_file, ca_file, models, language } = raw;
        assert!(endpoint.is_some() && client_id.is_some() && language.is_some());
        assert!(client_secret_file.is_some() && token_file.is_some());
        assert!(ca_file.is_some() && models.is_some());
    }
}
