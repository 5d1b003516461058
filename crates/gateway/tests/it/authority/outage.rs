//! A disk that fails under the gateway and recovers: the gateway needs no restart, and no usage is lost.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use voxline::audio::Feed;
use voxline::session::{Session, Settings};
use voxline::transcript::TranscriptEvent;
use voxline::transport::WebSocketConnector;
use voxline_gateway::authority::{Amount, Authority, AuthorityError, NewToken, Terms};
use voxline_testing::FailingDisk;

use voxline_fixtures::gateway::audio::{chunks, wav};
use voxline_fixtures::gateway::authority::{HOUR, clock, is_good, service_token, serving};
use voxline_fixtures::gateway::http::{ask_token, by_credentials, http_client, refusal, url};
use voxline_fixtures::gateway::log::Log;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::noise;

/// Test that runs on the full disk, in a process of its own.
const FULL_DISK_PROCESS: &str = "authority::outage::full_disk_process";
/// Environment variable that holds the directory of that process.
const DIRECTORY: &str = "VOXLINE_TEST_FULL_DISK";
/// Environment variable that, if set, makes a limit of the file size stand in for the full disk.
const BY_LIMIT: &str = "VOXLINE_TEST_FULL_DISK_BY_LIMIT";
/// Environment variable that forbids this test to mount a file system.
const NO_MOUNT: &str = "VOXLINE_TEST_NO_MOUNT";
/// Twelve seconds of audio, for about one final result a second.
const FRAMES: u64 = 192_000;

/// Longest wait for an event.
const PATIENCE: Duration = Duration::from_secs(30);

/// Mounts a file system of 4 MB at `$0` and runs the remaining arguments on it. The mount ends with the
/// process.
const ON_A_SMALL_DISK: &str = r#"mount -t tmpfs -o size=4m tmpfs "$0" && exec "$@""#;

/// Returns the arguments of `unshare` with which this machine lets us mount, if there are any. Root needs
/// no user namespace.
fn mounting(directory: &Path) -> Option<Vec<&'static str>> {
    let ways = [vec!["--mount"], vec!["--mount", "--map-root-user"]];
    ways.into_iter().find(|way| {
        let mut unshare = Command::new("unshare");
        unshare.args(way).args(["--", "sh", "-c", ON_A_SMALL_DISK]).arg(directory).arg("true");
        unshare.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    })
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the process is told by its environment")]
#[expect(clippy::print_stderr, reason = "a lesser proof is not taken in silence")]
fn a_session_lives_through_a_full_disk_and_the_gateway_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let test = std::env::current_exe().unwrap();
    let arguments = [FULL_DISK_PROCESS, "--exact", "--ignored", "--nocapture"];
    let way = if std::env::var_os(NO_MOUNT).is_some() { None } else { mounting(directory.path()) };
    let mut command = if let Some(way) = way {
        let mut unshare = Command::new("unshare");
        unshare.args(way).args(["--", "sh", "-c", ON_A_SMALL_DISK]).arg(directory.path()).arg(test);
        unshare
    } else {
        eprintln!(
            "WARNING: no file system can be mounted here: a limit of the size of files stands in for a full disk"
        );
        let mut limited = Command::new(test);
        limited.env(BY_LIMIT, "1");
        limited
    };
    let status = command.args(arguments).env(DIRECTORY, directory.path()).status().unwrap();
    assert!(status.success(), "{status}: see above");
}

/// A disk that gets full, and has room again.
enum Disk {
    /// A small file system.
    Small(PathBuf),
    /// Any file system, with a limit of the size of this process's files.
    Limited(PathBuf),
}

impl Disk {
    fn state(&self) -> PathBuf {
        let (Disk::Small(directory) | Disk::Limited(directory)) = self;
        directory.join("state")
    }

    fn fill(&self) {
        match self {
            Disk::Small(directory) => {
                let mut ballast = fs::File::create(directory.join("ballast")).unwrap();
                // Written page by page, because a part of a larger write may fit.
                let full = loop {
                    if let Err(error) = ballast.write_all(&[1; 4096]) {
                        break error;
                    }
                };
                assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
            }
            Disk::Limited(_) => {
                let size = fs::metadata(self.state().join("authority.redb")).unwrap().len();
                let maximum = getrlimit(Resource::Fsize).maximum;
                setrlimit(Resource::Fsize, Rlimit { current: Some(size), maximum }).unwrap();
            }
        }
    }

    fn make_room(&self) {
        match self {
            Disk::Small(directory) => fs::remove_file(directory.join("ballast")).unwrap(),
            Disk::Limited(_) => {
                let maximum = getrlimit(Resource::Fsize).maximum;
                setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum }).unwrap();
            }
        }
    }
}

/// Returns today's usage and the total of every ID.
fn usage(authority: &Authority) -> Vec<(String, Amount, Amount)> {
    let entries = authority.usage(None).unwrap().into_iter();
    entries.map(|entry| (entry.id, entry.today, entry.total)).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a disk to fill: a_session_lives_through_a_full_disk_and_the_gateway_recovers runs it on one"]
#[expect(clippy::disallowed_methods, reason = "told by the environment")]
async fn full_disk_process() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).expect("the test that starts it says where"));
    let disk = if std::env::var_os(BY_LIMIT).is_some() {
        // By default the signal ends the process.
        let _caught = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).unwrap();
        Disk::Limited(directory)
    } else {
        Disk::Small(directory)
    };
    let clock = clock();
    let setup = Setup { clock: Arc::new(clock.clone()), state: Some(disk.state()), ..Setup::default() };
    let server = serving(setup).await;
    let tokens = server.tokens();
    let connector = WebSocketConnector::new(server.endpoint()).unwrap();

    // A session whose source delivers audio up to `until`.
    let (said, mut until) = watch::channel(FRAMES / 3);
    let (sender, feed) = mpsc::channel(4);
    let feeding = async {
        for feed in chunks(&noise(FRAMES as usize)) {
            if let Feed::Audio(chunk) = &feed {
                until.wait_for(|end| *end >= chunk.range().end.0).await.unwrap();
            }
            sender.send(feed).await.unwrap();
        }
        sender.send(Feed::End).await.unwrap();
        drop(sender);
    };
    let (events, mut told) = mpsc::channel(64);
    let mut settings = Settings::new(16_000).with_seed(0);
    settings.request.partials = false;
    let running = Session::new(&connector, &tokens, settings).run(feed, events);
    let meanwhile = async {
        let mut finals = Vec::new();
        let mut next_final = async || {
            loop {
                match timeout(PATIENCE, told.recv()).await.expect("a final of the live session") {
                    Some(TranscriptEvent::Final(segment)) => finals.push(segment),
                    Some(_) => {}
                    None => return finals.len(),
                }
                if finals.last().is_some_and(|segment| segment.range.end.0 + 8_000 > *said.borrow()) {
                    return finals.len();
                }
            }
        };
        next_final().await;
        fill_and_recover(&disk, &server, &clock, async || {
            said.send_replace(FRAMES * 2 / 3);
            next_final().await;
        })
        .await;
        said.send_replace(FRAMES);
        while next_final().await < FRAMES as usize / 8_000 {}
    };
    let (ended, (), ()) = tokio::join!(running, feeding, meanwhile);
    let ledger = ended.ledger;
    assert_eq!(ended.result, Ok(()), "{ledger}");
    assert!(ledger.is_balanced(), "{ledger}");
    assert_eq!((ledger.recognised, ledger.gaps, ledger.reconnects), (FRAMES, 0, 0), "{ledger}");

    // All usage is on the disk.
    let used = usage(server.gateway.authority());
    let client = used.iter().find(|(id, ..)| *id == server.credentials.client_id).unwrap();
    assert_eq!(client.2.audio_ms, FRAMES / 16);
    server.stop().await;
    let authority = Authority::open(&disk.state(), HOUR, Arc::new(clock)).unwrap();
    assert_eq!(usage(&authority), used);
}

/// Fills the disk under a gateway with a live session, and makes room again. `go_on` lets the source of the
/// session deliver more audio.
async fn fill_and_recover(
    disk: &Disk,
    server: &Server,
    clock: &voxline_testing::ManualClock,
    mut go_on: impl AsyncFnMut(),
) {
    let log = Log::of_process();
    let logged = |parts: &[&str]| -> usize {
        log.text().lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    };
    let path = format!("path=\"{}\"", disk.state().join("authority.redb").display());
    let failure = ["ERROR", "gateway state is unavailable", &path, "reason=I/O error: ", "wait=1s"];
    let recovery = ["INFO voxline::operation: gateway state is available again", path.as_str()];
    let http = http_client().unwrap();
    let authority = server.gateway.authority();
    let NewToken { id, token } = service_token(server, Terms::default());
    let readiness = async || http.get(url(server, "/readyz")).send().await.unwrap();
    assert_eq!(readiness().await.status(), StatusCode::OK);

    disk.fill();
    // Free pages in the file still take a change or two.
    let mut made = 0;
    let failed = loop {
        match authority.create_service_token("test", Terms::default()) {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 100_000, "the disk is never full");
    };
    assert!(matches!(failed, AuthorityError::Unavailable { .. }), "{failed}");
    // The operator learns what has failed, why, and when it is tried again.
    assert_eq!((logged(&failure), logged(&recovery)), (1, 0), "{}", log.text());
    // The clock stands still, so that the next attempt is never due: until then all changes are refused.
    let refused = ask_token(server, &http, &by_credentials(server)).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(refused.json::<Value>().await.unwrap()["error"], "temporarily_unavailable");
    let answer = readiness().await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let reason = answer.text().await.unwrap();
    assert!(reason.contains("the token store is unavailable: I/O error: "), "{reason}");

    // Requests that change nothing go on: live sessions, recordings, speech, lists.
    go_on().await;
    let speak = http.post(url(server, "/tts")).bearer_auth(token.expose_secret()).body("Hello.");
    assert_eq!(speak.send().await.unwrap().status(), StatusCode::OK);
    let hear = http.post(url(server, "/asr")).bearer_auth(token.expose_secret());
    assert_eq!(hear.body(wav(1, 16_000, 16_000)).send().await.unwrap().status(), StatusCode::OK);
    assert!(authority.service_tokens(Some("test")).unwrap().len() > made);
    let unknown = http.get(url(server, "/tts?text=a")).bearer_auth("wrong").send().await.unwrap();
    assert_eq!(refusal(unknown).await, (StatusCode::UNAUTHORIZED, 4048));

    disk.make_room();
    clock.advance(Duration::from_secs(1));
    let ready = async { while readiness().await.status() != StatusCode::OK {} };
    timeout(PATIENCE, ready).await.expect("the gateway is ready again once there is room");
    assert_eq!((logged(&failure), logged(&recovery)), (1, 1), "{}", log.text());
    assert_eq!(ask_token(server, &http, &by_credentials(server)).await.status(), StatusCode::OK);
    let used = usage(authority);
    let service = used.iter().find(|(used, ..)| *used == id).unwrap();
    assert_eq!(service.2, Amount { audio_ms: 1_000, characters: 6 });
}

/// Returns the wait until the next attempt.
fn wait(refused: Result<(), AuthorityError>) -> Duration {
    match refused {
        Err(AuthorityError::Unavailable { wait, .. }) => wait,
        other => panic!("not unavailable: {other:?}"),
    }
}

#[test]
fn usage_that_could_not_be_written_is_written_after_the_disk_recovers() {
    let (clock, disk) = (clock(), FailingDisk::new());
    let open = |disk| Authority::on_disk(disk, HOUR, Arc::new(clock.clone())).unwrap();
    let authority = open(disk.clone());
    authority.create_project("a").unwrap();
    let NewToken { token, .. } = authority.create_service_token("a", Terms::default()).unwrap();
    let identity = authority.check(token.expose_secret()).unwrap();
    for failing in 0..20 {
        let before = usage(&authority).first().map_or(0, |(.., total)| total.characters);
        // The disk fails at each step of the write in turn.
        authority.charge(&identity, "tts", Amount::text(1)).unwrap();
        disk.fail_after(failing);
        let written = authority.keep_usage();
        authority.charge(&identity, "tts", Amount::text(2)).unwrap();
        disk.repair();
        if written.is_err() {
            // No attempt is made before its time, even if the disk works again.
            assert_eq!(wait(authority.keep_usage()), Duration::from_secs(1));
            clock.advance(Duration::from_secs(1));
        }
        authority.keep_usage().unwrap();
        assert!(authority.outage().is_none());
        assert_eq!(usage(&authority)[0].2.characters, before + 3);
        // A crash of the machine now loses nothing.
        let after = open(disk.after_a_crash(|_| false));
        assert_eq!(usage(&after), usage(&authority), "the disk failed at step {failing}");
        assert!(is_good(&after, &token));
    }
}

#[test]
fn a_disk_that_stays_broken_is_tried_ever_less_often() {
    let (clock, disk) = (clock(), FailingDisk::new());
    let authority = Authority::on_disk(disk.clone(), HOUR, Arc::new(clock.clone())).unwrap();
    let client = authority.create_project("a").unwrap();
    let mint = || authority.client_credentials(&client.client_id, &client.client_secret).map(drop);
    let change = || authority.create_client("a").map(drop);
    disk.fail_after(0);
    for seconds in [1, 2, 4, 8, 10, 10, 10] {
        assert_eq!(wait(change()), Duration::from_secs(seconds));
        clock.advance(Duration::from_secs(seconds) - Duration::from_millis(1));
        // The wait is at least a second: no caller is asked to retry at once.
        assert_eq!(wait(change()), Duration::from_secs(1));
        assert_eq!(wait(mint()), Duration::from_secs(1));
        clock.advance(Duration::from_millis(1));
    }
    let outage = authority.outage().unwrap().to_string();
    assert!(outage.contains("the disk has failed"), "{outage}");
    disk.repair();
    // A gateway without requests recovers too.
    authority.keep_usage().unwrap();
    assert!(authority.outage().is_none());
    mint().unwrap();
    // The next outage starts again with the shortest wait.
    disk.fail_after(0);
    assert_eq!(wait(change()), Duration::from_secs(1));
}
