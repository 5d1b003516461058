//! Backup of a gateway that issues tokens meanwhile, and its restore.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use voxline_gateway::authority::{Amount, AtLimit, Authority, NewClient, Policy, Terms};

use crate::cli::Place;
use voxline_fixtures::gateway::authority::{HOUR, clock, is_good, serving};
use voxline_fixtures::gateway::server::Setup;

/// Number of threads that request tokens.
const MINTERS: usize = 3;
/// Longest wait for a token.
const PATIENCE: Duration = Duration::from_secs(30);

fn open(directory: &Path) -> Authority {
    Authority::open(directory, HOUR, Arc::new(clock())).unwrap()
}

/// Copies a backup into a new state directory and opens it.
fn restore(place: &Place, file: &str, state: &str) -> Authority {
    fs::create_dir(place.path(state)).unwrap();
    fs::copy(place.path(file), place.path(state).join("authority.redb")).unwrap();
    open(&place.path(state))
}

fn backup(place: &Place, file: &str) -> String {
    let output = place.run(&["gateway", "backup", file, "--state", "state"]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    if output.status.success() {
        assert_eq!(said, "");
        assert_eq!(fs::metadata(place.path(file)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    said
}

/// Creates tokens until told to stop, and sends the service tokens as they are answered. The client's
/// tokens are revoked at once.
fn mint(authority: &Authority, client: &NewClient, stop: &AtomicBool, answered: mpsc::Sender<SecretString>) {
    while !stop.load(Ordering::Relaxed) {
        let granted = authority.client_credentials(&client.client_id, &client.client_secret).unwrap();
        authority.revoke_shown(&client.client_id, &granted.refresh_token).unwrap();
        answered.send(authority.create_service_token("test", Terms::default()).unwrap().token).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_has_all_that_was_answered_before_it() {
    let place = Place::new();
    let policy = Policy { at_limit: AtLimit::Evict, ..Policy::default() };
    let setup =
        Setup { clock: Arc::new(clock()), policy, state: Some(place.path("state")), ..Setup::default() };
    let server = serving(setup).await;
    let authority = server.gateway.authority();
    let client = NewClient {
        client_id: server.credentials.client_id.clone(),
        client_secret: server.credentials.client_secret.clone(),
    };
    let kept = authority.client_credentials(&client.client_id, &client.client_secret).unwrap();
    let identity = authority.check(kept.access_token.expose_secret()).unwrap();

    let stop = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    let mut answered = Vec::new();
    let snapshots = std::thread::scope(|scope| {
        for _ in 0..MINTERS {
            let sender = sender.clone();
            scope.spawn(|| mint(authority, &client, &stop, sender));
        }
        let mut snapshots = Vec::new();
        for number in 0..3 {
            let more = || receiver.recv_timeout(PATIENCE).expect("a token that is minted meanwhile");
            answered.extend(std::iter::repeat_with(more).take(20));
            // Usage that is counted, and not on the disk yet.
            authority.charge(&identity, "tts", Amount::text(1)).unwrap();
            let file = format!("backup-{number}");
            assert_eq!(backup(&place, &file), "");
            snapshots.push((file, answered.clone(), number + 1));
        }
        stop.store(true, Ordering::Relaxed);
        snapshots
    });
    answered.extend(receiver.try_iter());
    // A backup does not overwrite a file.
    let bytes = fs::read(place.path("backup-0")).unwrap();
    let refused = backup(&place, "backup-0");
    assert!(refused.contains("backup-0 exists already"), "{refused}");
    assert_eq!(fs::read(place.path("backup-0")).unwrap(), bytes);
    server.stop().await;

    for (file, before, characters) in &snapshots {
        let restored = restore(&place, file, &format!("restored from {file}"));
        assert!(before.iter().all(|token| is_good(&restored, token)), "a token of before {file} is lost");
        assert!(is_good(&restored, &kept.access_token));
        let usage = restored.usage(None).unwrap();
        assert_eq!(usage.iter().map(|entry| entry.total.characters).sum::<u64>(), *characters);
        // The restored gateway goes on from there.
        restored.refresh(&client.client_id, kept.refresh_token.clone()).unwrap();
        let service = restored.create_service_token("test", Terms::default()).unwrap().token;
        assert!(is_good(&restored, &service));
        // A token is complete or absent: each token in the list has its hash.
        let listed = restored.service_tokens(None).unwrap().len();
        let good = answered.iter().filter(|token| is_good(&restored, token)).count();
        assert_eq!(listed, good + 1);
    }
    // The same without a running gateway.
    assert_eq!(backup(&place, "backup of a stopped gateway"), "");
    let restored = restore(&place, "backup of a stopped gateway", "restored at rest");
    assert!(answered.iter().all(|token| is_good(&restored, token)));
}

#[test]
fn a_backup_of_nothing_and_one_to_nowhere_are_refused() {
    let place = Place::new();
    let refused = backup(&place, "file");
    assert!(refused.contains("no gateway state in state"), "{refused}");
    assert!(!place.path("state").exists() && !place.path("file").exists());
    drop(open(&place.path("state")));
    let refused = backup(&place, "nowhere/file");
    assert!(refused.contains("nowhere/file: "), "{refused}");
    assert_eq!(backup(&place, "file"), "");
}
