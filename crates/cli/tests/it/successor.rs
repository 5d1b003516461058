//! Two real gateways and the real program: a gateway that is told to stop sends its sessions to another
//! one, on a host that the client's user has named.

use std::fs::DirBuilder;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::cli::{Place, assert_fails, text};
use crate::support::serving::Serving;
use voxline_fixtures::clips;

/// Longest wait on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// A second and a half, which ends an utterance.
const PAUSE: usize = 24_000;

/// Runs a gateway on the state in a directory, with a recogniser that loads quickly.
fn serve(place: &Place, state: &str, more: &[&str]) -> Serving {
    let usual = ["serve", "--listen", "127.0.0.1:0", "--state", state, "--model", "whisper-tiny.en"];
    let sizes = ["--threads", "1", "--max-sessions", "4", "--log", "warn,voxline_gateway=info"];
    Serving::start(place.command(&[&usual[..], &sizes, more].concat()))
}

/// Returns the lines of a stream as they arrive.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (said, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let _ = said.send(line.unwrap());
        }
    });
    lines
}

/// A process of `voxline transcribe -`, whose input the test writes.
struct Transcribing {
    child: Child,
    input: ChildStdin,
    text: Receiver<String>,
    log: Receiver<String>,
}

impl Transcribing {
    fn start(mut command: Command) -> Transcribing {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let (text, log) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Transcribing { child, input, text, log }
    }

    /// Sends a recording and a pause that ends its utterance. The pause is three times as long, because the
    /// decoder reads ahead in blocks.
    fn say(&mut self, recording: &[i16]) {
        let samples = recording.iter().chain(&[0; 3 * PAUSE]);
        let bytes: Vec<u8> = samples.flat_map(|sample| sample.to_le_bytes()).collect();
        self.input.write_all(&bytes).unwrap();
    }

    /// Waits for the next line of text.
    fn text(&self) -> String {
        self.text.recv_timeout(PATIENCE).expect("a text becomes final")
    }

    /// Waits for a line on standard error that contains `words`.
    fn logged(&self, words: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("never logged: {words}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Ends the audio. Returns the rest of the text, and the ledger.
    fn end(self) -> (Vec<String>, Value) {
        let Transcribing { mut child, input, text, log } = self;
        drop(input);
        let text = text.iter().collect();
        let last = log.iter().last().expect("the ledger is told");
        assert_eq!(child.wait().unwrap().code(), Some(0), "{last}");
        (text, serde_json::from_str(&last).unwrap())
    }
}

/// A session that may not follow stays, and ends on the gateway that stops; the other session moves. Both
/// have the text of an undisturbed session.
#[test]
fn a_session_goes_on_at_the_successor_where_its_user_allows_the_host() {
    let place = Place::new();
    place.run(&["gateway", "project", "create", "calls", "--state", "old"]);
    let token = place.run(&["gateway", "service-token", "create", "calls", "--state", "old"]);
    place.secret("token", &token.stdout);
    // The successor knows the tokens.
    DirBuilder::new().mode(0o700).create(place.path("new")).unwrap();
    let backup = place.run(&["gateway", "backup", "new/authority.redb", "--state", "old"]);
    assert_eq!(backup.status.code(), Some(0), "{}", text(&backup.stderr));
    let new = serve(&place, "new", &[]);
    let successor = new.endpoint.replace("127.0.0.1", "localhost");
    let old = serve(&place, "old", &["--successor", &successor]);

    let recordings = ["austen_0930", "austen_0890"].map(|name| clips::clip("en-16k", name).pcm);
    let usual = ["transcribe", "-", "--raw", "s16le:16000:1", "--ledger=json", "--token-file", "token"];
    let started = |endpoint: &str, more: &[&str]| {
        Transcribing::start(place.command(&[&usual[..], &["--endpoint", endpoint], more].concat()))
    };
    let mut undisturbed = started(&new.endpoint, &[]);
    recordings.iter().for_each(|recording| undisturbed.say(recording));
    let (whole, _) = undisturbed.end();
    assert!(whole.len() >= 2, "{whole:?}");
    new.logged("session started");

    let mut moving = started(&old.endpoint, &["--follow-host", "localhost"]);
    let mut staying = started(&old.endpoint, &["--follow-host", "b.example"]);
    [&mut moving, &mut staying].into_iter().for_each(|session| session.say(&recordings[0]));
    let first = [moving.text(), staying.text()];
    old.signal("TERM");
    new.logged("session started");
    staying.logged("no server it names may be shown its token");
    for ((mut session, first), moves) in [moving, staying].into_iter().zip(first).zip([1, 0]) {
        session.say(&recordings[1]);
        let (mut text, ledger) = session.end();
        text.insert(0, first);
        assert_eq!(text, whole, "{ledger}");
        assert_eq!(ledger["handovers"], moves, "{ledger}");
        assert_eq!((&ledger["reconnects"], &ledger["gaps"]), (&0.into(), &0.into()), "{ledger}");
        assert_eq!(ledger["accepted"], ledger["recognised"], "{ledger}");
    }
    let (status, log) = new.stop();
    assert_eq!(status.code(), Some(0));
    assert!(!log.iter().any(|line| line.contains("session started")), "{log:?}");
}

#[test]
fn who_takes_over_and_who_may_be_followed_is_checked_and_shown() {
    let place = Place::new();
    place.file(
        "voxline.toml",
        "endpoint = \"https://a.example\"\ntoken_file = \"t\"\nfollow_host = [\"B.example\"]\n\
         [gateway]\nsuccessor = [\"https://b.example/\"]\n[profiles.p]\nfollow_host = [\"::1\"]\n",
    );
    let show = |more: &[&str], variables: &[(&str, &str)]| {
        let mut show = place.command(&[&["config", "show", "--config", "voxline.toml"], more].concat());
        let shown = show.envs(variables.iter().copied()).output().unwrap();
        assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
        let keys = ["follow_host = ", "successor = "];
        let told = text(&shown.stdout).lines().filter(|line| keys.iter().any(|key| line.starts_with(key)));
        told.map(str::to_owned).collect::<Vec<_>>()
    };
    let [host, successor] =
        [r#"follow_host = ["b.example"]  # file"#, r#"successor = ["https://b.example"]  # file"#];
    assert_eq!(show(&[], &[]), [host, successor]);
    assert_eq!(show(&["--profile", "p"], &[]), [r#"follow_host = ["::1"]  # file"#, successor]);
    let variables =
        [("VOXLINE_FOLLOW_HOST", "c,d"), ("VOXLINE_GATEWAY_SUCCESSOR", "https://c,http://127.0.0.1:2")];
    assert_eq!(
        show(&[], &variables),
        [r#"follow_host = ["c", "d"]  # env"#, r#"successor = ["https://c", "http://127.0.0.1:2"]  # env"#]
    );
    let flags = ["--follow-host", "e", "--follow-host", "f", "--successor", "https://e"];
    assert_eq!(
        show(&flags, &variables),
        [r#"follow_host = ["e", "f"]  # flag"#, r#"successor = ["https://e"]  # flag"#]
    );
    // Hosts that the file allows for its own endpoint are not allowed for another endpoint.
    assert_eq!(show(&["--endpoint", "https://other.example"], &[]), [successor]);

    for (contents, parts) in [
        (
            "[gateway]\nsuccessor = [\"b.example\"]\n",
            ["line 2", "is not an address such as https://host:port"],
        ),
        ("[gateway]\nsuccessor = [\"http://b.example\"]\n", ["line 2", "would send the token unencrypted"]),
        ("\nfollow_host = [\"https://b\"]\n", ["line 2", "expected a host"]),
    ] {
        place.file("bad.toml", contents);
        assert_fails(&place.run(&["config", "check", "--config", "bad.toml"]), 2, &parts);
    }
    for (flag, value, expected) in [
        ("--successor", "b.example", "is not an address such as https://host:port"),
        ("--follow-host", "b.example:8443", "expected a host"),
    ] {
        let refused = place.run(&["config", "check", flag, value]);
        let told = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{told}");
        assert!(told.contains(flag) && told.contains(value) && told.contains(expected), "{told}");
    }
}
