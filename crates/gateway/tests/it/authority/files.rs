//! Files of the gateway state: permissions, wrong file types, and the released formats.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use voxline_gateway::authority::{Amount, Authority, AuthorityError, Policy, Refreshing, StateError};
use voxline_testing::ManualClock;

use voxline_fixtures::gateway::authority::{HOUR, clock, is_good};

fn open(directory: &Path) -> Result<Authority, AuthorityError> {
    Authority::open(directory, HOUR, Arc::new(clock()))
}

/// Returns the message with which opening that state is refused.
fn refusal(directory: &Path) -> String {
    let bytes = fs::read(store(directory)).ok();
    let refusal = open(directory).err().expect("the state is refused").to_string();
    assert!(!refusal.contains('\n'), "{refusal}");
    assert_eq!(fs::read(store(directory)).ok(), bytes, "the store was touched");
    refusal
}

fn store(directory: &Path) -> PathBuf {
    directory.join("authority.redb")
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Creates a directory with the state of a gateway that has one project.
fn state() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap().create_project("a").unwrap();
    directory
}

#[test]
fn files_that_others_can_touch_are_refused_until_they_can_not() {
    let directory = state();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let made = directory.path().join("made");
    open(&made).unwrap();
    assert_eq!((mode(&made), mode(&store(&made))), (0o700, 0o600));
    for exposed in [0o720, 0o702, 0o777] {
        set_mode(directory.path(), exposed);
        let refused = refusal(directory.path());
        let name = directory.path().display();
        assert_eq!(
            refused,
            format!("state directory {name} can be changed by others: run chmod 700 on it, as its owner")
        );
    }
    // Others may list the directory.
    set_mode(directory.path(), 0o755);
    for exposed in [0o640, 0o620, 0o604, 0o602, 0o666] {
        set_mode(&store(directory.path()), exposed);
        let refused = refusal(directory.path());
        assert!(
            refused.contains("authority.redb can be read or written by others: run chmod 600"),
            "{refused}"
        );
    }
    set_mode(&store(directory.path()), 0o600);
    assert_eq!(open(directory.path()).unwrap().projects().unwrap().len(), 1);
}

#[test]
fn a_link_or_a_directory_is_no_store() {
    let (real, linked) = (state(), tempfile::tempdir().unwrap());
    symlink(store(real.path()), store(linked.path())).unwrap();
    let refused = refusal(linked.path());
    assert!(refused.contains("authority.redb is not a regular file"), "{refused}");
    // Following a dangling link would create the store elsewhere.
    let dangling = tempfile::tempdir().unwrap();
    symlink(real.path().join("elsewhere"), store(dangling.path())).unwrap();
    assert!(refusal(dangling.path()).contains("is not a regular file"));
    assert!(!real.path().join("elsewhere").exists());
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(store(directory.path())).unwrap();
    assert!(refusal(directory.path()).contains("is not a regular file"));
    assert_eq!(open(real.path()).unwrap().projects().unwrap().len(), 1);
}

#[test]
fn a_store_that_was_cut_to_nothing_is_no_fresh_one() {
    let directory = state();
    fs::File::create(store(directory.path())).unwrap();
    let refused = refusal(directory.path());
    assert!(refused.contains("is empty") && refused.contains("restore a backup"), "{refused}");
    // After the file is removed by hand, the gateway starts with a new store.
    fs::remove_file(store(directory.path())).unwrap();
    assert_eq!(open(directory.path()).unwrap().projects().unwrap(), []);
    // No temporary file is left from its creation.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_damaged_store_is_told_as_one() {
    let directory = state();
    for damage in [&b"no store at all"[..], &[0; 8_192]] {
        fs::write(store(directory.path()), damage).unwrap();
        let error = open(directory.path()).err().unwrap();
        assert!(matches!(error, AuthorityError::State(StateError::Damaged { .. })), "{error:?}");
        assert!(error.to_string().ends_with("restore a backup"), "{error}");
    }
}

/// Creates a store as another version of the program would leave it.
fn store_of(format: Option<u64>) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let database = redb::Database::create(store(directory.path())).unwrap();
    let tx = database.begin_write().unwrap();
    tx.open_table(redb::TableDefinition::<&str, &[u8]>::new("projects")).unwrap();
    if let Some(format) = format {
        let table = redb::TableDefinition::<&str, &[u8]>::new("numbers");
        tx.open_table(table).unwrap().insert("format", format.to_string().as_bytes()).unwrap();
    }
    tx.commit().unwrap();
    drop(database);
    set_mode(&store(directory.path()), 0o600);
    directory
}

#[test]
fn a_store_of_another_format_is_told_as_such_and_left_alone() {
    for (format, told) in [
        (None, "another version of voxline, before its first release"),
        (Some(1), "another version of voxline, before its first release"),
        (
            Some(4),
            "has format 4, and this version of voxline knows formats up to 3: use the version that wrote it",
        ),
        (Some(u64::MAX), "has format 18446744073709551615"),
    ] {
        let directory = store_of(format);
        let refused = open(directory.path()).err().unwrap().to_string();
        assert!(refused.contains(told), "{refused}");
        assert!(!refused.contains("corrupt") && !refused.contains("damage"), "{refused}");
        let database = redb::Database::open(store(directory.path())).unwrap();
        let tx = redb::ReadableDatabase::begin_read(&database).unwrap();
        assert_eq!(tx.list_tables().unwrap().count(), 1 + usize::from(format.is_some()));
    }
}

/// A store of each released format, as its version left it. All have the same contents: the project `calls`
/// has a client with one refresh token, and a service token with a budget of one hour of audio a day and a
/// usage of six spoken characters.
const STORES: [(u64, &[u8]); 2] = [
    (2, include_bytes!("../data/authority-format-2.redb")),
    (3, include_bytes!("../data/authority-format-3.redb")),
];
/// Time at which the characters were spoken.
const SPOKEN_AT: Duration = Duration::from_secs(1_795_995_705);
// Credentials of these stores only, made for this test: they give access to nothing else.
const CLIENT_ID: &str = "mcs2523577168.voice.mgsiixevk2mpdrdkenocq";
const CLIENT_SECRET: &str = "vxc_y3vd7ckjyqraepyhq3xw3ggkjzdhuspm74gfqipsxax6utspfp3q";
const REFRESH_TOKEN: &str = "vxr_tqwge4nr4ndmgns5mov3wqd2gmkn3l2vtkszktjzak74vtfvih2a";
const SERVICE_TOKEN: &str = "vxs_kr6sf4wzitewaej3qovdhcjqxukk3pmf3373ehnjhvtlprhy3cpa";

#[test]
fn stores_of_all_formats_are_brought_up_to_date() {
    for (format, bytes) in STORES {
        let directory = tempfile::tempdir().unwrap();
        fs::write(store(directory.path()), bytes).unwrap();
        set_mode(&store(directory.path()), 0o600);
        let mut keys = Vec::new();
        // The second time, the store is of the current format.
        for _ in 0..2 {
            let clock = Arc::new(ManualClock::new(SPOKEN_AT));
            let policy = Policy { refreshing: Refreshing::Rotate, ..Policy::default() };
            let authority = Authority::open(directory.path(), HOUR, clock).unwrap().with_policy(policy);
            assert_eq!(authority.projects().unwrap()[0].name, "calls", "format {format}");
            assert!(is_good(&authority, &SecretString::from(SERVICE_TOKEN)), "format {format}");
            let token = &authority.service_tokens(Some("calls")).unwrap()[0];
            assert_eq!(token.terms.audio.per_day, Some(3_600), "format {format}");
            let secret = SecretString::from(CLIENT_SECRET);
            let granted = authority.client_credentials(CLIENT_ID, &secret).unwrap();
            assert!(is_good(&authority, &granted.access_token), "format {format}");
            // The refresh token is valid as long as its successor is not used.
            authority.refresh(CLIENT_ID, SecretString::from(REFRESH_TOKEN)).unwrap();
            let usage = authority.usage(Some("calls")).unwrap();
            let used = usage.iter().find(|entry| entry.id == token.id).unwrap();
            assert_eq!((used.today, used.total), (Amount::text(6), Amount::text(6)), "format {format}");
            // The signing key of short-lived keys is made once.
            let holder = authority.check(SERVICE_TOKEN).unwrap();
            keys.push(authority.make_short_lived(&holder, HOUR, "", None).unwrap().key);
            assert!(keys.iter().all(|key| is_good(&authority, key)), "format {format}");
        }
    }
}
