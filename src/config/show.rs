//! The settled configuration as a file that would say the same, with where each value is from.

use std::fmt::Write;

use toml::Value;

use super::{Config, SecretSource};

impl Config {
    /// The configuration as TOML. `typed` tells of a key whether it was given by flag or environment, in a word. Secrets
    /// are named by their files; one in the environment is only said to be there.
    #[must_use]
    pub fn show(&self, typed: impl Fn(&str) -> Option<&'static str>) -> String {
        let source = |table: &str, key: &str| {
            let written = self.written.contains(&format!("{table}{key}"));
            typed(key).unwrap_or(if written { "file" } else { "default" })
        };
        let mut text = String::new();
        let mut line = |table: &str, key: &str, value: &Value| {
            let _ = writeln!(text, "{key} = {value}  # {}", source(table, key));
        };
        let path = |path: &std::path::Path| Value::from(path.to_string_lossy().into_owned());
        let profile = self.profile.as_ref().map_or(String::new(), |name| format!("profiles.{name}."));
        // An address that can't be used may hold a password.
        let endpoint =
            self.endpoint.as_ref().map(|endpoint| match endpoint.parse::<crate::net::Endpoint>() {
                Ok(endpoint) => endpoint.to_string(),
                Err(error) => error.to_string(),
            });
        let (secret, token) = (&self.credentials.client_secret, &self.credentials.token);
        let mut given = String::new();
        let mut file = |key: &str, source: &Option<SecretSource>| match source {
            Some(SecretSource::File(file)) => Some(path(file)),
            Some(SecretSource::Stdin) => Some("-".into()),
            Some(SecretSource::Given(_)) => {
                let _ = writeln!(given, "# {key} is in the environment");
                None
            }
            None => None,
        };
        let of_profile = [
            ("endpoint", endpoint.map(Value::from)),
            ("client_id", self.credentials.client_id.clone().map(Value::from)),
            ("client_secret_file", file("the client's secret", secret)),
            ("token_file", file("a service token", token)),
            ("ca_file", self.ca_file.as_deref().map(path)),
        ];
        for (key, value) in of_profile.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
            line(&profile, key, value);
        }
        let of_all = [
            ("vault_key_file", self.vault_key_file.as_deref().map(path)),
            ("models", Some(path(&self.models))),
            ("language", self.language.clone().map(Value::from)),
        ];
        for (key, value) in of_all.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
            line("", key, value);
        }
        let gateway = toml::Table::try_from(&self.gateway).expect("it is a table");
        let mut of_gateway = String::new();
        for (key, value) in &gateway {
            let _ = writeln!(of_gateway, "{key} = {value}  # {}", source("gateway.", key));
        }
        format!("{text}{given}\n[gateway]\n{of_gateway}")
    }
}
