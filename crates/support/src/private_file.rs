//! Files and directories that only their owner can read or replace.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

pub use self::system::{
    create_dir, exposes_secret, is_exposed, is_ours, is_ours_or_roots, is_writable_by_others, options,
    secret_remedy,
};

/// Returns whether other users can change the contents of a directory, because they own it or may write
/// to it.
#[must_use]
pub fn is_changeable_by_others(directory: &Metadata) -> bool {
    is_writable_by_others(directory) || !is_ours(directory)
}

/// Creates an empty file that only its owner can read, unless it exists.
///
/// # Errors
/// Returns [`io::Error`] in the same cases as [`OpenOptions::open`](fs::OpenOptions::open).
pub fn create_file(path: &Path) -> io::Result<()> {
    options().append(true).create(true).open(path).map(drop)
}

#[cfg(unix)]
mod system {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};

    use super::{Metadata, Path, fs, io};

    /// Returns whether users other than the owner may do anything with the file.
    #[must_use]
    pub fn is_exposed(file: &Metadata) -> bool {
        file.permissions().mode() & 0o077 != 0
    }

    /// Returns whether a secret in the file is exposed to users who should not have it. The file comes from
    /// the user or from a container's runtime, so its group may read it if root owns it. A pipe or a
    /// terminal keeps no secret, whatever its mode.
    #[must_use]
    pub fn exposes_secret(file: &Metadata) -> bool {
        let user = rustix::process::geteuid().as_raw();
        file.is_file() && file.permissions().mode() & refused_access(file.uid(), user) != 0
    }

    /// Returns the permissions that a file with a secret must not have, by its owner and the user who reads
    /// it: the rule of PostgreSQL for the key of its server (`check_ssl_key_file_permissions`).
    pub(super) fn refused_access(owner: u32, user: u32) -> u32 {
        // Programs in containers run without root's rights, and get secrets as files that root owns and
        // their group may read.
        if owner == 0 && user != 0 { 0o037 } else { 0o077 }
    }

    /// Returns the advice for a file with a secret that [`exposes_secret`] refuses: the change after which
    /// this user can read the file and no others can.
    #[must_use]
    pub fn secret_remedy(file: &Metadata) -> &'static str {
        let user = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid();
        let is_our_group = group.as_raw() == file.gid()
            || rustix::process::getgroups()
                .is_ok_and(|groups| groups.iter().any(|group| group.as_raw() == file.gid()));
        remedy(file.uid(), user, is_our_group)
    }

    /// Returns the advice by the file's owner, the user who reads it, and whether the file's group is one of
    /// that user's. Mode 600 would keep this user from a file of another owner.
    pub(super) fn remedy(owner: u32, user: u32, is_our_group: bool) -> &'static str {
        if owner == user {
            "run chmod 600 on it"
        } else if owner == 0 && is_our_group {
            "run chmod 640 on it as root"
        } else {
            "as root, make this user its owner (chown) and run chmod 600 on it"
        }
    }

    /// Returns whether users other than the owner may create and replace files in the directory.
    #[must_use]
    pub fn is_writable_by_others(directory: &Metadata) -> bool {
        directory.permissions().mode() & 0o022 != 0
    }

    /// Returns whether the file belongs to the user of this process.
    #[must_use]
    pub fn is_ours(file: &Metadata) -> bool {
        file.uid() == rustix::process::geteuid().as_raw()
    }

    /// Returns whether the file belongs to the user of this process or to root, who has access anyway. Root
    /// may use the files of every user, as an administrator does.
    #[must_use]
    pub fn is_ours_or_roots(file: &Metadata) -> bool {
        rustix::process::geteuid().is_root() || is_ours(file) || file.uid() == 0
    }

    /// Returns options to open a file with; a file that they create is readable by its owner alone.
    #[must_use]
    pub fn options() -> fs::OpenOptions {
        let mut options = fs::OpenOptions::new();
        options.mode(0o600);
        options
    }

    /// Creates a directory and those above it, open to its owner alone, unless it exists.
    ///
    /// # Errors
    /// Returns [`io::Error`] in the same cases as [`DirBuilder::create`](fs::DirBuilder::create).
    pub fn create_dir(directory: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
    }
}

/// File system access on other systems, where files inherit their permissions from their directory.
#[cfg(not(unix))]
mod system {
    use super::{Metadata, Path, fs, io};

    /// Returns `false`: permissions are not read here.
    #[must_use]
    pub fn is_exposed(_: &Metadata) -> bool {
        false
    }

    /// Returns `false`: permissions are not read here.
    #[must_use]
    pub fn exposes_secret(_: &Metadata) -> bool {
        false
    }

    /// Returns no advice: permissions are not read here.
    #[must_use]
    pub fn secret_remedy(_: &Metadata) -> &'static str {
        ""
    }

    /// Returns `false`: permissions are not read here.
    #[must_use]
    pub fn is_writable_by_others(_: &Metadata) -> bool {
        false
    }

    /// Returns `true`: ownership is not read here.
    #[must_use]
    pub fn is_ours(_: &Metadata) -> bool {
        true
    }

    /// Returns `true`: ownership is not read here.
    #[must_use]
    pub fn is_ours_or_roots(_: &Metadata) -> bool {
        true
    }

    /// Returns options to open a file with.
    #[must_use]
    pub fn options() -> fs::OpenOptions {
        fs::OpenOptions::new()
    }

    /// Creates a directory and those above it, unless it exists.
    ///
    /// # Errors
    /// Returns [`io::Error`] in the same cases as [`create_dir_all`](fs::create_dir_all).
    pub fn create_dir(directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::system::{refused_access, remedy};

    #[test]
    fn a_secret_is_its_owners_and_one_of_roots_may_be_a_groups() {
        const ROOT: u32 = 0;
        const US: u32 = 1000;
        const OTHER: u32 = 1001;
        for (owner, user, mode, exposed) in [
            (US, US, 0o600, false),
            (US, US, 0o640, true),
            (US, US, 0o604, true),
            (ROOT, US, 0o640, false),
            (ROOT, US, 0o440, false),
            (ROOT, US, 0o660, true),
            (ROOT, US, 0o650, true),
            (ROOT, US, 0o644, true),
            (ROOT, ROOT, 0o600, false),
            (ROOT, ROOT, 0o640, true),
            (OTHER, US, 0o640, true),
        ] {
            let refused = mode & refused_access(owner, user) != 0;
            assert_eq!(refused, exposed, "{mode:o} of user {owner}, read by user {user}");
        }
    }

    /// A file that is changed as advised is accepted, and can be read.
    #[test]
    fn the_advice_makes_a_secret_readable_by_its_reader_alone() {
        for (owner, user) in [(0, 0), (1000, 1000), (0, 1000), (1001, 1000)] {
            for is_our_group in [false, true] {
                let advice = remedy(owner, user, is_our_group);
                let owner = if advice.contains("chown") { user } else { owner };
                let mode = if advice.contains("chmod 640") { 0o640 } else { 0o600 };
                assert_eq!(mode & refused_access(owner, user), 0, "{advice}");
                let read_by = if owner == user { 0o400 } else { 0o040 };
                assert!(mode & read_by != 0 && (owner == user || is_our_group), "{advice}");
            }
        }
    }
}
