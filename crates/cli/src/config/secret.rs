//! Where secrets come from: files, standard input, the environment. Never flags, which every user of the machine sees.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::ConfigError;
use voxline::auth::VaultKey;
use voxline_support::private_file;

/// The longest secret read.
const MAX_SECRET: u64 = 64 * 1024;

/// Where a secret is.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// In the first line of a file.
    File(PathBuf),
    /// In the first line of standard input.
    Stdin,
    /// Here.
    Given(SecretString),
}

impl SecretSource {
    /// The source that `path` and the environment name: a path of `-` is standard input, and the variable serves where
    /// there is no path.
    #[must_use]
    pub fn named(path: Option<PathBuf>, variable: &str) -> Option<SecretSource> {
        match path {
            Some(path) if path.as_os_str() == "-" => Some(SecretSource::Stdin),
            Some(path) => Some(SecretSource::File(path)),
            None => environment(variable).map(|text| SecretSource::Given(text.trim().into())),
        }
    }

    /// The secret.
    pub(super) fn read(&self) -> Result<SecretString, ConfigError> {
        let (name, text) = match self {
            SecretSource::Given(secret) => return Ok(secret.clone()),
            SecretSource::Stdin => (Path::new("standard input"), first_line(io::stdin().lock())),
            SecretSource::File(path) => {
                (path.as_path(), File::open(path).and_then(|file| first_line(BufReader::new(file))))
            }
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

/// The key in a file, which must be its owner's alone where it is `private`.
pub(super) fn vault_key(path: &Path, private: bool) -> Result<VaultKey, ConfigError> {
    let read = || -> io::Result<(bool, Vec<u8>)> {
        let file = File::open(path)?;
        let exposed = private_file::is_exposed(&file.metadata()?);
        let mut bytes = Vec::new();
        file.take(MAX_SECRET).read_to_end(&mut bytes)?;
        Ok((exposed, bytes))
    };
    let (exposed, bytes) = read().map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
    if private && exposed {
        return Err(ConfigError::Exposed { path: path.to_owned() });
    }
    VaultKey::parse(&bytes).ok_or_else(|| ConfigError::BadKey { path: path.to_owned() })
}

/// The file of a credential that systemd hands to its service (systemd.exec(5), `LoadCredential=`), which nobody else
/// can read, whatever its mode says.
pub(super) fn systemd_credential(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(environment("CREDENTIALS_DIRECTORY")?).join(name);
    // One that can't even be looked at is there, and opening it tells why.
    path.try_exists().unwrap_or(true).then_some(path)
}

/// Whether the file is such a credential.
pub(super) fn is_systemd_credential(path: &Path) -> bool {
    environment("CREDENTIALS_DIRECTORY").is_some_and(|directory| path.parent() == Some(Path::new(&directory)))
}

/// Whether the variable is set to nothing, and so says nothing.
#[expect(clippy::disallowed_methods, reason = "the environment is read in config")]
pub(crate) fn is_empty_variable(name: &OsStr) -> bool {
    std::env::var_os(name).is_some_and(|value| value.is_empty())
}

/// A variable that is set to something.
#[expect(clippy::disallowed_methods, reason = "the environment is read in config")]
fn environment(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|text| !text.is_empty())
}
