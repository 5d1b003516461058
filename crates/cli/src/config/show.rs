//! The resolved configuration as a configuration file, with the source of each value.

use std::path::Path;

use toml::Value;

use super::{Config, SecretSource};
use voxline::net::Endpoint;

impl Config {
    /// Returns the configuration as TOML. `typed` returns the source of a key that was given by flag or
    /// environment. Secrets are shown by the names of their files; a secret in the environment is only
    /// mentioned.
    #[must_use]
    pub fn show(&self, typed: impl Fn(&str) -> Option<&'static str>) -> String {
        let line = |table: &str, key: &str, value: &Value| {
            let written = self.written.contains(&format!("{table}{key}"));
            let source = typed(key).unwrap_or(if written { "file" } else { "default" });
            format!("{key} = {value}  # {source}\n")
        };
        let profile = self.profile.as_ref().map_or(String::new(), |name| format!("profiles.{name}."));
        let mut text = String::new();
        for (table, key, value) in self.values(&profile) {
            text.extend(value.map(|value| line(table, key, &value)));
        }
        for (name, source) in [
            ("VOXLINE_CLIENT_SECRET", &self.credentials.client_secret),
            ("VOXLINE_TOKEN", &self.credentials.token),
        ] {
            if let Some(SecretSource::Given(_)) = source {
                text += &format!("# {name} is set\n");
            }
        }
        text += "\n[gateway]\n";
        let gateway = toml::Table::try_from(&self.gateway).expect("a configuration is a table");
        text.extend(gateway.iter().map(|(key, value)| line("gateway.", key, value)));
        text
    }

    /// Returns each key outside of the gateway's table, with the prefix of its table and its value.
    fn values<'a>(&self, profile: &'a str) -> [(&'a str, &'static str, Option<Value>); 10] {
        let path = |path: &Path| Value::from(path.to_string_lossy().into_owned());
        let file = |source: &Option<SecretSource>| match source.as_ref()? {
            SecretSource::File(file) => Some(path(file)),
            SecretSource::Stdin => Some("-".into()),
            SecretSource::Given(_) => None,
        };
        // An address may contain a password: its parsed form and its parse error do not.
        let endpoint = self.endpoint.as_ref().map(|endpoint| match endpoint.parse::<Endpoint>() {
            Ok(endpoint) => endpoint.to_string(),
            Err(error) => error.to_string(),
        });
        let hosts = self.follow_hosts.iter().map(|host| Value::from(host.to_string()));
        let follow_hosts = (!self.follow_hosts.is_empty()).then(|| Value::Array(hosts.collect()));
        [
            (profile, "endpoint", endpoint.map(Value::from)),
            (profile, "client_id", self.credentials.client_id.clone().map(Value::from)),
            (profile, "client_secret_file", file(&self.credentials.client_secret)),
            (profile, "token_file", file(&self.credentials.token)),
            (profile, "ca_file", self.ca_file.as_deref().map(path)),
            (profile, "follow_host", follow_hosts),
            ("", "vault_key_file", self.vault_key_file.as_deref().map(path)),
            ("", "models", Some(path(&self.models))),
            ("", "model", Some(Value::from(self.model.as_str()))),
            ("", "language", (!self.languages.is_any()).then(|| Value::from(self.languages.to_string()))),
        ]
    }
}
