//! Sources of secrets: files, standard input, the environment. Flags are no source, since every user of the
//! machine can see them.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::ConfigError;
use voxline::auth::VaultKey;
use voxline_support::private_file;

/// Longest secret read, in bytes.
const MAX_SECRET: u64 = 64 * 1024;

/// The source of a secret.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// The first line of a file.
    File(PathBuf),
    /// The first line of standard input.
    Stdin,
    /// The secret itself.
    Given(SecretString),
}

impl SecretSource {
    /// Returns the source for a flag and its environment variable: a path of `-` is standard input, and the
    /// variable applies if there is no path.
    #[must_use]
    pub fn named(path: Option<PathBuf>, variable: &str) -> Option<SecretSource> {
        match path {
            Some(path) if path.as_os_str() == "-" => Some(SecretSource::Stdin),
            Some(path) => Some(SecretSource::File(path)),
            None => environment(variable).map(|text| SecretSource::Given(text.trim().into())),
        }
    }

    /// Reads the secret.
    pub(crate) fn read(&self) -> Result<SecretString, ConfigError> {
        let (name, text) = match self {
            SecretSource::Given(secret) => return Ok(secret.clone()),
            SecretSource::Stdin => (Path::new("standard input"), first_line(io::stdin().lock())),
            SecretSource::File(path) => (path.as_path(), first_line(BufReader::new(open_private(path)?))),
        };
        let text = text.map_err(|error| ConfigError::Read { path: name.to_owned(), error })?;
        match text.trim() {
            "" => Err(ConfigError::EmptySecret { path: name.to_owned() }),
            secret => Ok(SecretString::from(secret)),
        }
    }
}

fn first_line(source: impl BufRead) -> io::Result<String> {
    let mut text = String::new();
    source.take(MAX_SECRET).read_line(&mut text)?;
    Ok(text)
}

/// Opens a file that holds a secret, and refuses one that other users can read. Pipes and credentials of
/// systemd are accepted whatever their mode.
fn open_private(path: &Path) -> Result<File, ConfigError> {
    let open = || -> io::Result<(File, Metadata)> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok((file, metadata))
    };
    let (file, metadata) = open().map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
    if private_file::exposes_secret(&metadata) && !is_systemd_credential(path) {
        let remedy = private_file::secret_remedy(&metadata);
        return Err(ConfigError::Exposed { path: path.to_owned(), remedy });
    }
    Ok(file)
}

/// Reads the key in a file.
pub(super) fn vault_key(path: &Path) -> Result<VaultKey, ConfigError> {
    let mut bytes = Vec::new();
    let read = open_private(path)?.take(MAX_SECRET).read_to_end(&mut bytes);
    read.map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
    VaultKey::parse(&bytes).ok_or_else(|| ConfigError::BadKey { path: path.to_owned() })
}

/// Returns the file of a credential that systemd passes to its service (systemd.exec(5), `LoadCredential=`).
/// Other users can't read the file, whatever its mode says.
pub(super) fn systemd_credential(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(environment("CREDENTIALS_DIRECTORY")?).join(name);
    // A file that can't be examined exists, and opening it reports the reason.
    path.try_exists().unwrap_or(true).then_some(path)
}

/// Returns whether the file is such a credential.
pub(super) fn is_systemd_credential(path: &Path) -> bool {
    environment("CREDENTIALS_DIRECTORY").is_some_and(|directory| path.parent() == Some(Path::new(&directory)))
}

/// Returns whether the variable is set to an empty string, which counts as unset.
#[expect(clippy::disallowed_methods, reason = "the environment is read in config")]
pub(crate) fn is_empty_variable(name: &OsStr) -> bool {
    std::env::var_os(name).is_some_and(|value| value.is_empty())
}

/// Returns the value of a variable that is set and not empty.
#[expect(clippy::disallowed_methods, reason = "the environment is read in config")]
fn environment(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|text| !text.is_empty())
}
