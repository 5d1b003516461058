//! The configuration file as written.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::ConfigError;
use super::gateway::GatewayConfig;
use voxline::language::Languages;
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
    pub(super) language: Option<Languages>,
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
}

impl Profile {
    /// Returns what of the profile may be used with a service at `endpoint`, by default the profile's own.
    /// The credentials belong to the profile's endpoint, and must not be sent to another; nor may another
    /// endpoint move sessions to the hosts in the file.
    pub(super) fn for_endpoint(self, endpoint: Option<&str>) -> Profile {
        if endpoint.is_none() || endpoint == self.endpoint.as_deref() {
            return self;
        }
        Profile { endpoint: self.endpoint, ca_file: self.ca_file, ..Profile::default() }
    }
}

/// A configuration file, as far as it is valid.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) raw: Raw,
    pub(super) table: Table,
    /// Problems of the file, in the order of its lines. Keys with a problem are missing in `raw` and `table`.
    pub(super) problems: Vec<ConfigError>,
    /// `false` if there is no file.
    pub(super) exists: bool,
}

/// Reads the file at `path`. The file may be missing unless it is `required`.
pub(super) fn read(path: &Path, required: bool) -> Result<Contents, ConfigError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && !required => return Ok(Contents::default()),
        Err(error) => return Err(ConfigError::Read { path: path.to_owned(), error }),
    };
    let mut problems = Problems { path, text: &text, found: Vec::new() };
    let (document, errors) = DeTable::parse_recoverable(&text);
    for error in errors {
        problems.push(error.span().map_or(0, |span| span.start), None, error.message());
    }
    // What is left of a file with a syntax error is not what its author meant.
    let mut table = if problems.found.is_empty() { parse(&text, &mut problems) } else { Table::new() };
    problems.check_tables(document.get_ref(), &mut table);
    let raw = Raw::deserialize(table.clone()).unwrap_or_else(|error| {
        problems.push(0, None, error.message());
        Raw::default()
    });
    problems.found.sort_by_key(|(start, _)| *start);
    let problems = problems.found.into_iter().map(|(_, problem)| problem).collect();
    Ok(Contents { raw, table, problems, exists: true })
}

fn parse(text: &str, problems: &mut Problems<'_>) -> Table {
    text.parse().unwrap_or_else(|error: toml::de::Error| {
        problems.push(error.span().map_or(0, |span| span.start), None, error.message());
        Table::new()
    })
}

/// The problems found in a file, each with its byte offset.
struct Problems<'a> {
    path: &'a Path,
    text: &'a str,
    found: Vec<(usize, ConfigError)>,
}

impl Problems<'_> {
    fn push(&mut self, start: usize, key: Option<String>, reason: &str) {
        let (path, reason) = (self.path.to_owned(), first_line(reason));
        let line = self.text[..start].matches('\n').count() + 1;
        let problem = match key {
            Some(key) => ConfigError::Value { path, line, key, reason },
            None => ConfigError::Parse { path, line, reason },
        };
        self.found.push((start, problem));
    }

    /// Removes the keys with a problem from the file's tables.
    fn check_tables(&mut self, document: &DeTable<'_>, table: &mut Table) {
        if let Some((gateway, written)) = subtable(table, document, "gateway") {
            self.check::<GatewayConfig>("gateway.", written, gateway);
        }
        if let Some((profiles, written)) = subtable(table, document, "profiles") {
            for name in profiles.keys().cloned().collect::<Vec<_>>() {
                if let Some((profile, written)) = subtable(profiles, written, &name) {
                    self.check::<Profile>(&format!("profiles.{name}."), written, profile);
                }
            }
        }
        self.check::<Raw>("", document, table);
    }

    /// Removes the keys of a table that are not valid in a `T`, each of whose keys is optional and valid or
    /// not by itself.
    fn check<T: DeserializeOwned>(&mut self, prefix: &str, written: &DeTable<'_>, table: &mut Table) {
        table.retain(|key, value| {
            let alone = Table::from_iter([(key.to_owned(), value.clone())]);
            let Err(error) = alone.try_into::<T>() else { return true };
            let start = written.get_key_value(key).map_or(0, |(key, _)| key.span().start);
            self.push(start, Some(format!("{prefix}{key}")), error.message());
            false
        });
    }
}

/// Returns the table with this key inside a table, with its source text.
fn subtable<'t, 'd, 's>(
    table: &'t mut Table,
    written: &'d DeTable<'s>,
    key: &str,
) -> Option<(&'t mut Table, &'d DeTable<'s>)> {
    let written = written.get(key).map(Spanned::get_ref).and_then(DeValue::as_table)?;
    Some((table.get_mut(key).and_then(Value::as_table_mut)?, written))
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
