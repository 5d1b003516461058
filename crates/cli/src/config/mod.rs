//! What the program is to do with whom: defaults, then the configuration file, then environment and flags.
//!
//! [`Settings`] is what was typed; [`Config`] is what it means, and holds only what can work.

pub mod gateway;
mod raw;
mod secret;
mod show;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use etcetera::{BaseStrategy, choose_base_strategy};
use secrecy::SecretString;
use serde::Deserialize;

use self::gateway::GatewayConfig;
use self::raw::Raw;
pub use self::secret::SecretSource;
pub(crate) use self::secret::is_empty_variable;
use voxline::auth::{Vault, VaultKey};
use voxline::language::{Language, Languages, UnknownLanguage};
use voxline::net::{BadEndpoint, Endpoint, HostName};
use voxline_engines::models::WHISPER_BASE;

/// What flags and environment say; a flag wins over its variable, which the command line has settled already.
///
/// It is not for printing: an address that was not looked at yet may hold a password.
#[derive(Clone, Default)]
pub struct Settings {
    /// The configuration file, where another than the user's own is wanted.
    pub config: Option<PathBuf>,
    /// The profile in it, where another than the one without a name is wanted.
    pub profile: Option<String>,
    /// The service's address.
    pub endpoint: Option<String>,
    /// The client id of the project.
    pub client_id: Option<String>,
    /// Where the client's secret is.
    pub client_secret: Option<SecretSource>,
    /// Where a service token is.
    pub token: Option<SecretSource>,
    /// The file with certificates of authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Other hosts to which the service may move sessions.
    pub follow_hosts: Vec<HostName>,
    /// The file with the key that encrypts tokens on disk.
    pub vault_key_file: Option<PathBuf>,
    /// The directory of models.
    pub models: Option<PathBuf>,
    /// The recogniser: a model's name, or a directory.
    pub model: Option<String>,
    /// The language spoken.
    pub language: Option<String>,
    /// What is said of the gateway, by the keys of its table in the file.
    pub gateway: toml::Table,
}

/// What the program is to do with whom.
#[derive(Clone)]
pub struct Config {
    endpoint: Option<String>,
    credentials: Credentials,
    /// A file with certificates of authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Other hosts to which the service may move sessions, and which are shown its tokens then.
    pub follow_hosts: Vec<HostName>,
    /// Where models are kept.
    pub models: PathBuf,
    /// Whether that is the user's own directory of them.
    usual_models: bool,
    /// The recogniser of a gateway that this program runs: the name of one of those models, or the directory of one
    /// that is elsewhere.
    pub model: String,
    /// Where tokens are kept.
    pub tokens: PathBuf,
    vault_key_file: Option<PathBuf>,
    /// The language spoken, as a BCP 47 tag; detected where absent.
    pub language: Option<String>,
    /// The languages of which one is spoken; a gateway's default for clients that name none.
    pub languages: Languages,
    /// How a gateway is to be run, where one is.
    pub gateway: GatewayConfig,
    /// The names of all profiles in the file.
    pub profiles: Vec<String>,
    profile: Option<String>,
    /// Which keys are in the file, those of tables after the table's name and a dot.
    written: BTreeSet<String>,
}

/// Where the credentials are that were given.
#[derive(Clone, Debug, Default)]
struct Credentials {
    client_id: Option<String>,
    client_secret: Option<SecretSource>,
    token: Option<SecretSource>,
}

/// Who recognises and speaks.
#[derive(Clone, Debug)]
pub enum Service {
    /// A gateway inside this process.
    Embedded,
    /// A service elsewhere.
    Remote {
        /// Its address.
        endpoint: Endpoint,
        /// How to be let in.
        access: Access,
    },
}

/// How to be let in.
#[derive(Clone, Debug)]
pub enum Access {
    /// By OAuth, with a project's credentials.
    Client {
        /// The client id.
        id: String,
        /// Its secret.
        secret: SecretString,
    },
    /// By a service token.
    ServiceToken(SecretString),
}

/// Why a configuration can't work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file can't be read.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The configuration file can't be understood.
    #[error("{path}, line {line}: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// Why.
        reason: String,
    },
    /// A file that should hold a secret holds none.
    #[error("{path}: holds no text, a secret was expected")]
    EmptySecret {
        /// The file.
        path: PathBuf,
    },
    /// A file that should hold a key holds none.
    #[error("{path}: is no key, which has 32 bytes, or 64 hexadecimal digits")]
    BadKey {
        /// The file.
        path: PathBuf,
    },
    /// Others could have read a key.
    #[error("{path}: can be read by others: run chmod 600 on it")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// What is said of the gateway doesn't fit.
    #[error("gateway: {reason}")]
    Gateway {
        /// Why.
        reason: String,
    },
    /// No profile has that name.
    #[error("no profile '{name}' in the configuration file, which has: {known}")]
    UnknownProfile {
        /// The name.
        name: String,
        /// Those that are there.
        known: String,
    },
    /// The address is no use.
    #[error(transparent)]
    Endpoint(#[from] BadEndpoint),
    /// Something is missing that goes with what is there.
    #[error("{0}")]
    Incomplete(&'static str),
    /// No language has that name.
    #[error(transparent)]
    Language(#[from] UnknownLanguage),
    /// The user has no home directory.
    #[error("no home directory: set HOME, or name {0}")]
    NoHome(&'static str),
}

impl Config {
    /// Settles what `settings` and the configuration file say together.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(settings: Settings) -> Result<Config, ConfigError> {
        let home = choose_base_strategy().ok();
        let (raw, file) = match (&settings.config, &home) {
            (Some(path), _) => Raw::read(path, true)?,
            (None, Some(home)) => Raw::read(&home.config_dir().join("voxline/config.toml"), false)?,
            (None, None) => Default::default(),
        };
        let mut gateway = file.get("gateway").and_then(toml::Value::as_table).cloned().unwrap_or_default();
        gateway.extend(settings.gateway);
        // What the file says was looked at when it was read, and the rest when it was typed.
        let gateway = GatewayConfig::deserialize(gateway)
            .map_err(|error| ConfigError::Gateway { reason: raw::first_line(error.message()) })?;
        let profile = raw.profile(settings.profile.as_deref())?;
        let models = settings.models.or(raw.models);
        let usual_models = models.is_none();
        let models = models.or_else(|| Some(home.as_ref()?.cache_dir().join("voxline/models")));
        let tokens = home.map(|home| home.data_dir().join("voxline/tokens"));
        let languages = settings.language.or(raw.language);
        let languages: Languages = languages.as_deref().map(str::parse).transpose()?.unwrap_or_default();
        let typed = Credentials {
            client_id: settings.client_id,
            client_secret: settings.client_secret,
            token: settings.token,
        };
        let elsewhere = settings.endpoint.is_some() && settings.endpoint != profile.endpoint;
        let (written, follow_hosts) = if elsewhere {
            // The file's credentials are for the file's endpoint, and must not be shown to another; nor may
            // another send sessions to the hosts of the file.
            (Credentials::default(), Vec::new())
        } else {
            let credentials = Credentials {
                client_id: profile.client_id,
                client_secret: profile.client_secret_file.map(SecretSource::File),
                token: profile.token_file.map(SecretSource::File),
            };
            (credentials, profile.follow_host)
        };
        Ok(Config {
            endpoint: settings.endpoint.or(profile.endpoint),
            credentials: typed.over(written),
            ca_file: settings.ca_file.or(profile.ca_file),
            follow_hosts: if settings.follow_hosts.is_empty() { follow_hosts } else { settings.follow_hosts },
            models: models.ok_or(ConfigError::NoHome("a directory with --models"))?,
            tokens: tokens.ok_or(ConfigError::NoHome("one"))?,
            usual_models,
            model: settings.model.or(raw.model).unwrap_or_else(|| WHISPER_BASE.to_owned()),
            vault_key_file: settings.vault_key_file.or(raw.vault_key_file),
            language: languages.only().map(Language::to_string),
            languages,
            gateway,
            profiles: raw.profiles.into_keys().collect(),
            profile: settings.profile,
            written: written_keys("", &file),
        })
    }

    /// Whether anything is said of a gateway.
    #[must_use]
    pub fn has_gateway(&self) -> bool {
        self.gateway != GatewayConfig::default()
    }

    /// The directory of the recogniser's model. What has a slash in it is a path, as it is to a shell; the rest is a name.
    #[must_use]
    pub fn recognizer(&self) -> PathBuf {
        if self.model_is_path() { PathBuf::from(&self.model) } else { self.models.join(&self.model) }
    }

    pub(crate) fn model_is_path(&self) -> bool {
        self.model.contains(std::path::is_separator) || matches!(&*self.model, "." | "..")
    }

    /// The command that fetches a model to where models are kept.
    #[must_use]
    pub fn pull(&self, model: &str) -> String {
        if self.usual_models {
            return format!("voxline models pull {model}");
        }
        let place = self.models.display().to_string();
        // As a shell wants it.
        let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
        let place =
            if place.chars().all(is_plain) { place } else { format!("'{}'", place.replace('\'', r"'\''")) };
        format!("voxline models pull {model} --models {place}")
    }

    /// Who recognises and speaks. Reads the files that hold secrets.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn service(&self) -> Result<Service, ConfigError> {
        let Credentials { client_id, client_secret, token } = &self.credentials;
        let Some(endpoint) = &self.endpoint else {
            return match (client_id, client_secret, token) {
                (None, None, None) => Ok(Service::Embedded),
                _ => Err(ConfigError::Incomplete("credentials are given, but no --endpoint to use them at")),
            };
        };
        let endpoint = endpoint.parse()?;
        if self.languages.iter().count() > 1 {
            let reason = "a service elsewhere takes one --language, or auto, and no list";
            return Err(ConfigError::Incomplete(reason));
        }
        let expected = match (client_id, client_secret, token) {
            (None, None, Some(token)) => {
                let access = Access::ServiceToken(token.read()?);
                return Ok(Service::Remote { endpoint, access });
            }
            (Some(id), Some(secret), None) => {
                let access = Access::Client { id: id.clone(), secret: secret.read()? };
                return Ok(Service::Remote { endpoint, access });
            }
            (None, None, None) => {
                "an --endpoint needs --client-id with --client-secret-file, or --token-file"
            }
            (_, _, Some(_)) => "a service token excludes --client-id and the client's secret",
            _ => "--client-id and --client-secret-file go together",
        };
        Err(ConfigError::Incomplete(expected))
    }

    /// Where the tokens are kept that `client_id` has at `endpoint`, encrypted where there is a key: in the file that was
    /// named, or in the credential `voxline-vault-key` that systemd hands to its service.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn vault(&self, endpoint: &Endpoint, client_id: &str) -> Result<Vault, ConfigError> {
        let vault = Vault::new(&self.tokens, endpoint, client_id);
        Ok(self.vault_key()?.into_iter().fold(vault, Vault::encrypted))
    }

    /// Whether the key that encrypts tokens on disk can be used, where one is named.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn check_vault_key(&self) -> Result<(), ConfigError> {
        self.vault_key().map(drop)
    }

    fn vault_key(&self) -> Result<Option<VaultKey>, ConfigError> {
        match &self.vault_key_file {
            Some(path) => secret::vault_key(path, true).map(Some),
            None => {
                let credential = secret::systemd_credential("voxline-vault-key");
                credential.map(|path| secret::vault_key(&path, false)).transpose()
            }
        }
    }

    /// Whether a secret comes by standard input.
    #[must_use]
    pub fn reads_stdin(&self) -> bool {
        let Credentials { client_secret, token, .. } = &self.credentials;
        [client_secret, token].into_iter().flatten().any(|source| matches!(source, SecretSource::Stdin))
    }
}

/// The keys of a table and of those in it, each after `prefix`.
fn written_keys(prefix: &str, table: &toml::Table) -> BTreeSet<String> {
    let keys = table.iter().flat_map(|(key, value)| match value {
        toml::Value::Table(table) => written_keys(&format!("{prefix}{key}."), table),
        _ => BTreeSet::from([format!("{prefix}{key}")]),
    });
    keys.collect()
}

impl Credentials {
    /// These, completed from `below` where they are of the same kind.
    fn over(self, below: Credentials) -> Credentials {
        match (&self.client_id, &self.client_secret, &self.token) {
            (None, None, None) => below,
            (None, None, Some(_)) => self,
            _ => Credentials {
                client_id: self.client_id.or(below.client_id),
                client_secret: self.client_secret.or(below.client_secret),
                token: self.token,
            },
        }
    }
}
