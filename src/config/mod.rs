//! What the program is to do with whom: defaults, then the configuration file, then environment and flags.
//!
//! [`Settings`] is what was typed; [`Config`] is what it means, and holds only what can work.

mod raw;

use std::io;
use std::path::{Path, PathBuf};

use etcetera::{BaseStrategy, choose_base_strategy};
use secrecy::SecretString;

use self::raw::Raw;
use crate::net::{BadEndpoint, Endpoint};

/// The longest secret read from a file.
const MAX_SECRET: u64 = 64 * 1024;

/// What flags and environment say; a flag wins over its variable, which the command line has settled already.
///
/// It is not for printing: an address that was not looked at yet may hold a password.
#[derive(Clone, Default)]
pub struct Settings {
    /// The configuration file, where another than the user's own is wanted.
    pub config: Option<PathBuf>,
    /// The service's address.
    pub endpoint: Option<String>,
    /// The client id of the project.
    pub client_id: Option<String>,
    /// The file that holds the client's secret.
    pub client_secret_file: Option<PathBuf>,
    /// The file that holds a service token.
    pub token_file: Option<PathBuf>,
    /// The file of certificates that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The directory of models.
    pub models: Option<PathBuf>,
    /// The language spoken.
    pub language: Option<String>,
}

/// What the program is to do with whom.
#[derive(Clone)]
pub struct Config {
    endpoint: Option<String>,
    credentials: Credentials,
    /// The file of certificates that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Where models are kept.
    pub models: PathBuf,
    /// Where tokens are kept.
    pub tokens: PathBuf,
    /// The language spoken; detected where absent.
    pub language: Option<String>,
}

/// Where the credentials are that were given.
#[derive(Clone, Debug, Default)]
struct Credentials {
    client_id: Option<String>,
    client_secret_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
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
    /// The address is no use.
    #[error(transparent)]
    Endpoint(#[from] BadEndpoint),
    /// Something is missing that goes with what is there.
    #[error("{0}")]
    Incomplete(&'static str),
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
        let raw = match (&settings.config, &home) {
            (Some(path), _) => Raw::read(path, true)?,
            (None, Some(home)) => Raw::read(&home.config_dir().join("voxline/config.toml"), false)?,
            (None, None) => Raw::default(),
        };
        let models = settings.models.or(raw.models);
        let models = models.or_else(|| Some(home.as_ref()?.cache_dir().join("voxline/models")));
        let tokens = home.map(|home| home.data_dir().join("voxline/tokens"));
        let typed = Credentials {
            client_id: settings.client_id,
            client_secret_file: settings.client_secret_file,
            token_file: settings.token_file,
        };
        let elsewhere = settings.endpoint.is_some() && settings.endpoint != raw.endpoint;
        let written = match elsewhere {
            // The file's credentials are for the file's endpoint, and must not be shown to another.
            true => Credentials::default(),
            false => Credentials {
                client_id: raw.client_id,
                client_secret_file: raw.client_secret_file,
                token_file: raw.token_file,
            },
        };
        Ok(Config {
            endpoint: settings.endpoint.or(raw.endpoint),
            credentials: typed.over(written),
            ca_file: settings.ca_file.or(raw.ca_file),
            models: models.ok_or(ConfigError::NoHome("a directory with --models"))?,
            tokens: tokens.ok_or(ConfigError::NoHome("one"))?,
            language: settings.language.or(raw.language),
        })
    }

    /// Who recognises and speaks. Reads the files that hold secrets.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn service(&self) -> Result<Service, ConfigError> {
        let Credentials { client_id, client_secret_file, token_file } = &self.credentials;
        let Some(endpoint) = &self.endpoint else {
            return match (client_id, client_secret_file, token_file) {
                (None, None, None) => Ok(Service::Embedded),
                _ => Err(ConfigError::Incomplete("credentials are given, but no --endpoint to use them at")),
            };
        };
        let endpoint = endpoint.parse()?;
        let expected = match (client_id, client_secret_file, token_file) {
            (None, None, Some(token)) => {
                let access = Access::ServiceToken(secret_from(token)?);
                return Ok(Service::Remote { endpoint, access });
            }
            (Some(id), Some(secret), None) => {
                let access = Access::Client { id: id.clone(), secret: secret_from(secret)? };
                return Ok(Service::Remote { endpoint, access });
            }
            (None, None, None) => {
                "an --endpoint needs --client-id with --client-secret-file, or --token-file"
            }
            (_, _, Some(_)) => "--token-file excludes --client-id and --client-secret-file",
            _ => "--client-id and --client-secret-file go together",
        };
        Err(ConfigError::Incomplete(expected))
    }
}

impl Credentials {
    /// These, completed from `below` where they are of the same kind.
    fn over(self, below: Credentials) -> Credentials {
        match (&self.client_id, &self.client_secret_file, &self.token_file) {
            (None, None, None) => below,
            (None, None, Some(_)) => self,
            _ => Credentials {
                client_id: self.client_id.or(below.client_id),
                client_secret_file: self.client_secret_file.or(below.client_secret_file),
                token_file: self.token_file,
            },
        }
    }
}

/// The first line of a file, which holds a secret.
fn secret_from(path: &Path) -> Result<SecretString, ConfigError> {
    use std::io::Read;
    let read = || {
        let mut text = String::new();
        std::fs::File::open(path)?.take(MAX_SECRET).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
    match text.lines().next().map(str::trim) {
        None | Some("") => Err(ConfigError::EmptySecret { path: path.to_owned() }),
        Some(secret) => Ok(SecretString::from(secret)),
    }
}
