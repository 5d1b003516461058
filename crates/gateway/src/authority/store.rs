//! The authority's state on disk: its tables, its records, and the two kinds of transaction.
//!
//! Records are keyed under their owner: a refresh token has the key `pr_…/rt_…`, project first, so that the
//! tokens of a project are adjacent and a limit is counted without scanning those of other projects. A
//! further table maps the hash of each token to its key.

use std::fmt;
use std::marker::PhantomData;

use redb::{ReadTransaction, ReadableTable, TableDefinition, TableHandle, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::AuthorityError;
use super::secrets::{Fingerprint, Seed};
use super::short_lived::Signer;
use super::terms::Terms;
use super::usage::{Usage, UsageOfOneDay};
use voxline::language::Languages;

/// Current format of the tables and records. Each format has a store in tests/it/data, and a migration in
/// [`Change::migrate`].
pub(super) const FORMAT: u64 = 3;
/// First format that was numbered and released.
pub(super) const FIRST_FORMAT: u64 = 2;

/// A table, and the type of its records.
pub(super) struct Kind<T>(TableDefinition<'static, &'static str, &'static [u8]>, PhantomData<T>);

impl<T> Kind<T> {
    const fn new(name: &'static str) -> Kind<T> {
        Kind(TableDefinition::new(name), PhantomData)
    }
}

/// Projects, by project id.
pub(super) const PROJECTS: Kind<Project> = Kind::new("projects");
/// Clients, by client id.
pub(super) const CLIENTS: Kind<Client> = Kind::new("clients");
/// Refresh tokens, by project id and token id.
pub(super) const REFRESH: Kind<Refresh> = Kind::new("refresh_tokens");
/// Access tokens, by id of the refresh token and token id.
pub(super) const ACCESS: Kind<Access> = Kind::new("access_tokens");
/// Service tokens, by project id and token id.
pub(super) const SERVICE: Kind<Service> = Kind::new("service_tokens");
/// Usage, by client id or id of the service token.
pub(super) const USAGE: Kind<Usage> = Kind::new("usage");
/// Numbers by name: the format, and the number of tokens minted.
const NUMBERS: Kind<u64> = Kind::new("numbers");
/// The key of the signatures of short-lived keys. A snapshot does not have it, so that a backup makes no
/// keys, and a store of an earlier version does not either.
const SIGNERS: Kind<Signer> = Kind::new("signers");
/// Name of the only record of that table.
const SHORT_LIVED: &str = "short_lived";
/// Hash of a token to the token's key; the prefix of the id in the key determines the table.
const TOKENS: TableDefinition<&[u8; 32], &str> = TableDefinition::new("tokens");

/// Names of the tables of a snapshot, except the table of hashes.
const RECORDS: [&str; 7] =
    ["projects", "clients", "refresh_tokens", "access_tokens", "service_tokens", "usage", "numbers"];

/// Returns the definition of the table with this name.
fn table_of(name: &str) -> TableDefinition<'_, &'static str, &'static [u8]> {
    TableDefinition::new(name)
}

/// A consistent snapshot of all records of a store, from which a backup is written.
#[derive(Serialize, Deserialize)]
pub struct Dump {
    /// Keys and records, by table name.
    records: Vec<(String, Vec<(String, String)>)>,
    tokens: Vec<(Fingerprint, String)>,
}

impl fmt::Debug for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dump({} tokens)", self.tokens.len())
    }
}

impl Dump {
    /// Replaces the usage records.
    pub(super) fn with_usage(mut self, usage: Vec<(String, Usage)>) -> Dump {
        for (name, entries) in &mut self.records {
            if name.as_str() == USAGE.0.name() {
                let text = |usage: &Usage| String::from_utf8(encode(usage)).expect("JSON is text");
                *entries = usage.iter().map(|(id, usage)| (id.clone(), text(usage))).collect();
            }
        }
        self
    }
}

/// A project, which owns clients and tokens.
#[derive(Serialize, Deserialize)]
pub(super) struct Project {
    pub(super) name: String,
    pub(super) active: bool,
    /// Candidate languages for a client that names none; the gateway's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) languages: Option<Languages>,
    /// Milliseconds since the Unix epoch, as all times here.
    pub(super) created: u64,
}

/// A client, which may request tokens.
#[derive(Serialize, Deserialize)]
pub(super) struct Client {
    pub(super) project: String,
    pub(super) secret: Fingerprint,
    pub(super) created: u64,
}

/// The refresh token of a grant, with its predecessor and successor.
#[derive(Serialize, Deserialize)]
pub(super) struct Refresh {
    pub(super) project: String,
    pub(super) client: String,
    /// Sequence number over all tokens minted: the lowest is the oldest, independent of the clock.
    pub(super) number: u64,
    pub(super) created: u64,
    pub(super) last_used: u64,
    pub(super) seed: Seed,
    pub(super) secret: Fingerprint,
    /// Successor of the token, until the successor is used for the first time.
    pub(super) next: Option<Fingerprint>,
    /// Predecessor of the token, which is no longer valid.
    pub(super) previous: Option<Fingerprint>,
}

/// An access token.
#[derive(Serialize, Deserialize)]
pub(super) struct Access {
    pub(super) project: String,
    pub(super) client: String,
    pub(super) number: u64,
    pub(super) secret: Fingerprint,
    pub(super) created: u64,
    pub(super) expires_at: u64,
}

/// A service token.
#[derive(Serialize, Deserialize)]
pub(super) struct Service {
    pub(super) project: String,
    pub(super) secret: Fingerprint,
    pub(super) created: u64,
    pub(super) expires_at: Option<u64>,
    pub(super) terms: Terms,
}

/// Returns the key of `id` under `owner`.
pub(super) fn key(owner: &str, id: &str) -> String {
    format!("{owner}/{id}")
}

/// Returns the id in a key.
pub(super) fn id_of(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, id)| id)
}

/// Reason why a transaction is rolled back: a refusal, or an error of the database.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    No(#[from] AuthorityError),
    #[error(transparent)]
    Store(#[from] redb::Error),
}

/// Read access to the state, consistent within one transaction.
pub(super) trait Look {
    fn records<T>(
        &self,
        kind: &Kind<T>,
    ) -> Result<impl ReadableTable<&'static str, &'static [u8]> + '_, redb::Error>;

    /// Returns the key of the token with this hash.
    fn key_of(&self, secret: &Fingerprint) -> Result<Option<String>, redb::Error>;

    fn find<T: DeserializeOwned>(&self, kind: &Kind<T>, key: &str) -> Result<Option<T>, redb::Error> {
        self.records(kind)?.get(key)?.map(|record| decode(record.value())).transpose()
    }

    /// Finds a record; if there is none, decodes the record `instead`, which takes the same time.
    fn find_or<T: DeserializeOwned>(
        &self,
        kind: &Kind<T>,
        key: &str,
        instead: &[u8],
    ) -> Result<T, redb::Error> {
        let records = self.records(kind)?;
        let found = records.get(key)?;
        decode(found.as_ref().map_or(instead, |record| record.value()))
    }

    /// Returns the keys of all records.
    fn keys<T>(&self, kind: &Kind<T>) -> Result<Vec<String>, redb::Error> {
        self.records(kind)?.iter()?.map(|entry| Ok(entry?.0.value().to_owned())).collect()
    }

    /// Returns all records with their keys.
    fn all<T: DeserializeOwned>(&self, kind: &Kind<T>) -> Result<Vec<(String, T)>, redb::Error> {
        collect(self.records(kind)?.iter()?)
    }

    /// Returns the records under `owner` with their keys.
    fn under<T: DeserializeOwned>(
        &self,
        kind: &Kind<T>,
        owner: &str,
    ) -> Result<Vec<(String, T)>, redb::Error> {
        // `0` is the character after `/`.
        let (first, end) = (format!("{owner}/"), format!("{owner}0"));
        collect(self.records(kind)?.range(first.as_str()..end.as_str())?)
    }
}

/// A read transaction.
pub(super) struct View(pub(super) ReadTransaction);

/// A write transaction: all of its changes are applied, or none.
pub(super) struct Change(pub(super) WriteTransaction);

impl Look for View {
    fn records<T>(
        &self,
        kind: &Kind<T>,
    ) -> Result<impl ReadableTable<&'static str, &'static [u8]> + '_, redb::Error> {
        Ok(self.0.open_table(kind.0)?)
    }

    fn key_of(&self, secret: &Fingerprint) -> Result<Option<String>, redb::Error> {
        Ok(self.0.open_table(TOKENS)?.get(&secret.0)?.map(|key| key.value().to_owned()))
    }
}

impl Look for Change {
    fn records<T>(
        &self,
        kind: &Kind<T>,
    ) -> Result<impl ReadableTable<&'static str, &'static [u8]> + '_, redb::Error> {
        Ok(self.0.open_table(kind.0)?)
    }

    fn key_of(&self, secret: &Fingerprint) -> Result<Option<String>, redb::Error> {
        Ok(self.0.open_table(TOKENS)?.get(&secret.0)?.map(|key| key.value().to_owned()))
    }
}

impl Change {
    pub(super) fn put<T: Serialize>(&self, kind: &Kind<T>, key: &str, record: &T) -> Result<(), redb::Error> {
        self.0.open_table(kind.0)?.insert(key, encode(record).as_slice())?;
        Ok(())
    }

    pub(super) fn remove<T>(&self, kind: &Kind<T>, key: &str) -> Result<(), redb::Error> {
        self.0.open_table(kind.0)?.remove(key)?;
        Ok(())
    }

    /// Adds the hash of a token to the look-up table.
    pub(super) fn admit(&self, secret: &Fingerprint, key: &str) -> Result<(), redb::Error> {
        self.0.open_table(TOKENS)?.insert(&secret.0, key)?;
        Ok(())
    }

    /// Removes the hash of a token from the look-up table.
    pub(super) fn forget(&self, secret: &Fingerprint) -> Result<(), redb::Error> {
        self.0.open_table(TOKENS)?.remove(&secret.0)?;
        Ok(())
    }

    /// Returns the sequence number of the next token.
    pub(super) fn next_number(&self) -> Result<u64, redb::Error> {
        let number = self.find(&NUMBERS, "minted")?.unwrap_or(0) + 1;
        self.put(&NUMBERS, "minted", &number)?;
        Ok(number)
    }

    /// Rewrites an existing value, to test that the disk can be written.
    pub(super) fn touch(&self) -> Result<(), redb::Error> {
        self.put(&NUMBERS, "format", &FORMAT)
    }

    /// Migrates the tables from an earlier format to the current one.
    pub(super) fn migrate(&self, format: u64) -> Result<(), redb::Error> {
        if format < 3 {
            // Format 3 keeps usage for several days.
            let earlier: Kind<UsageOfOneDay> = Kind(USAGE.0, PhantomData);
            for (id, usage) in self.all(&earlier)? {
                self.put(&USAGE, &id, &Usage::from(usage))?;
            }
        }
        self.touch()
    }

    /// Creates the tables, so that a read never meets a missing one.
    pub(super) fn create_tables(&self) -> Result<(), redb::Error> {
        for name in RECORDS {
            self.0.open_table(table_of(name))?;
        }
        self.0.open_table(TOKENS)?;
        self.make_signer()?;
        self.touch()
    }

    /// Adds a new key of signatures, and returns it.
    pub(super) fn make_signer(&self) -> Result<Signer, redb::Error> {
        let signer = Signer::random();
        self.put(&SIGNERS, SHORT_LIVED, &signer)?;
        Ok(signer)
    }

    /// Creates the tables with all records of `dump`.
    pub(super) fn restore(&self, dump: &Dump) -> Result<(), redb::Error> {
        self.create_tables()?;
        for (name, entries) in &dump.records {
            let mut table = self.0.open_table(table_of(name))?;
            for (key, record) in entries {
                table.insert(key.as_str(), record.as_bytes())?;
            }
        }
        for (secret, key) in &dump.tokens {
            self.admit(secret, key)?;
        }
        Ok(())
    }
}

impl View {
    pub(super) fn dump(&self) -> Result<Dump, redb::Error> {
        let mut dump = Dump { records: Vec::new(), tokens: Vec::new() };
        for name in RECORDS {
            let mut entries = Vec::new();
            for entry in self.0.open_table(table_of(name))?.iter()? {
                let (key, record) = entry?;
                let record = std::str::from_utf8(record.value())
                    .map_err(|error| redb::Error::Corrupted(format!("record: {error}")))?;
                entries.push((key.value().to_owned(), record.to_owned()));
            }
            dump.records.push((name.to_owned(), entries));
        }
        for entry in self.0.open_table(TOKENS)?.iter()? {
            let (secret, key) = entry?;
            dump.tokens.push((Fingerprint(*secret.value()), key.value().to_owned()));
        }
        Ok(dump)
    }

    /// Returns the key of the signatures, if there is one.
    pub(super) fn signer(&self) -> Result<Option<Signer>, redb::Error> {
        match self.find(&SIGNERS, SHORT_LIVED) {
            Err(redb::Error::TableDoesNotExist(_)) => Ok(None),
            found => found,
        }
    }

    /// Returns the format of the tables: 0 if the format has no number, and `None` if there are no tables.
    pub(super) fn format(&self) -> Result<Option<u64>, redb::Error> {
        let mut tables = self.0.list_tables()?.peekable();
        if tables.peek().is_none() {
            return Ok(None);
        }
        let numbered = tables.any(|table| table.name() == NUMBERS.0.name());
        let format = if numbered { self.find(&NUMBERS, "format")? } else { None };
        Ok(Some(format.unwrap_or(0)))
    }
}

fn collect<T: DeserializeOwned>(
    entries: redb::Range<'_, &'static str, &'static [u8]>,
) -> Result<Vec<(String, T)>, redb::Error> {
    entries
        .map(|entry| {
            let (key, record) = entry?;
            Ok((key.value().to_owned(), decode(record.value())?))
        })
        .collect()
}

pub(super) fn encode(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("a record is strings, numbers and bytes")
}

fn decode<T: DeserializeOwned>(record: &[u8]) -> Result<T, redb::Error> {
    serde_json::from_slice(record).map_err(|error| redb::Error::Corrupted(format!("record: {error}")))
}
