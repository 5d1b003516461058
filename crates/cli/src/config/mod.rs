//! The configuration: defaults, overridden by the configuration file, overridden by environment and flags.
//!
//! [`Settings`] holds the values as given; [`Config`] holds the resolved and validated configuration.

mod file;
pub mod gateway;
mod raw;
mod secret;
mod show;
pub mod values;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use secrecy::SecretString;

pub use self::file::ConfigFile;
use self::gateway::GatewayConfig;
pub use self::secret::SecretSource;
pub(crate) use self::secret::is_empty_variable;
use voxline::auth::{Vault, VaultKey};
use voxline::language::{Languages, UnknownLanguage};
use voxline::net::{Endpoint, EndpointError, HostName};

/// Settings from flags and environment. A flag overrides its variable; the command line parser resolves that.
///
/// The type has no `Debug` output, since an address that is not yet parsed may contain a password.
#[derive(Clone, Default)]
pub struct Settings {
    /// Configuration file, instead of the user's default file.
    pub config: Option<PathBuf>,
    /// Profile in the file, instead of the profile without a name.
    pub profile: Option<String>,
    /// Address of the service.
    pub endpoint: Option<String>,
    /// Client id of the project.
    pub client_id: Option<String>,
    /// Source of the client secret.
    pub client_secret: Option<SecretSource>,
    /// Source of a service token.
    pub token: Option<SecretSource>,
    /// File of certificates of authorities to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// Other hosts to which the service may move sessions.
    pub follow_hosts: Vec<HostName>,
    /// File with the key that encrypts tokens on disk.
    pub vault_key_file: Option<PathBuf>,
    /// Directory of models.
    pub models: Option<PathBuf>,
    /// Recogniser: the name of a model, or a directory.
    pub model: Option<String>,
    /// Spoken language.
    pub language: Option<String>,
    /// Settings of the gateway, by the keys of the file's table `[gateway]`.
    pub gateway: toml::Table,
}

/// The resolved configuration of the program.
#[derive(Clone)]
pub struct Config {
    /// Configuration file, if there is one.
    pub file: Option<PathBuf>,
    endpoint: Option<String>,
    credentials: Credentials,
    /// File of certificates of authorities to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// Other hosts to which the service may move sessions, and which then receive its tokens.
    pub follow_hosts: Vec<HostName>,
    /// Directory of models.
    pub models: PathBuf,
    /// `true` if `models` is the user's default directory.
    usual_models: bool,
    /// Recogniser of a gateway that this program runs: the name of a model in `models`, or the directory of a
    /// model elsewhere.
    pub model: String,
    /// Directory of stored tokens.
    pub tokens: PathBuf,
    vault_key_file: Option<PathBuf>,
    /// Spoken language as a BCP 47 tag; detected if absent.
    pub language: Option<String>,
    /// Candidate spoken languages; a gateway's default for clients that name none.
    pub languages: Languages,
    /// Configuration of a gateway, if one is run.
    pub gateway: GatewayConfig,
    /// Names of all profiles in the file.
    pub profiles: Vec<String>,
    profile: Option<String>,
    /// Keys present in the file; a key in a table is prefixed with the table's name and a dot.
    written: BTreeSet<String>,
}

/// Sources of the given credentials.
#[derive(Clone, Debug, Default)]
struct Credentials {
    client_id: Option<String>,
    client_secret: Option<SecretSource>,
    token: Option<SecretSource>,
}

/// The service that performs recognition and synthesis.
#[derive(Clone, Debug)]
pub enum Service {
    /// A gateway inside this process.
    Embedded,
    /// A remote service.
    Remote {
        /// Address of the service.
        endpoint: Endpoint,
        /// Credentials for the service.
        access: Access,
    },
}

/// Credentials for a service.
#[derive(Clone, Debug)]
pub enum Access {
    /// OAuth, with a client's credentials.
    Client {
        /// Client id.
        id: String,
        /// Client secret.
        secret: SecretString,
    },
    /// A service token.
    ServiceToken(SecretString),
}

/// An invalid configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file that can't be read.
    #[error("{path}: {error}")]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Cause of the failure.
        error: io::Error,
    },
    /// A configuration file that can't be parsed.
    #[error("{path}, line {line}: {reason}")]
    Parse {
        /// Path of the file.
        path: PathBuf,
        /// Line of the error.
        line: usize,
        /// Description of the error.
        reason: String,
    },
    /// A key of a configuration file that is unknown or has an invalid value.
    #[error("{path}, line {line}, {key}: {reason}")]
    Value {
        /// Path of the file.
        path: PathBuf,
        /// Line of the key.
        line: usize,
        /// Key, with the name of its table.
        key: String,
        /// Description of the error.
        reason: String,
    },
    /// A file that should contain a secret and is empty.
    #[error("{path}: is empty, a secret was expected")]
    EmptySecret {
        /// Path of the file.
        path: PathBuf,
    },
    /// A file that should contain a key and doesn't.
    #[error("{path}: is not a key of 32 bytes or 64 hexadecimal digits")]
    BadKey {
        /// Path of the file.
        path: PathBuf,
    },
    /// A file with a secret or a key that other users can read.
    #[error("{path}: can be read by others: {remedy}")]
    Exposed {
        /// Path of the file.
        path: PathBuf,
        /// Change to the file after which it is accepted.
        remedy: &'static str,
    },
    /// Invalid settings of the gateway.
    #[error("gateway: {reason}")]
    Gateway {
        /// Description of the error.
        reason: String,
    },
    /// An unknown profile.
    #[error("no profile '{name}' in the configuration file, which has: {known}")]
    UnknownProfile {
        /// Name of the profile.
        name: String,
        /// Names of the known profiles.
        known: String,
    },
    /// An invalid address of the service.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A required setting is missing, or settings exclude each other.
    #[error("{reason}")]
    Incomplete {
        /// Key of a setting that is missing or contradicts another, with the name of its table.
        key: &'static str,
        /// Description of the error.
        reason: &'static str,
    },
    /// An unknown language.
    #[error(transparent)]
    Language(#[from] UnknownLanguage),
    /// The user has no home directory.
    #[error("no home directory: set HOME{0}")]
    NoHome(&'static str),
}

impl Config {
    /// Resolves `settings` and the configuration file.
    ///
    /// # Errors
    /// Returns [`ConfigError`] if a file can't be read or the result is not valid.
    pub fn load(settings: Settings) -> Result<Config, ConfigError> {
        let file = ConfigFile::read(settings.config.clone())?;
        let (config, unknown) = file.resolve(settings)?;
        file.contents.problems.into_iter().chain(unknown).next().map_or(Ok(config), Err)
    }

    /// Returns the name of the profile that was asked for, if any.
    pub(crate) fn profile(&self) -> Option<&str> {
        self.profile.as_deref()
    }

    /// Returns whether any setting of the gateway differs from its default.
    #[must_use]
    pub fn has_gateway(&self) -> bool {
        self.gateway != GatewayConfig::default()
    }

    /// Returns the directory of the recogniser's model. A name with a slash is a path, as in a shell.
    #[must_use]
    pub fn recognizer(&self) -> PathBuf {
        if self.model_is_path() { PathBuf::from(&self.model) } else { self.models.join(&self.model) }
    }

    pub(crate) fn model_is_path(&self) -> bool {
        self.model.contains(std::path::is_separator) || matches!(&*self.model, "." | "..")
    }

    /// Returns the command that downloads a model to the directory of models.
    #[must_use]
    pub fn pull(&self, model: &str) -> String {
        if self.usual_models {
            return format!("voxline models pull {model}");
        }
        let place = self.models.display().to_string();
        // Quote the path for a shell, if necessary.
        let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
        let place =
            if place.chars().all(is_plain) { place } else { format!("'{}'", place.replace('\'', r"'\''")) };
        format!("voxline models pull {model} --models {place}")
    }

    /// Returns the service that performs recognition and synthesis. Reads the files that contain secrets.
    ///
    /// # Errors
    /// Returns [`ConfigError`] if the settings are incomplete or contradictory, or a secret can't be read.
    pub fn service(&self) -> Result<Service, ConfigError> {
        self.service_with(&self.credentials)
    }

    /// Returns the service for these credentials.
    fn service_with(&self, credentials: &Credentials) -> Result<Service, ConfigError> {
        let Credentials { client_id, client_secret, token } = credentials;
        let incomplete = |key, reason| ConfigError::Incomplete { key, reason };
        let Some(endpoint) = &self.endpoint else {
            return match (client_id, client_secret, token) {
                (None, None, None) => Ok(Service::Embedded),
                _ => Err(incomplete(
                    "endpoint",
                    "credentials are given without the --endpoint that they are for",
                )),
            };
        };
        let endpoint = endpoint.parse()?;
        if self.languages.iter().count() > 1 {
            let reason = "a remote service takes one --language or auto, not a list";
            return Err(incomplete("language", reason));
        }
        let (key, expected) = match (client_id, client_secret, token) {
            (None, None, Some(token)) => {
                let access = Access::ServiceToken(token.read()?);
                return Ok(Service::Remote { endpoint, access });
            }
            (Some(id), Some(secret), None) => {
                let access = Access::Client { id: id.clone(), secret: secret.read()? };
                return Ok(Service::Remote { endpoint, access });
            }
            (None, None, None) => {
                ("client_id", "an --endpoint needs --client-id with --client-secret-file, or --token-file")
            }
            (_, _, Some(_)) => ("token_file", "a service token excludes --client-id and the client's secret"),
            (Some(_), None, None) => {
                ("client_secret_file", "--client-id and --client-secret-file go together")
            }
            (None, Some(_), None) => ("client_id", "--client-id and --client-secret-file go together"),
        };
        Err(incomplete(key, expected))
    }

    /// Returns the problems of the service and its credentials, each with its key. A secret on standard
    /// input is left to the command that uses it.
    #[must_use]
    pub fn service_problems(&self) -> Vec<(&'static str, ConfigError)> {
        // invariant: each file is read once, since a pipe can't be read again.
        let mut credentials = self.credentials.clone();
        let Credentials { client_secret, token, .. } = &mut credentials;
        let endpoint = self.endpoint.as_deref().and_then(|endpoint| endpoint.parse::<Endpoint>().err());
        let mut problems: Vec<_> = endpoint.map(|error| ("endpoint", error.into())).into_iter().collect();
        for (key, source) in [("client_secret_file", client_secret), ("token_file", token)] {
            let Some(file @ SecretSource::File(_)) = source else { continue };
            match file.read() {
                Ok(secret) => *file = SecretSource::Given(secret),
                Err(error) => problems.push((key, error)),
            }
        }
        if problems.is_empty() && !self.reads_stdin() {
            problems.extend(self.service_with(&credentials).err().map(|error| match error {
                ConfigError::Incomplete { key, .. } => (key, error),
                error => ("endpoint", error),
            }));
        }
        problems
    }

    /// Returns the vault for the tokens of `client_id` at `endpoint`. The vault is encrypted if there is a
    /// [key](Config::vault_key).
    ///
    /// # Errors
    /// Returns [`ConfigError`] if the key can't be read or is not valid.
    pub fn vault(&self, endpoint: &Endpoint, client_id: &str) -> Result<Vault, ConfigError> {
        let vault = Vault::new(&self.tokens, endpoint, client_id);
        Ok(self.vault_key()?.into_iter().fold(vault, Vault::encrypted))
    }

    /// Returns the key that encrypts tokens on disk, if there is one: in the configured file, or in the
    /// credential `voxline-vault-key` that systemd passes to its service.
    ///
    /// # Errors
    /// Returns [`ConfigError`] if the key can't be read or is not valid.
    pub fn vault_key(&self) -> Result<Option<VaultKey>, ConfigError> {
        let path = self.vault_key_file.clone().or_else(|| secret::systemd_credential("voxline-vault-key"));
        path.map(|path| secret::vault_key(&path)).transpose()
    }

    /// Returns whether a secret is read from standard input.
    #[must_use]
    pub fn reads_stdin(&self) -> bool {
        let Credentials { client_secret, token, .. } = &self.credentials;
        [client_secret, token].into_iter().flatten().any(|source| matches!(source, SecretSource::Stdin))
    }
}

impl Credentials {
    /// Completes these credentials from `below` if both are of the same kind.
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
