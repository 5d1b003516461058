//! The operator's commands, which work alike with a running gateway and without one.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::Output;

use humantime::parse_rfc3339;
use secrecy::ExposeSecret;
use serde_json::Value;
use voxline_gateway::authority::{Scope, Terms};

use crate::cli::Place;
use voxline_fixtures::gateway::authority::{HOUR, clock, serving};
use voxline_fixtures::gateway::process::GatewayProcess;
use voxline_fixtures::gateway::server::{Server, Setup};

/// Runs `voxline gateway` on the state directory `state`.
fn gateway(place: &Place, command: &str) -> Output {
    let mut arguments = vec!["gateway"];
    arguments.extend(command.split(' '));
    arguments.extend(["--state", "state"]);
    place.run(&arguments)
}

fn stdout(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Starts the gateway of the state directory of `place`.
async fn start(place: &Place) -> Server {
    serving(Setup { state: Some(place.path("state")), ..Setup::default() }).await
}

/// Returns the first word of `text` that begins with `prefix`.
fn word(text: &str, prefix: &str) -> String {
    let mut words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c)));
    words.find(|word| word.starts_with(prefix)).unwrap_or_else(|| panic!("no {prefix} in {text}")).to_owned()
}

/// Returns a placeholder for a word that differs between runs, and any other word unchanged.
fn kind(word: &str) -> &str {
    let random = ["pr_", "rt_", "at_", "st_", "vxc_", "vxs_", "mcs"];
    match random.into_iter().find(|prefix| word.starts_with(prefix)) {
        Some(prefix) => prefix,
        None if word.starts_with("20") && word.ends_with('Z') => "time",
        None => word,
    }
}

/// Returns the lines of the output in alphabetical order, with the words that differ between runs replaced
/// by placeholders. The exit code is the last line.
fn lasting(output: &Output) -> Vec<String> {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8(text).unwrap();
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    let mut said = String::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(|c| !is_part(c)).unwrap_or(rest.len()));
        let (between, after) = after.split_at(after.find(is_part).unwrap_or(after.len()));
        said.push_str(kind(word));
        said.push_str(between);
        rest = after;
    }
    let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
    lines.sort();
    lines.push(format!("exit code {:?}", output.status.code()));
    lines
}

/// Runs every operator command. Returns the comparable output of each.
fn do_everything(place: &Place) -> Vec<Vec<String>> {
    let mut said = Vec::new();
    let mut run = |command: &str| {
        let output = gateway(place, command);
        said.push(
            [vec![command.split(' ').take(2).collect::<Vec<_>>().join(" ")], lasting(&output)].concat(),
        );
        String::from_utf8(output.stdout).unwrap()
    };
    run("project create calls");
    run("project create calls");
    run("project create other --json");
    let client = word(&run("client create calls"), "mcs");
    run("client create nobody");
    run("client list calls");
    run("client list");
    run("service-token create calls");
    run(
        "service-token create calls --scopes tts,asr_short --expires-in 60 --audio-per-day 3600 --audio-total 7200 \
         --characters-per-day 10 --from 10.0.0.0/8,2001:db8::/32 --max-sessions 3",
    );
    run("service-token create calls --scopes tts,all");
    run("service-token create calls --from everywhere");
    let listed = run("service-token list calls");
    assert!(listed.contains("3600 s a day, 7200 s in all") && listed.contains("10.0.0.0/8,2001:db8::/32"));
    run(&format!("service-token revoke {}", word(&listed, "st_")));
    run("service-token list");
    run("token list");
    run("token revoke rt_nothing");
    run("usage");
    run("usage nobody");
    run("project disable other");
    run("project list");
    run("project enable other");
    run("project list");
    run(&format!("client revoke {client}"));
    run("client revoke nobody");
    run("client list calls");
    run("project revoke other");
    run("project revoke other");
    run("project list");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_are_the_same_with_a_gateway_and_without() {
    let (stopped, running) = (Place::new(), Place::new());
    start(&stopped).await.stop().await;
    let without = do_everything(&stopped);
    let server = start(&running).await;
    let with = do_everything(&running);
    assert_eq!(with, without);
    // The commands reached the running gateway.
    let projects = server.gateway.authority().projects().unwrap();
    assert_eq!(projects.len(), 2);
    server.stop().await;
}

/// Asserts that the times of all entries are dates in UTC.
fn assert_times_are_rfc3339(entries: &Value) {
    for entry in entries.as_array().unwrap() {
        let times = ["created", "last_used", "expires"].into_iter().filter_map(|field| entry.get(field));
        for time in times.filter(|time| !time.is_null()) {
            let text = time.as_str().unwrap_or_else(|| panic!("{time} of {entry} is no date"));
            assert!(parse_rfc3339(text).is_ok() && text.ends_with('Z'), "{entry}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_gateway_hears_its_operator() {
    let place = Place::new();
    let server = start(&place).await;
    let authority = server.gateway.authority();
    let socket = std::fs::metadata(place.path("state/admin.sock")).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(place.path("state")).unwrap().permissions().mode() & 0o777, 0o700);

    let credentials = &server.credentials;
    let granted = authority.client_credentials(&credentials.client_id, &credentials.client_secret).unwrap();
    let service = stdout(&gateway(&place, "service-token create test"));
    assert!(authority.authorise(service.trim(), Scope::Tts, None).is_ok());
    let tokens: Value = serde_json::from_str(&stdout(&gateway(&place, "token list test --json"))).unwrap();
    let tokens = tokens.as_array().unwrap();
    assert_eq!(tokens.len(), 2);
    let access = tokens.iter().find(|token| token["refresh_token"].is_string()).unwrap();
    assert_eq!(access["scopes"].as_array().unwrap().len(), 3);
    let time = |field: &str| parse_rfc3339(access[field].as_str().unwrap()).unwrap();
    assert_eq!(time("expires").duration_since(time("created")).unwrap(), HOUR);
    stdout(&gateway(&place, &format!("token revoke {}", access["id"].as_str().unwrap())));
    assert!(authority.check(granted.access_token.expose_secret()).is_err());

    // A secret is shown only once, when it is created.
    for list in ["project list", "client list", "service-token list", "token list", "usage"] {
        for json in ["", " --json"] {
            let shown = stdout(&gateway(&place, &format!("{list}{json}")));
            assert!(!["vxc_", "vxr_", "vxa_", "vxs_"].iter().any(|prefix| shown.contains(prefix)), "{shown}");
            if !json.is_empty() {
                assert_times_are_rfc3339(&serde_json::from_str(&shown).unwrap());
            }
        }
    }
    server.stop().await;
    assert!(!place.path("state/admin.sock").exists());
    assert!(stdout(&gateway(&place, "project list")).contains("test"));
}

#[test]
fn what_a_killed_gateway_leaves_is_no_hindrance() {
    let mut process = GatewayProcess::start();
    let state = process.state();
    let place = Place::new();
    let list = |expected: &str| {
        let state = state.to_str().unwrap();
        let listed = place.run(&["gateway", "project", "list", "--state", state]);
        assert!(stdout(&listed).contains(expected), "{listed:?}");
    };
    list("test");
    process.kill();
    assert!(state.join("admin.sock").exists());
    let created =
        place.run(&["gateway", "project", "create", "meanwhile", "--state", state.to_str().unwrap()]);
    assert_eq!(created.status.code(), Some(0), "{created:?}");
    process.restart();
    list("meanwhile");
}

#[tokio::test]
async fn a_stranger_at_the_socket_harms_nobody() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    let place = Place::new();
    let setup =
        Setup { state: Some(place.path("state")), clock: std::sync::Arc::new(clock()), ..Setup::default() };
    let server = serving(setup).await;
    let dial = async || UnixStream::connect(place.path("state/admin.sock")).await.unwrap();
    drop(dial().await);
    for nonsense in [&b""[..], b"{", b"\"list_everything\"", &vec![b'['; 100_000]] {
        let mut socket = dial().await;
        // The gateway may have closed the connection by then.
        let _ = socket.write_all(nonsense).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        if socket.read_to_end(&mut answer).await.is_ok() {
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            assert!(answer["Err"].as_str().unwrap().starts_with("command: "), "{answer}");
        }
    }
    let mut socket = dial().await;
    socket.write_all(b"\"list_projects\"").await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("\"name\":\"test\""), "{answer}");
    server.gateway.authority().create_service_token("test", Terms::default()).unwrap();
    server.stop().await;
}
