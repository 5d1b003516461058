//! Authentication and authorisation: projects, their clients, and the tokens minted for them.
//!
//! All state is in one transactional store. A change is on the disk before the request is answered, apart
//! from usage counts (see [`Authority::keep_usage`]). A refused request changes nothing, and so costs no
//! write.
//!
//! This room imports `metrics` alone.

mod administration;
mod audit;
mod check;
mod database;
mod files;
mod grants;
mod lists;
mod meter;
mod revocation;
mod rfc3339;
mod secrets;
mod short_lived;
mod store;
mod terms;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redb::Database;
use tokio::sync::watch;

pub use self::administration::{NewClient, NewToken};
use self::audit::Audit;
pub use self::check::Identity;
use self::database::{Opener, Store};
use self::files::STORE;
pub use self::files::StateError;
pub(super) use self::files::{require_no_backup, require_store};
pub use self::grants::Granted;
pub use self::lists::{ClientEntry, ProjectEntry, ServiceTokenEntry, TokenEntry, UsageEntry};
use self::meter::Meter;
pub(super) use self::rfc3339::to_rfc3339;
pub(crate) use self::secrets::is_own_secret;
pub use self::secrets::{
    ACCESS_PREFIX, CLIENT_PREFIX, REFRESH_PREFIX, RESUME_PREFIX, SERVICE_PREFIX, SHORT_LIVED_PREFIX,
};
pub(super) use self::secrets::{Fingerprint, new_id, random_bytes, random_secret};
pub use self::short_lived::ShortLivedKey;
use self::short_lived::Signer;
pub use self::store::Dump;
use self::store::{Change, FIRST_FORMAT, FORMAT, Failure, View};
pub(crate) use self::terms::admits;
pub use self::terms::{Budget, Scope, Scopes, Terms, UnknownScope};
pub use self::usage::{Amount, Exhausted};
use crate::metrics::TokenCounters;
use voxline_support::clock::Clock;

/// Documented limit of refresh tokens per project, and of live access tokens per refresh token.
pub const MAX_TOKENS: usize = 25;

/// A refused request, or a failure of the authority's state. A refusal changes nothing, and names what is
/// refused; after a failure of the state the message says what helps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// Unusable state files.
    #[error(transparent)]
    State(#[from] StateError),
    /// A store that can't be opened, read or written.
    #[error("gateway state {path}: {reason}")]
    Store {
        /// Path of the store.
        path: String,
        /// Cause of the failure.
        reason: String,
    },
    /// A store whose disk has failed. The store is reopened later.
    #[error("gateway state {path} is unavailable: {reason}; the next attempt is in {} s", .wait.as_secs())]
    Unavailable {
        /// Path of the store.
        path: String,
        /// Error of the disk.
        reason: String,
        /// Time until the next attempt is due, at least one second.
        wait: Duration,
    },
    /// A store written by a later version.
    #[error(
        "gateway state {path} has format {format}, and this version of voxline knows formats up to {FORMAT}: use the \
         version that wrote it"
    )]
    Newer {
        /// Path of the store.
        path: String,
        /// Format of the store.
        format: u64,
    },
    /// A store written by a version before the first release.
    #[error(
        "gateway state {path} was made by another version of voxline, before its first release: remove it to begin \
         without projects and tokens"
    )]
    TooOld {
        /// Path of the store.
        path: String,
    },
    /// Unknown client, wrong client secret, or disabled project.
    #[error("client id or secret is wrong")]
    Client,
    /// Unknown refresh token, or a refresh token of another client.
    #[error("refresh token is unknown")]
    RefreshToken,
    /// A refresh token whose successor has been used. All tokens of the grant are revoked.
    #[error("refresh token was replaced and its successor used: all tokens of its grant are revoked")]
    Replaced,
    /// The limit of tokens is reached.
    #[error("limit of {MAX_TOKENS} {0} reached")]
    Limit(&'static str),
    /// An unknown, expired or revoked bearer token.
    #[error("token is unknown or expired")]
    Token,
    /// The project of the token or client is disabled.
    #[error("project is inactive")]
    Inactive,
    /// A short-lived key for anything but streams.
    #[error("a short-lived key is for streams alone")]
    ShortLived,
    /// A token without the scope that the request needs.
    #[error("token has no scope {}", .0.name())]
    Scope(Scope),
    /// A token that may not be used from the client's network.
    #[error("token is not for this address")]
    Address,
    /// A client without a token, at an address that the operator does not open the gateway to.
    #[error("clients without a token may not connect from this address")]
    NotOpen,
    /// A project name that can't be printed on one line.
    #[error("name of a project should have 1 to 100 characters, none of them a control character")]
    ProjectName,
    /// A service token without any scope.
    #[error("a service token should have a scope")]
    NoScope,
    /// A project name that is taken.
    #[error("project '{0}' exists already")]
    ProjectExists(String),
    /// An unknown project name.
    #[error("no project '{0}'")]
    NoProject(String),
    /// An unknown client id.
    #[error("no client '{0}'")]
    NoClient(String),
    /// An unknown token id.
    #[error("no token '{0}'")]
    NoToken(String),
}

/// Behaviour when a token would exceed the limit. The documentation of the original service doesn't say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtLimit {
    /// Refuse the new token.
    #[default]
    Refuse,
    /// Revoke the oldest token to make room.
    Evict,
}

/// Effect of a refresh on the refresh token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refreshing {
    /// Keep the refresh token, as documented.
    #[default]
    Keep,
    /// Replace the refresh token by a successor. The old token stays valid until the successor is used, since
    /// a response may be lost.
    Rotate,
}

/// Policy for tokens and their audit log, set by the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Behaviour at the 26th token.
    pub at_limit: AtLimit,
    /// Effect of a refresh on the refresh token.
    pub refreshing: Refreshing,
    /// `true` if the audit log names the addresses of clients, which are personal data.
    pub audit_addresses: bool,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { at_limit: AtLimit::default(), refreshing: Refreshing::default(), audit_addresses: true }
    }
}

/// The token authority: mints, stores and verifies tokens.
pub struct Authority {
    store: Store,
    /// Directory of the store; `None` for a store in memory.
    directory: Option<PathBuf>,
    lifetime: Duration,
    policy: Policy,
    clock: Arc<dyn Clock>,
    meter: Meter,
    audit: Audit,
    signer: Signer,
    revoked: watch::Sender<()>,
}

impl Authority {
    /// Opens the authority whose state is in `directory`. The directory is created if it is missing. Access
    /// tokens live for `lifetime`.
    ///
    /// # Errors
    /// Returns [`AuthorityError::State`] if other users could access the files, another process has them
    /// open, or they are damaged. Returns [`AuthorityError::Newer`] or [`AuthorityError::TooOld`] if another
    /// version wrote the store, and [`AuthorityError::Store`] if the store can't be read or written.
    pub fn open(
        directory: &Path,
        lifetime: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Authority, AuthorityError> {
        let (store, path) = (files::open(directory)?, directory.join(STORE));
        // invariant: a store that has vanished meanwhile is not replaced by an empty one.
        let opener: Opener = Box::new(move || Database::open(&path));
        Authority::with_store(store, Some(opener), Some(directory.to_owned()), lifetime, clock)
    }

    /// Checks the files in `directory` as [`Authority::open`] does, without opening or changing them.
    ///
    /// # Errors
    /// Returns the [`StateError`] with which [`Authority::open`] would refuse the files.
    pub fn check_files(directory: &Path) -> Result<(), StateError> {
        files::check(directory)
    }

    /// Creates an authority in memory, whose state is lost when the process ends: for a gateway inside one
    /// command.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Store`] if there is no memory for the store.
    pub fn in_memory(lifetime: Duration, clock: Arc<dyn Clock>) -> Result<Authority, AuthorityError> {
        let store = Database::builder().create_with_backend(redb::backends::InMemoryBackend::new());
        let store = store.map_err(|e| unusable(None, e.to_string()))?;
        Authority::with_store(store, None, None, lifetime, clock)
    }

    /// Creates an authority whose state is on the caller's disk: for tests of disk failures.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Store`] if the store can't be created.
    #[cfg(feature = "test-util")]
    pub fn on_disk(
        disk: impl redb::StorageBackend + Clone,
        lifetime: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Authority, AuthorityError> {
        let opener: Opener = Box::new(move || Database::builder().create_with_backend(disk.clone()));
        let store = opener().map_err(|e| unusable(None, e.to_string()))?;
        Authority::with_store(store, Some(opener), None, lifetime, clock)
    }

    fn with_store(
        database: Database,
        opener: Option<Opener>,
        directory: Option<PathBuf>,
        lifetime: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Authority, AuthorityError> {
        let store = Store::new(database, opener, name_of(directory.as_deref()), clock.clone());
        let (policy, meter, revoked) = (Policy::default(), Meter::default(), watch::Sender::new(()));
        let audit = Audit { addresses: policy.audit_addresses, counters: TokenCounters::default() };
        let signer = Signer::random();
        let authority =
            Authority { store, directory, lifetime, policy, clock, meter, audit, signer, revoked };
        authority.prepare()?;
        let (meter, signer) = (authority.kept_usage()?, authority.kept_signer()?);
        Ok(Authority { meter, signer, ..authority })
    }

    /// Creates the tables, or migrates them to the current format. A store in the current format is not
    /// written.
    fn prepare(&self) -> Result<(), AuthorityError> {
        let path = || name_of(self.directory());
        match self.read(|view| Ok(view.format()?))? {
            Some(FORMAT) => Ok(()),
            None => self.write(|change| Ok(change.create_tables()?)),
            Some(format) if format > FORMAT => Err(AuthorityError::Newer { path: path(), format }),
            Some(format) if format < FIRST_FORMAT => Err(AuthorityError::TooOld { path: path() }),
            Some(format) => {
                self.write(|change| Ok(change.migrate(format)?))?;
                tracing::info!(
                    target: "voxline::operation",
                    path = path(),
                    from = format,
                    to = FORMAT,
                    "gateway state migrated to a new format"
                );
                Ok(())
            }
        }
    }

    /// Returns the key of the signatures of short-lived keys. A store that has none yet, because an earlier
    /// version wrote it, is given one.
    fn kept_signer(&self) -> Result<Signer, AuthorityError> {
        if let Some(signer) = self.read(|view| Ok(view.signer()?))? {
            return Ok(signer);
        }
        match self.write(|change| Ok(change.make_signer()?)) {
            // On a full disk, keys end with the process.
            Err(AuthorityError::Unavailable { .. }) => Ok(Signer::random()),
            made => made,
        }
    }

    /// Replaces the policy.
    #[must_use]
    pub fn with_policy(self, policy: Policy) -> Authority {
        let audit = Audit { addresses: policy.audit_addresses, ..self.audit };
        Authority { policy, audit, ..self }
    }

    /// Returns the directory of the state; `None` for a state in memory.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Returns a receiver that changes whenever a token is revoked. Sessions then verify their tokens
    /// again.
    pub(super) fn revocations(&self) -> watch::Receiver<()> {
        self.revoked.subscribe()
    }

    /// Returns the counters of the tokens minted and refused.
    pub(super) fn token_counters(&self) -> &TokenCounters {
        &self.audit.counters
    }

    /// Returns the clock by which tokens expire.
    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Returns the current time in milliseconds since the Unix epoch.
    fn now(&self) -> u64 {
        u64::try_from(self.clock.unix().as_millis()).unwrap_or(u64::MAX)
    }

    /// Runs `look` in a read transaction on the current state.
    fn read<T>(&self, look: impl FnOnce(&View) -> Result<T, Failure>) -> Result<T, AuthorityError> {
        self.store.read(look)
    }

    /// Runs `change` in a transaction. The transaction is on the disk when this returns, or rolled back if
    /// `change` fails.
    fn write<T>(&self, change: impl FnOnce(&Change) -> Result<T, Failure>) -> Result<T, AuthorityError> {
        let was_out = self.store.recovery_wait().is_some();
        let answer = self.store.write(change)?;
        if was_out {
            // Verify the tokens that could not be verified during the outage.
            self.revoked.send_replace(());
        }
        Ok(answer)
    }

    /// Returns a consistent snapshot of all records.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Store`] or [`AuthorityError::Unavailable`] if the store fails.
    pub fn dump(&self) -> Result<Dump, AuthorityError> {
        let dump = self.read(|view| Ok(view.dump()?))?;
        // Usage that is not written yet is in memory only.
        Ok(dump.with_usage(self.meter.all()))
    }

    /// Returns the disk error that keeps the state from being changed; `None` without an outage.
    #[must_use]
    pub fn outage(&self) -> Option<AuthorityError> {
        self.store.outage()
    }

    /// Returns the time until [`Authority::keep_usage`] tries again to end an outage; `None` without an
    /// outage.
    pub(super) fn recovery_wait(&self) -> Option<Duration> {
        self.store.recovery_wait()
    }

    /// Makes the next attempt to end an outage due now, for a caller that can't wait.
    pub(super) fn retry_now(&self) {
        self.store.retry_now();
    }

    /// Waits until the store's disk has failed.
    pub(super) async fn outage_began(&self) {
        self.store.outage_began().await;
    }
}

/// Returns the store's name for messages.
fn name_of(directory: Option<&Path>) -> String {
    directory.map_or("in memory".to_owned(), |directory| directory.join(STORE).display().to_string())
}

fn unusable(directory: Option<&Path>, reason: String) -> AuthorityError {
    AuthorityError::Store { path: name_of(directory), reason }
}
