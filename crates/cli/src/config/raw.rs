//! The configuration file as written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ConfigError;
use super::gateway::GatewayConfig;
use voxline::net::HostName;

/// Contents of the configuration file. Every key is optional. An unknown key is refused, since it is probably
/// a misspelling.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    // The profile without a name. With `flatten` the struct would accept unknown keys.
    pub(super) endpoint: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret_file: Option<PathBuf>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) ca_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) follow_host: Vec<HostName>,
    pub(super) vault_key_file: Option<PathBuf>,
    pub(super) models: Option<PathBuf>,
    pub(super) model: Option<String>,
    pub(super) language: Option<String>,
    // Merged with the flags elsewhere; parsed here too, so that errors have line numbers.
    #[serde(default, rename = "gateway")]
    _gateway: GatewayConfig,
    #[serde(default)]
    pub(super) profiles: BTreeMap<String, Profile>,
}

/// A service and its credentials.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    pub(super) endpoint: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret_file: Option<PathBuf>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) ca_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) follow_host: Vec<HostName>,
}

impl Raw {
    /// Returns the profile with this name, or the one without a name.
    pub(super) fn profile(&self, name: Option<&str>) -> Result<Profile, ConfigError> {
        let Some(name) = name else {
            return Ok(Profile {
                endpoint: self.endpoint.clone(),
                client_id: self.client_id.clone(),
                client_secret_file: self.client_secret_file.clone(),
                token_file: self.token_file.clone(),
                ca_file: self.ca_file.clone(),
                follow_host: self.follow_host.clone(),
            });
        };
        let unknown = || ConfigError::UnknownProfile {
            name: name.to_owned(),
            known: self.profiles.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        };
        self.profiles.get(name).cloned().ok_or_else(unknown)
    }

    /// Reads the file at `path`, parsed both as [`Raw`] and as a table. The file may be missing unless it is
    /// `required`.
    pub(super) fn read(path: &Path, required: bool) -> Result<(Raw, toml::Table), ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {
                return Ok(Default::default());
            }
            Err(error) => return Err(ConfigError::Read { path: path.to_owned(), error }),
        };
        let read = toml::from_str(&text).and_then(|raw| Ok((raw, toml::from_str(&text)?)));
        read.map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            reason: first_line(error.message()),
            line: error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1),
        })
    }
}

pub(super) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_has_every_key() {
        let sample = include_str!("../../../../samples/voxline.toml").replace("# token_file", "token_file");
        let raw: Raw = toml::from_str(&sample).unwrap();
        let Raw { models, language, vault_key_file, profiles, .. } = &raw;
        assert!(models.is_some() && language.is_some() && vault_key_file.is_some() && profiles.len() == 1);
        let Profile { endpoint, client_id, client_secret_file, token_file, ca_file, follow_host } =
            raw.profile(None).unwrap();
        assert!(endpoint.is_some() && client_id.is_some() && ca_file.is_some() && !follow_host.is_empty());
        assert!(client_secret_file.is_some() && token_file.is_some());
    }
}
