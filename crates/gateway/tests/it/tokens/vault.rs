//! The file of the tokens: its permissions, and its contents after a fault or a crash.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use voxline::auth::{RefreshToken, TokenSet, Vault, VaultError, VaultKey};
use voxline::clock::{Clock, SystemClock};
use voxline::error::chain;
use voxline_testing::{FailingVaultDisk, VaultStep};

use voxline_fixtures::gateway::process::kills;
use voxline_fixtures::random::Random;

fn vault(directory: &Path) -> Vault {
    Vault::new(&directory.join("tokens"), &"http://localhost".parse().unwrap(), "client")
}

fn tokens(access: &str) -> TokenSet {
    TokenSet {
        access: SecretString::from(access),
        refresh: Some(RefreshToken(SecretString::from(format!("refresh of {access}")))),
        granted: SystemClock::new().moment(),
        lifetime: Duration::from_secs(3600),
        scope: None,
    }
}

async fn save(vault: &Vault, access: &str) -> Result<(), VaultError> {
    let mut locked = vault.lock().await?;
    locked.account.tokens = Some(tokens(access));
    locked.save().await.map(drop)
}

/// Returns the access token that the vault contains.
fn held(vault: &Vault) -> Option<String> {
    vault.load().unwrap().tokens.map(|tokens| tokens.access.expose_secret().to_owned())
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_vault_that_others_can_reach_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let vault = vault(directory.path());
    assert!(vault.load().unwrap().tokens.is_none());
    save(&vault, "one").await.unwrap();
    let path = vault.path().to_owned();
    let parent = path.parent().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(parent).unwrap().permissions().mode() & 0o777, 0o700);

    mode(&path, 0o640);
    let error = vault.load().unwrap_err();
    assert!(matches!(error, VaultError::Exposed { .. }));
    assert!(error.to_string().contains("chmod 600"), "{error}");
    mode(&path, 0o600);
    mode(parent, 0o770);
    let error = save(&vault, "two").await.unwrap_err();
    assert!(matches!(error, VaultError::ExposedDirectory { .. }));
    assert!(error.to_string().contains("chmod 700"), "{error}");
    mode(parent, 0o700);

    let moved = path.with_extension("moved");
    std::fs::rename(&path, &moved).unwrap();
    symlink(&moved, &path).unwrap();
    assert!(matches!(vault.load(), Err(VaultError::NotAFile { .. })));
    assert!(matches!(save(&vault, "two").await, Err(VaultError::NotAFile { .. })));
}

#[tokio::test]
async fn a_damaged_vault_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let vault = vault(directory.path());
    save(&vault, "one").await.unwrap();
    let mut bytes = std::fs::read(vault.path()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(vault.path(), &bytes).unwrap();
    assert!(matches!(vault.load(), Err(VaultError::Damaged { .. })));
    save(&vault, "two").await.unwrap();
    assert_eq!(held(&vault).unwrap(), "two");
    assert_eq!(std::fs::read(vault.path().with_extension("damaged")).unwrap(), bytes);

    // A file that a later version wrote is not set aside.
    std::fs::write(vault.path(), "voxline-vault 9 who knows\n").unwrap();
    assert!(matches!(save(&vault, "three").await, Err(VaultError::Newer { .. })));
}

#[tokio::test]
async fn an_encrypted_vault_wants_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let plain = vault(directory.path());
    let key = |byte| VaultKey::parse(&[byte; 32]).unwrap();
    let encrypted = plain.clone().encrypted(key(1));
    save(&plain, "one").await.unwrap();
    assert_eq!(held(&encrypted).unwrap(), "one");
    save(&encrypted, "two").await.unwrap();
    assert_eq!(held(&encrypted).unwrap(), "two");
    let bytes = std::fs::read(plain.path()).unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"refresh"));
    assert!(matches!(plain.load(), Err(VaultError::NoKey { .. })));
    // A wrong key must not cost a slot of the project, so the file is not set aside.
    let other = plain.clone().encrypted(key(2));
    assert!(matches!(save(&other, "three").await, Err(VaultError::Undecryptable { .. })));
    assert_eq!(held(&encrypted).unwrap(), "two");
}

#[tokio::test]
async fn a_fault_at_any_step_leaves_the_old_account_or_the_new_one() {
    use VaultStep::{Created, DirectorySynced, HalfWritten, Renamed, Synced, Written};
    let directory = tempfile::tempdir().unwrap();
    let vault = vault(directory.path());
    save(&vault, "old").await.unwrap();
    for fault in [Created, HalfWritten, Written, Synced, Renamed, DirectorySynced] {
        save(&vault, "old").await.unwrap();
        let disk = FailingVaultDisk::new(move |step| {
            if step == fault { Err(io::Error::other("the disk fails")) } else { Ok(()) }
        });
        let failing = vault.clone().with_disk(disk);
        let error = save(&failing, "new").await.unwrap_err();
        assert!(chain(&error).to_string().contains("the disk fails"), "{error}");
        let expected = if matches!(fault, Renamed | DirectorySynced) { "new" } else { "old" };
        assert_eq!(held(&vault).unwrap(), expected, "{fault:?}");
        save(&vault, "newest").await.unwrap();
        assert_eq!(held(&vault).unwrap(), "newest", "{fault:?}");
    }
    let left: HashSet<_> = std::fs::read_dir(vault.path().parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path().extension().unwrap().to_owned())
        .collect();
    assert_eq!(left, HashSet::from(["vault".into(), "lock".into()]));
}

/// Environment variable with the directory of the vault.
const DIRECTORY: &str = "VOXLINE_VAULT_DIRECTORY";

/// Saves one account after another, and prints a line after each of them, until it is killed.
#[tokio::test]
#[ignore = "a process for another test, which starts and kills it"]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "how the two processes talk")]
async fn saving_process() {
    let vault = vault(Path::new(&std::env::var_os(DIRECTORY).expect("only its test runs this")));
    for number in held(&vault).map_or(0, |held| held.parse::<u64>().unwrap()).. {
        save(&vault, &number.to_string()).await.unwrap();
        println!("\nsaved {number}");
    }
}

#[test]
fn a_process_killed_at_any_time_leaves_the_old_account_or_the_new_one() {
    let mut random =
        Random::for_test("tokens::vault::a_process_killed_at_any_time_leaves_the_old_account_or_the_new_one");
    let directory = tempfile::tempdir().unwrap();
    let vault = vault(directory.path());
    let mut last = 0;
    for _ in 0..kills() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tokens::vault::saving_process", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut saved = lines.filter_map(|line| line.strip_prefix("saved ")?.parse::<u64>().ok());
        // The kill comes after a random number of saves, somewhere within the next one.
        let told = (0..=random.below(20)).filter_map(|_| saved.next()).last().expect("it saves");
        child.kill().unwrap();
        child.wait().unwrap();
        let told = saved.last().unwrap_or(told);
        let held: u64 = held(&vault).unwrap().parse().unwrap();
        assert!(held == told || held == told + 1, "told {told}, kept {held}");
        assert!(held >= last);
        last = held;
    }
}
