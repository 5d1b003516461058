//! Disks between a token vault and its files: one that fails at a chosen step, and one that saves late, as a
//! client does that publishes tokens or sends requests before it has saved them. The client has no code for
//! these bugs.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use voxline::internals::{SystemDisk, VaultDisk};

/// Completed step of the replacement of a vault's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VaultStep {
    /// The new file was created and is empty.
    Created,
    /// Half of the new file is written.
    HalfWritten,
    /// The whole new file is written.
    Written,
    /// The new file is flushed to disk.
    Synced,
    /// The new file has replaced the old one.
    Renamed,
    /// The rename is flushed to disk.
    DirectorySynced,
}

/// A disk that calls a function after each step. An error of the function is a failure of the disk after
/// that step.
pub struct FailingVaultDisk<F> {
    fault: F,
}

impl<F: Fn(VaultStep) -> io::Result<()> + Send + Sync> FailingVaultDisk<F> {
    /// Creates a disk that fails where `fault` returns an error.
    pub fn new(fault: F) -> FailingVaultDisk<F> {
        FailingVaultDisk { fault }
    }
}

impl<F> fmt::Debug for FailingVaultDisk<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FailingVaultDisk")
    }
}

impl<F: Fn(VaultStep) -> io::Result<()> + Send + Sync> VaultDisk for FailingVaultDisk<F> {
    fn create(&self, path: &Path) -> io::Result<File> {
        let file = SystemDisk.create(path)?;
        (self.fault)(VaultStep::Created)?;
        Ok(file)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        file.write_all(first)?;
        (self.fault)(VaultStep::HalfWritten)?;
        file.write_all(second)?;
        (self.fault)(VaultStep::Written)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        SystemDisk.sync(file)?;
        (self.fault)(VaultStep::Synced)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemDisk.rename(from, to)?;
        (self.fault)(VaultStep::Renamed)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        SystemDisk.sync_directory(directory)?;
        (self.fault)(VaultStep::DirectorySynced)
    }
}

/// A planted bug of a client that keeps tokens, which loses them or a slot of the project in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedTokenBug {
    /// A token is handed out before it is saved.
    PublishedBeforeSaved,
    /// A new slot is requested before the request is saved.
    AskedBeforeSaved,
}

impl PlantedTokenBug {
    /// Returns whether a client with the bug goes on before it has saved this account.
    fn delays(self, account: &Value) -> bool {
        let last_slot = account["slots"].as_array().and_then(|slots| slots.last());
        match self {
            PlantedTokenBug::PublishedBeforeSaved => {
                !account["tokens"].is_null() && account["refreshing"] == false
            }
            PlantedTokenBug::AskedBeforeSaved => last_slot.is_some_and(|slot| slot["state"] == "unanswered"),
        }
    }
}

/// A disk that reports some accounts of an unencrypted vault as saved and saves them just before the next
/// one: to everybody outside, the client goes on before it has saved them. A client that ends before the next
/// account loses them.
#[derive(Debug)]
pub struct PlantedVaultDisk<D> {
    disk: D,
    bug: Option<PlantedTokenBug>,
    /// Contents that are reported as saved, and the path of their file.
    late: Mutex<Option<(PathBuf, Vec<u8>)>>,
}

impl<D: VaultDisk> PlantedVaultDisk<D> {
    /// Plants `bug` between a vault and `disk`. Without a bug, nothing is late.
    pub fn new(disk: D, bug: Option<PlantedTokenBug>) -> PlantedVaultDisk<D> {
        PlantedVaultDisk { disk, bug, late: Mutex::default() }
    }

    /// Returns whether the client goes on before it has saved this file.
    fn is_late(&self, file: &[u8]) -> bool {
        // The account is JSON below a line with the format.
        let account = file.split(|byte| *byte == b'\n').nth(1).map(serde_json::from_slice);
        let account: Value = account.expect("a vault has a header").expect("the vault is not encrypted");
        self.bug.is_some_and(|bug| bug.delays(&account))
    }
}

impl<D: VaultDisk> VaultDisk for PlantedVaultDisk<D> {
    fn create(&self, path: &Path) -> io::Result<File> {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((to, bytes)) = late {
            let mut file = self.disk.create(path)?;
            self.disk.write(&mut file, &bytes)?;
            self.disk.sync(&file)?;
            self.disk.rename(path, &to)?;
            self.disk.sync_directory(to.parent().expect("a vault is a file in a directory"))?;
        }
        self.disk.create(path)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        self.disk.write(file, bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.disk.sync(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let bytes = fs::read(from)?;
        if !self.is_late(&bytes) {
            return self.disk.rename(from, to);
        }
        *self.late.lock().unwrap_or_else(PoisonError::into_inner) = Some((to.to_owned(), bytes));
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        if self.late.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        self.disk.sync_directory(directory)
    }
}
