//! Recordings on the web.

use std::fs;
use std::net::TcpListener;
use std::process::{Output, Stdio};

use serde_json::Value;

use super::{MULAW, assert_done, wav};
use crate::cli::{Place, assert_fails, path, signal, text};
use crate::support::model_hub::{Fault, ModelHub};
use voxline_engines::wer::normal;
use voxline_fixtures::samples::sample;

#[test]
fn a_recording_on_the_web_is_read_like_a_file() {
    let place = Place::new();
    let names = [MULAW, "speech-44k1-stereo.mp3", "speech-44k1-stereo-aac.m4a", "speech-16k-mono-voip.opus"];
    let files: Vec<_> =
        names.iter().map(|name| (format!("/a/{name}"), fs::read(sample(name)).unwrap())).collect();
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let hub = ModelHub::start(&files);
    for name in names {
        let url = format!("{}/a/{name}", hub.address);
        let (fetched, local) = (place.run(&["decode", &url]), place.run(&["decode", path(&sample(name))]));
        assert_done(&fetched);
        assert!(fetched.stdout == local.stdout, "{name}");
        let probe = |input: &str| {
            let told = place.run(&["probe", "--json", input]);
            assert_done(&told);
            let mut line: Value = serde_json::from_slice(&told.stdout).unwrap();
            assert_eq!(line["name"].take(), input);
            line
        };
        let (fetched, mut local) = (probe(&url), probe(path(&sample(name))));
        if local["container"] == "ogg" {
            // Only the last page states the length, and a stream is not read to its end to find it.
            (local["frames"], local["duration"]) = (Value::Null, Value::Null);
        }
        assert_eq!(fetched, local);
    }
    let url = format!("{}/a/{MULAW}", hub.address);
    let fetched = place.run(&["transcribe", &url, "--language", "en", "-o", "texts/"]);
    assert_done(&fetched);
    let told = fs::read_to_string(place.path("texts/speech-8k-mono-mulaw.txt")).unwrap();
    assert_eq!(normal(&told), normal(include_str!("../../../../../samples/speech.txt")));
}

#[test]
fn a_recording_that_the_web_does_not_give_is_one_line() {
    let place = Place::new();
    let bytes = fs::read(sample("source.wav")).unwrap();
    let hub = ModelHub::start(&[("/a.wav", &bytes)]);
    // A port that was free a moment ago, so no server listens there.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = format!("http://{nobody}/a.wav");
    let missing = format!("{}/b.wav", hub.address);
    for command in ["decode", "probe", "transcribe"] {
        assert_fails(&place.run(&[command, &missing]), 3, &[&missing, "404"]);
        assert_fails(&place.run(&[command, &refused]), 3, &[&refused, "cannot be fetched", "refused"]);
        let plain = place.run(&[command, "http://example.invalid/x.wav"]);
        assert_fails(&plain, 3, &["http://example.invalid/x.wav", "expected https"]);
    }
    hub.fault(Fault::Unavailable);
    assert_fails(&place.run(&["decode", &format!("{}/a.wav", hub.address)]), 3, &["503"]);
}

#[test]
fn a_download_cut_short_keeps_what_came() {
    let place = Place::new();
    let bytes = fs::read(sample("source.wav")).unwrap();
    let hub = ModelHub::start(&[("/a.wav", &bytes)]);
    let url = format!("{}/a.wav", hub.address);
    hub.fault(Fault::CutAfter(100_000));
    let cut = place.run(&["decode", &url, "--rate", "24000", "-o", "out.wav"]);
    assert_fails(&cut, 3, &[&url, " s (frame "]);
    let (.., pcm) = wav(&place.path("out.wav"));
    let (.., original) = wav(&sample("source.wav"));
    assert!(pcm == original[..pcm.len()]);
    // All data that arrived except the header. The amount that was still inside the client at the cut is
    // not specified.
    assert!(pcm.len() <= (100_000 - 44) / 2 && pcm.len() > 50_000 / 2, "{}", pcm.len());
    assert!(text(&cut.stderr).contains(&format!("(frame {})", pcm.len())), "{}", text(&cut.stderr));
}

#[test]
fn secrets_in_a_url_are_told_to_nobody() {
    let place = Place::new();
    let bytes = fs::read(sample(MULAW)).unwrap();
    let hub = ModelHub::start(&[("/a.wav?key=hush.hush", &bytes), ("/b/a.wav?key=hush.hush", &bytes)]);
    let host = hub.address.strip_prefix("http://").unwrap();
    let with_secrets = |path: &str| format!("http://user:hush@{host}{path}?key=hush.hush#hush");
    let url = with_secrets("/a.wav");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = format!("http://user:hush@{nobody}/a.wav?key=hush.hush");
    let untold = |output: &Output, code: i32| {
        let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), text(&output.stderr));
        assert!(!all.contains("hush"), "{all}");
        assert_eq!(output.status.code(), Some(code), "{all}");
    };
    untold(&place.run(&["probe", &url]), 0);
    untold(&place.run(&["probe", "--json", &url]), 0);
    untold(&place.run(&["decode", &url, "--log", "trace"]), 0);
    untold(&place.run(&["transcribe", &url, "--language", "en", "--format", "jsonl"]), 0);
    for command in ["probe", "decode", "transcribe"] {
        untold(&place.run(&[command, &with_secrets("/missing.wav")]), 3);
        untold(&place.run(&[command, &refused, "--log", "trace"]), 3);
        untold(&place.run(&[command, &refused.replace("http:", "HTTP:")]), 3);
        untold(&place.run(&[command, "http://user:hush@example.invalid/a.wav?key=hush"]), 3);
        untold(&place.run(&[command, "https://user:hush@[bad/a.wav?key=hush"]), 3);
    }
    hub.fault(Fault::CutAfter(20_000));
    untold(&place.run(&["decode", &url]), 3);
    // Names of files contain no secrets either, neither names of written files nor names in a refusal.
    let text_of = |paths: &[&str]| {
        let urls: Vec<String> = paths.iter().map(|path| with_secrets(path)).collect();
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        place.run(&[&["transcribe", "--language", "en", "-o", "texts/"], &urls[..]].concat())
    };
    untold(&text_of(&["/a.wav"]), 0);
    assert!(place.path("texts/a.txt").exists(), "{:?}", fs::read_dir(place.path("texts")).unwrap().next());
    let both = text_of(&["/a.wav", "/b/a.wav"]);
    assert_fails(&both, 2, &["texts/a.txt", "/b/a.wav"]);
    untold(&both, 2);
}

#[test]
fn an_interruption_while_a_server_is_silent_names_the_recording_without_secrets() {
    let place = Place::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let url = format!("http://user:hush@{address}/a.wav?key=hush");
    let mut transcribe = place.command(&["transcribe", &url]);
    let child = transcribe.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Once the program has connected, it also listens for signals. The connection stays open and carries
    // no data.
    let connection = server.accept().unwrap();
    signal(&child, "INT");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    assert_eq!(text(&ended.stderr), format!("voxline: http://{address}/a.wav: interrupted\n"));
    drop(connection);
}
