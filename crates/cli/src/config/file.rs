//! The configuration file, and its resolution with the settings of flags and environment.

use std::collections::BTreeSet;
use std::path::PathBuf;

use etcetera::{BaseStrategy, choose_base_strategy};
use serde::Deserialize;

use super::gateway::GatewayConfig;
use super::raw::{self, Contents, Profile};
use super::{Config, ConfigError, Credentials, SecretSource, Settings};
use voxline::language::Language;
use voxline_engines::models::WHISPER_BASE;

/// The configuration file as read, for any number of profiles in it.
pub struct ConfigFile {
    /// Path of the file, whether it exists or not.
    path: Option<PathBuf>,
    pub(super) contents: Contents,
}

impl ConfigFile {
    /// Reads the file at `path`, or else the user's default file, if there is one.
    ///
    /// # Errors
    /// Returns [`ConfigError`] if the file can't be read.
    pub fn read(path: Option<PathBuf>) -> Result<ConfigFile, ConfigError> {
        let usual = || Some(choose_base_strategy().ok()?.config_dir().join("voxline/config.toml"));
        let required = path.is_some();
        let path = path.or_else(usual);
        let contents = path.as_deref().map(|path| raw::read(path, required)).transpose()?.unwrap_or_default();
        Ok(ConfigFile { path, contents })
    }

    /// Returns the problems of the file, in the order of its lines.
    #[must_use]
    pub fn problems(&self) -> &[ConfigError] {
        &self.contents.problems
    }

    /// Returns whether all settings of a profile, by default of the one without a name, are valid as far as
    /// the file has them. Invalid ones are left out when settings are resolved.
    pub(crate) fn is_complete(&self, profile: Option<&str>) -> bool {
        let concerns = |key: &str| match profile {
            Some(name) => key.starts_with(&format!("profiles.{name}.")),
            None => !key.contains('.'),
        };
        !self.problems().iter().any(|problem| match problem {
            ConfigError::Value { key, .. } => concerns(key),
            _ => true,
        })
    }

    /// Resolves `settings` and what is valid in the file. Returns the error of a profile that the file
    /// doesn't have as well.
    ///
    /// # Errors
    /// Returns [`ConfigError`] if the settings are not valid.
    pub fn resolve(&self, settings: Settings) -> Result<(Config, Option<ConfigError>), ConfigError> {
        let Contents { raw, table, exists, .. } = &self.contents;
        let home = choose_base_strategy().ok();
        let gateway = self.gateway(settings.gateway)?;
        let (profile, unknown) = self.profile(settings.profile.as_deref());
        let profile = profile.for_endpoint(settings.endpoint.as_deref());
        let models = settings.models.or_else(|| raw.models.clone());
        let usual_models = models.is_none();
        let models = models.or_else(|| Some(home.as_ref()?.cache_dir().join("voxline/models")));
        let tokens = home.map(|home| home.data_dir().join("voxline/tokens"));
        let languages = match settings.language {
            Some(language) => language.parse()?,
            None => raw.language.clone().unwrap_or_default(),
        };
        let typed = Credentials {
            client_id: settings.client_id,
            client_secret: settings.client_secret,
            token: settings.token,
        };
        let follow_hosts =
            if settings.follow_hosts.is_empty() { profile.follow_host } else { settings.follow_hosts };
        let written = Credentials {
            client_id: profile.client_id,
            client_secret: profile.client_secret_file.map(SecretSource::File),
            token: profile.token_file.map(SecretSource::File),
        };
        let config = Config {
            file: self.path.clone().filter(|_| *exists),
            endpoint: settings.endpoint.or(profile.endpoint),
            credentials: typed.over(written),
            ca_file: settings.ca_file.or(profile.ca_file),
            follow_hosts,
            models: models.ok_or(ConfigError::NoHome(", or name a directory with --models"))?,
            tokens: tokens.ok_or(ConfigError::NoHome(""))?,
            usual_models,
            model: settings.model.or_else(|| raw.model.clone()).unwrap_or_else(|| WHISPER_BASE.to_owned()),
            vault_key_file: settings.vault_key_file.or_else(|| raw.vault_key_file.clone()),
            language: languages.only().map(Language::to_string),
            languages,
            gateway,
            profiles: raw.profiles.keys().cloned().collect(),
            profile: settings.profile,
            written: written_keys("", table),
        };
        Ok((config, unknown))
    }

    /// Returns the gateway's settings: those of the file, overridden by `given`.
    fn gateway(&self, given: toml::Table) -> Result<GatewayConfig, ConfigError> {
        let written = self.contents.table.get("gateway").and_then(toml::Value::as_table);
        let mut settings = written.cloned().unwrap_or_default();
        settings.extend(given);
        // The file's values were validated when it was read, and the others by the command line parser.
        GatewayConfig::deserialize(settings)
            .map_err(|error| ConfigError::Gateway { reason: raw::first_line(error.message()) })
    }

    /// Returns the profile with this name, or the one without a name. Returns an empty profile with the error
    /// if the file doesn't have it.
    fn profile(&self, name: Option<&str>) -> (Profile, Option<ConfigError>) {
        match self.contents.raw.profile(name) {
            Ok(profile) => (profile, None),
            // The profiles of a file that can't be parsed are not known.
            Err(_) if self.problems().iter().any(|problem| matches!(problem, ConfigError::Parse { .. })) => {
                (Profile::default(), None)
            }
            Err(unknown) => (Profile::default(), Some(unknown)),
        }
    }
}

/// Returns the keys of a table and of its subtables, each prefixed with `prefix`.
fn written_keys(prefix: &str, table: &toml::Table) -> BTreeSet<String> {
    let keys = table.iter().flat_map(|(key, value)| match value {
        toml::Value::Table(table) => written_keys(&format!("{prefix}{key}."), table),
        _ => BTreeSet::from([format!("{prefix}{key}")]),
    });
    keys.collect()
}
