//! Who may use the gateway: projects, their clients, and the tokens minted for them.
//!
//! All state is in one transactional store; a change is on the disk before it is answered, apart from what is counted
//! (see [`Authority::keep_usage`]). What is refused changes nothing, and so costs no write.

mod administration;
mod audit;
mod check;
mod database;
mod files;
mod grants;
mod lists;
mod revocation;
mod secrets;
mod store;
mod terms;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redb::Database;
use tokio::sync::watch;

pub use self::administration::{NewClient, NewToken};
pub(super) use self::audit::Audit;
pub use self::check::Identity;
use self::database::{Opener, Store};
use self::files::STORE;
pub use self::files::StateError;
pub(super) use self::files::{require_no_backup, require_store};
pub use self::grants::Granted;
pub use self::lists::{ClientEntry, ProjectEntry, ServiceTokenEntry, TokenEntry, UsageEntry};
pub use self::secrets::{ACCESS_PREFIX, CLIENT_PREFIX, REFRESH_PREFIX, RESUME_PREFIX, SERVICE_PREFIX};
pub(super) use self::secrets::{Fingerprint, random_bytes, random_secret};
pub use self::store::Dump;
use self::store::{Change, FIRST_FORMAT, FORMAT, Failure, View};
pub use self::terms::{Budget, Scope, Scopes, Terms, UnknownScope};
use self::usage::Meter;
pub use self::usage::{Amount, Exhausted};
use voxline_support::clock::Clock;

/// The documented limit of refresh tokens a project, and of live access tokens a refresh token.
pub const MAX_TOKENS: usize = 25;

/// Why the authority says no, or can't say anything.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The files of the state are not to be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store can't be opened, read or written.
    #[error("gateway state {path}: {reason}")]
    Store {
        /// The store.
        path: String,
        /// Why.
        reason: String,
    },
    /// The disk has failed the store, which is tried again.
    #[error("gateway state {path} is unavailable: {reason}; the next attempt is in {} s", .wait.as_secs())]
    Unavailable {
        /// The store.
        path: String,
        /// Error of the disk.
        reason: String,
        /// Time until the next attempt is due, a second at least.
        wait: Duration,
    },
    /// A later version has written the store.
    #[error(
        "gateway state {path} has format {format}, and this version of voxline knows formats up to {FORMAT}: use the \
         version that wrote it"
    )]
    Newer {
        /// The store.
        path: String,
        /// Its format.
        format: u64,
    },
    /// A version before the first release has written the store.
    #[error(
        "gateway state {path} was made by another version of voxline, before its first release: remove it to begin \
         without projects and tokens"
    )]
    TooOld {
        /// The store.
        path: String,
    },
    /// No such client, the secret is not its, or its project is disabled.
    #[error("client id or secret is wrong")]
    Client,
    /// No such refresh token of this client.
    #[error("refresh token is unknown")]
    RefreshToken,
    /// A refresh token whose successor was used already. All that came of its grant is revoked.
    #[error("refresh token was replaced and its successor used: all tokens of its grant are revoked")]
    Replaced,
    /// The project's tokens are used up.
    #[error("limit of {MAX_TOKENS} {0} reached")]
    Limit(&'static str),
    /// A bearer token that is not known, or not any more.
    #[error("token is unknown or expired")]
    Token,
    /// What the token or client belongs to is disabled.
    #[error("project is inactive")]
    Inactive,
    /// A token that is good for other services.
    #[error("token has no scope {}", .0.name())]
    Scope(Scope),
    /// A token that is good for other networks.
    #[error("token is not for this address")]
    Address,
    /// A name that can't be printed on one line.
    #[error("name of a project should have 1 to 100 characters, none of them a control character")]
    ProjectName,
    /// A service token that would open nothing.
    #[error("a service token should have a scope")]
    NoScope,
    /// A name that is taken.
    #[error("project '{0}' exists already")]
    ProjectExists(String),
    /// A name that is not.
    #[error("no project '{0}'")]
    NoProject(String),
    /// A client that is not.
    #[error("no client '{0}'")]
    NoClient(String),
    /// A token that is not.
    #[error("no token '{0}'")]
    NoToken(String),
}

/// What happens to one token more than there may be. The documentation doesn't say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtLimit {
    /// It is refused.
    #[default]
    Refuse,
    /// The oldest makes room for it.
    Evict,
}

/// What a refresh does to the refresh token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refreshing {
    /// It stays the same, as documented.
    #[default]
    Keep,
    /// A successor takes its place. The old one stays good until the new one is used, since an answer may be lost.
    Rotate,
}

/// What an operator may decide about tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What happens at the 26th token.
    pub at_limit: AtLimit,
    /// What a refresh does.
    pub refreshing: Refreshing,
}

/// Mints, keeps and checks tokens.
pub struct Authority {
    store: Store,
    /// Where the store is; `None` where it is in memory.
    directory: Option<PathBuf>,
    lifetime: Duration,
    policy: Policy,
    clock: Arc<dyn Clock>,
    meter: Meter,
    audit: Audit,
    revoked: watch::Sender<()>,
}

impl Authority {
    /// The authority whose state is in `directory`, which is created where missing. Access tokens it mints live for
    /// `lifetime`.
    ///
    /// # Errors
    /// [`AuthorityError::State`] where others could touch the files, another process has them open, or they
    /// are damaged; [`AuthorityError::Newer`], [`AuthorityError::TooOld`], or [`AuthorityError::Store`].
    pub fn open(
        directory: &Path,
        lifetime: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Authority, AuthorityError> {
        let (store, path) = (files::open(directory)?, directory.join(STORE));
        // A store that has vanished meanwhile is not replaced by an empty one.
        let opener: Opener = Box::new(move || Database::open(&path));
        Authority::with_store(store, Some(opener), Some(directory.to_owned()), lifetime, clock)
    }

    /// Says why [`Authority::open`] would refuse the files in `directory`, without opening or changing any.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn check_files(directory: &Path) -> Result<(), StateError> {
        files::check(directory)
    }

    /// An authority that forgets everything with the process: for a gateway inside one command.
    ///
    /// # Errors
    /// [`AuthorityError::Store`] where there is no memory for it.
    pub fn in_memory(lifetime: Duration, clock: Arc<dyn Clock>) -> Result<Authority, AuthorityError> {
        let store = Database::builder().create_with_backend(redb::backends::InMemoryBackend::new());
        let store = store.map_err(|e| unusable(None, e.to_string()))?;
        Authority::with_store(store, None, None, lifetime, clock)
    }

    /// An authority whose state is on a disk of the caller's: for tests of disks that fail.
    ///
    /// # Errors
    /// [`AuthorityError::Store`].
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
        let audit = Audit::default();
        let authority = Authority { store, directory, lifetime, policy, clock, meter, audit, revoked };
        authority.prepare()?;
        let meter = authority.kept_usage()?;
        Ok(Authority { meter, ..authority })
    }

    /// Creates the tables, or brings them up to this format: a store that is as it should be is not written.
    fn prepare(&self) -> Result<(), AuthorityError> {
        let path = || name_of(self.directory());
        match self.read(|view| Ok(view.format()?))? {
            Some(FORMAT) => Ok(()),
            None => self.write(|change| Ok(change.create_tables()?)),
            Some(format) if format > FORMAT => Err(AuthorityError::Newer { path: path(), format }),
            Some(format) if format < FIRST_FORMAT => Err(AuthorityError::TooOld { path: path() }),
            Some(format) => {
                self.write(|change| Ok(change.migrate(format)?))?;
                tracing::info!(path = path(), from = format, to = FORMAT, "gateway state has a new format");
                Ok(())
            }
        }
    }

    /// The same, by this policy.
    #[must_use]
    pub fn with_policy(self, policy: Policy) -> Authority {
        Authority { policy, ..self }
    }

    /// Where its state is; `None` where that is in memory.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Changes whenever something is revoked: whoever lives by a token then checks it again.
    pub(super) fn revocations(&self) -> watch::Receiver<()> {
        self.revoked.subscribe()
    }

    /// What became of tokens.
    pub(super) fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The clock by which tokens end.
    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Milliseconds since the Unix epoch.
    fn now(&self) -> u64 {
        u64::try_from(self.clock.unix().as_millis()).unwrap_or(u64::MAX)
    }

    /// Looks at the state as it is now.
    fn read<T>(&self, look: impl FnOnce(&View) -> Result<T, Failure>) -> Result<T, AuthorityError> {
        self.store.read(look)
    }

    /// Runs `change` in a transaction, which is on the disk when this returns, or undone where `change` says no.
    fn write<T>(&self, change: impl FnOnce(&Change) -> Result<T, Failure>) -> Result<T, AuthorityError> {
        let was_out = self.store.recovery_wait().is_some();
        let answer = self.store.write(change)?;
        if was_out {
            // Tokens that could not be checked again meanwhile are checked now.
            self.revoked.send_replace(());
        }
        Ok(answer)
    }

    /// All records, as of one moment.
    ///
    /// # Errors
    /// [`AuthorityError::Store`] or [`AuthorityError::Unavailable`].
    pub fn dump(&self) -> Result<Dump, AuthorityError> {
        let dump = self.read(|view| Ok(view.dump()?))?;
        // What was used and not yet written is in memory.
        Ok(dump.with_usage(self.meter.all()))
    }

    /// The error of the disk that keeps the state from being changed, while there is one.
    #[must_use]
    pub fn outage(&self) -> Option<AuthorityError> {
        self.store.outage()
    }

    /// The time after which [`Authority::keep_usage`] tries again to end an outage.
    pub(super) fn recovery_wait(&self) -> Option<Duration> {
        self.store.recovery_wait()
    }

    /// Makes the next attempt to end an outage due now, for one who can't wait.
    pub(super) fn retry_now(&self) {
        self.store.retry_now();
    }

    /// Waits until the disk has failed the store.
    pub(super) async fn outage_began(&self) {
        self.store.outage_began().await;
    }
}

/// The store's name in messages.
fn name_of(directory: Option<&Path>) -> String {
    directory.map_or("in memory".to_owned(), |directory| directory.join(STORE).display().to_string())
}

fn unusable(directory: Option<&Path>, reason: String) -> AuthorityError {
    AuthorityError::Store { path: name_of(directory), reason }
}
