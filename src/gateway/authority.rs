//! Who may use the gateway: projects, and the tokens minted for them.
//!
//! Secrets are kept as SHA-256 only: they are random 256-bit strings, so there is nothing to guess and no need for a
//! slow hash. All state is in one transactional store; a change is on the disk before it is answered.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::auth::{create_private_dir, create_private_file};
use crate::clock::Clock;

/// The documented limit of refresh tokens a project, and of live access tokens a refresh token.
pub const MAX_TOKENS: usize = 25;

type Key = [u8; 32];

/// Client id to [`Project`].
const PROJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("projects");
/// Hash of a refresh token to [`Refresh`].
const REFRESH: TableDefinition<&Key, &[u8]> = TableDefinition::new("refresh_tokens");
/// Hash of an access token to [`Access`].
const ACCESS: TableDefinition<&Key, &[u8]> = TableDefinition::new("access_tokens");
/// Hash of a service token to [`Service`].
const SERVICE: TableDefinition<&Key, &[u8]> = TableDefinition::new("service_tokens");

#[derive(Serialize, Deserialize)]
struct Project {
    name: String,
    secret: Key,
}

/// What stands in for a project that doesn't exist. No secret has this hash.
static NOBODY: LazyLock<Vec<u8>> =
    LazyLock::new(|| encode(&Project { name: "nobody".to_owned(), secret: [u8::MAX; 32] }));

#[derive(Serialize, Deserialize)]
struct Refresh {
    client_id: String,
}

#[derive(Serialize, Deserialize)]
struct Access {
    client_id: String,
    refresh: Key,
    /// Milliseconds since the Unix epoch.
    expires_at: u64,
}

#[derive(Serialize, Deserialize)]
struct Service {
    client_id: String,
}

/// Why the authority says no, or can't say anything.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The store can't be opened, read or written.
    #[error("gateway state {path}: {reason}")]
    Store {
        /// The store.
        path: String,
        /// Why.
        reason: String,
    },
    /// No such client, or the secret is not its.
    #[error("client id or secret is wrong")]
    Client,
    /// No such refresh token of this client.
    #[error("refresh token is unknown")]
    RefreshToken,
    /// The project's tokens are used up.
    #[error("limit of {MAX_TOKENS} {0} reached")]
    Limit(&'static str),
    /// A name that can't be printed on one line.
    #[error("name of a project should have 1 to 100 characters, none of them a control character")]
    ProjectName,
    /// A name that is taken.
    #[error("project '{0}' exists already")]
    ProjectExists(String),
    /// A name that is not.
    #[error("no project '{0}'")]
    NoProject(String),
}

/// A new project's credentials, shown once.
#[derive(Debug)]
pub struct NewProject {
    /// The client id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretString,
}

/// What the token endpoint grants.
#[derive(Debug)]
pub struct Granted {
    /// Buys further access tokens.
    pub refresh_token: SecretString,
    /// Opens every route.
    pub access_token: SecretString,
    /// How long the access token lives.
    pub lifetime: Duration,
}

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The client that the token was minted for.
    pub client_id: String,
    /// How long the token still lives; `None` for a service token, which doesn't end.
    pub expires_in: Option<Duration>,
}

/// Mints, keeps and checks tokens.
pub struct Authority {
    store: Database,
    path: String,
    lifetime: Duration,
    clock: Arc<dyn Clock>,
}

impl Authority {
    /// The authority whose state is in `directory`, which is created where missing. Access tokens it mints live for
    /// `lifetime`.
    ///
    /// # Errors
    /// [`AuthorityError::Store`], also where another process has it open.
    pub fn open(
        directory: &Path,
        lifetime: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Authority, AuthorityError> {
        let path = directory.join("authority.redb");
        let error = |reason: String| AuthorityError::Store { path: path.display().to_string(), reason };
        create_private_dir(directory)
            .and_then(|()| create_private_file(&path))
            .map_err(|e| error(e.to_string()))?;
        let store = Database::create(&path).map_err(|e| match e {
            redb::DatabaseError::DatabaseAlreadyOpen => {
                error("in use by a running gateway; stop it first".into())
            }
            e => error(e.to_string()),
        })?;
        let path = path.display().to_string();
        Authority { store, path, lifetime, clock }.with_tables()
    }

    /// An authority that forgets everything with the process: for a gateway inside one command.
    ///
    /// # Errors
    /// [`AuthorityError::Store`] where there is no memory for it.
    pub fn in_memory(lifetime: Duration, clock: Arc<dyn Clock>) -> Result<Authority, AuthorityError> {
        let path = "in memory".to_owned();
        let store = Database::builder()
            .create_with_backend(redb::backends::InMemoryBackend::new())
            .map_err(|e| AuthorityError::Store { path: path.clone(), reason: e.to_string() })?;
        Authority { store, path, lifetime, clock }.with_tables()
    }

    /// Creates the tables, so that reading never meets a missing one.
    fn with_tables(self) -> Result<Authority, AuthorityError> {
        self.write(|tx| {
            tx.open_table(PROJECTS)?;
            tx.open_table(REFRESH)?;
            tx.open_table(ACCESS)?;
            tx.open_table(SERVICE)?;
            Ok(Ok(()))
        })?;
        Ok(self)
    }

    /// Registers a project and returns its credentials, which are not kept in clear.
    ///
    /// # Errors
    /// [`AuthorityError::ProjectName`], [`AuthorityError::ProjectExists`], or [`AuthorityError::Store`].
    pub fn create_project(&self, name: &str) -> Result<NewProject, AuthorityError> {
        if !(1..=100).contains(&name.chars().count()) || name.contains(char::is_control) {
            return Err(AuthorityError::ProjectName);
        }
        let client_id = format!("mcs{}.voice.{}", random_digits(), random_name());
        let client_secret = random_secret("vxc_");
        let project = Project { name: name.to_owned(), secret: hash(&client_secret) };
        self.write(|tx| {
            let mut projects = tx.open_table(PROJECTS)?;
            if client_of(&projects, name)?.is_some() {
                return Ok(Err(AuthorityError::ProjectExists(name.to_owned())));
            }
            projects.insert(client_id.as_str(), encode(&project).as_slice())?;
            Ok(Ok(()))
        })?;
        Ok(NewProject { client_id, client_secret })
    }

    /// Mints a service token for the project called `name`: a bearer token without an end.
    ///
    /// # Errors
    /// [`AuthorityError::NoProject`], or [`AuthorityError::Store`].
    pub fn create_service_token(&self, name: &str) -> Result<SecretString, AuthorityError> {
        let token = random_secret("vxs_");
        self.write(|tx| {
            let Some(client_id) = client_of(&tx.open_table(PROJECTS)?, name)? else {
                return Ok(Err(AuthorityError::NoProject(name.to_owned())));
            };
            tx.open_table(SERVICE)?.insert(&hash(&token), encode(&Service { client_id }).as_slice())?;
            Ok(Ok(()))
        })?;
        Ok(token)
    }

    /// The grant `client_credentials`: a new refresh token and its first access token.
    ///
    /// # Errors
    /// [`AuthorityError::Client`], [`AuthorityError::Limit`] or [`AuthorityError::Store`].
    pub fn client_credentials(
        &self,
        client_id: &str,
        secret: &SecretString,
    ) -> Result<Granted, AuthorityError> {
        let refresh_token = random_secret("vxr_");
        let refresh = hash(&refresh_token);
        let access_token = self.write(|tx| {
            let projects = tx.open_table(PROJECTS)?;
            let project = projects.get(client_id)?;
            // An unknown client is read and compared too, so that it takes the time of a wrong secret.
            let record = project.as_ref().map_or(NOBODY.as_slice(), |project| project.value());
            let right = decode::<Project>(record)?.secret.ct_eq(&hash(secret));
            if project.is_none() || !bool::from(right) {
                return Ok(Err(AuthorityError::Client));
            }
            let mut tokens = tx.open_table(REFRESH)?;
            let mut held = 0;
            for entry in tokens.iter()? {
                held += usize::from(decode::<Refresh>(entry?.1.value())?.client_id == client_id);
            }
            if held >= MAX_TOKENS {
                return Ok(Err(AuthorityError::Limit("refresh tokens")));
            }
            tokens.insert(&refresh, encode(&Refresh { client_id: client_id.to_owned() }).as_slice())?;
            drop(tokens);
            self.mint(tx, client_id, refresh)
        })?;
        Ok(Granted { refresh_token, access_token, lifetime: self.lifetime })
    }

    /// The grant `refresh_token`: a new access token; the refresh token stays the same, as documented.
    ///
    /// # Errors
    /// [`AuthorityError::RefreshToken`], [`AuthorityError::Limit`] or [`AuthorityError::Store`].
    pub fn refresh(&self, client_id: &str, refresh_token: SecretString) -> Result<Granted, AuthorityError> {
        let refresh = hash(&refresh_token);
        let access_token = self.write(|tx| {
            let owner = match tx.open_table(REFRESH)?.get(&refresh)? {
                Some(entry) => Some(decode::<Refresh>(entry.value())?.client_id),
                None => None,
            };
            if owner.as_deref() != Some(client_id) {
                return Ok(Err(AuthorityError::RefreshToken));
            }
            self.mint(tx, client_id, refresh)
        })?;
        Ok(Granted { refresh_token, access_token, lifetime: self.lifetime })
    }

    /// A new access token of `refresh`. Those that have expired make room first.
    fn mint(
        &self,
        tx: &redb::WriteTransaction,
        client_id: &str,
        refresh: Key,
    ) -> Result<Result<SecretString, AuthorityError>, redb::Error> {
        let now = self.now();
        let mut tokens = tx.open_table(ACCESS)?;
        let (mut live, mut dead) = (0, Vec::new());
        for entry in tokens.iter()? {
            let (key, value) = entry?;
            let access = decode::<Access>(value.value())?;
            match access.expires_at <= now {
                true => dead.push(*key.value()),
                false => live += usize::from(access.refresh == refresh),
            }
        }
        for key in dead {
            tokens.remove(&key)?;
        }
        if live >= MAX_TOKENS {
            return Ok(Err(AuthorityError::Limit("access tokens")));
        }
        let token = random_secret("vxa_");
        let lifetime = u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX);
        let access =
            Access { client_id: client_id.to_owned(), refresh, expires_at: now.saturating_add(lifetime) };
        tokens.insert(&hash(&token), encode(&access).as_slice())?;
        Ok(Ok(token))
    }

    /// Whose `token` it is; `None` where it is unknown or has expired. Tokens are found by their hash, so the time it
    /// takes says nothing about them.
    ///
    /// # Errors
    /// [`AuthorityError::Store`].
    pub fn check(&self, token: &str) -> Result<Option<Identity>, AuthorityError> {
        let key: Key = Sha256::digest(token).into();
        let find = || -> Result<Option<Identity>, redb::Error> {
            let tx = self.store.begin_read()?;
            if let Some(entry) = tx.open_table(ACCESS)?.get(&key)? {
                let Access { client_id, expires_at, .. } = decode(entry.value())?;
                let left = Duration::from_millis(expires_at.saturating_sub(self.now()));
                return Ok((!left.is_zero()).then_some(Identity { client_id, expires_in: Some(left) }));
            }
            match tx.open_table(SERVICE)?.get(&key)? {
                Some(entry) => {
                    let Service { client_id } = decode(entry.value())?;
                    Ok(Some(Identity { client_id, expires_in: None }))
                }
                None => Ok(None),
            }
        };
        find().map_err(|e| self.store_error(&e))
    }

    /// The clock by which tokens end.
    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Milliseconds since the Unix epoch.
    fn now(&self) -> u64 {
        u64::try_from(self.clock.unix().as_millis()).unwrap_or(u64::MAX)
    }

    /// Runs `change` in a transaction, which is on the disk when this returns, or undone where `change` says no.
    fn write<T>(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<Result<T, AuthorityError>, redb::Error>,
    ) -> Result<T, AuthorityError> {
        let run = || -> Result<Result<T, AuthorityError>, redb::Error> {
            let tx = self.store.begin_write()?;
            let answer = change(&tx)?;
            match answer.is_ok() {
                true => tx.commit()?,
                false => tx.abort()?,
            }
            Ok(answer)
        };
        run().map_err(|e| self.store_error(&e))?
    }

    fn store_error(&self, error: &redb::Error) -> AuthorityError {
        AuthorityError::Store { path: self.path.clone(), reason: error.to_string() }
    }
}

/// The client id of the project called `name`.
fn client_of(
    projects: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<Option<String>, redb::Error> {
    for entry in projects.iter()? {
        let (client_id, project) = entry?;
        if decode::<Project>(project.value())?.name == name {
            return Ok(Some(client_id.value().to_owned()));
        }
    }
    Ok(None)
}

fn encode(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("a record is strings, numbers and bytes")
}

fn decode<T: DeserializeOwned>(record: &[u8]) -> Result<T, redb::Error> {
    serde_json::from_slice(record).map_err(|error| redb::Error::Corrupted(format!("record: {error}")))
}

fn hash(secret: &SecretString) -> Key {
    Sha256::digest(secret.expose_secret()).into()
}

/// Opaque and 256 bits strong. The prefix says what it is to whoever finds it where it shouldn't be.
pub(super) fn random_secret(prefix: &str) -> SecretString {
    let text = text_of(&random_bytes::<52>(), b"abcdefghijklmnopqrstuvwxyz234567");
    SecretString::from(format!("{prefix}{text}"))
}

/// As long as the ids in the service's documentation.
fn random_name() -> String {
    text_of(&random_bytes::<21>(), b"abcdefghijklmnopqrstuvwxyz234567")
}

fn random_digits() -> String {
    let number = u64::from_le_bytes(random_bytes());
    format!("{:010}", number % 10_000_000_000)
}

/// One of 32 characters for each byte's lower five bits.
fn text_of(bytes: &[u8], alphabet: &[u8; 32]) -> String {
    bytes.iter().map(|byte| char::from(alphabet[usize::from(byte & 31)])).collect()
}

/// From the system's generator. Without it no secret can be made, and the process must not go on.
#[expect(clippy::disallowed_methods, reason = "this is where the gateway's secrets and ids come from")]
pub(super) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has a random generator");
    bytes
}
