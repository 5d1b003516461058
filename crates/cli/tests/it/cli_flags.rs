//! Flags as users write them, and the messages that refuse them.

use std::process::Output;

use serde_json::Value;

use crate::cli::{Place, assert_fails, text};

/// Asserts that the command line parser refused a command with a message that contains each of `parts`.
#[track_caller]
fn assert_refused(refused: &Output, parts: &[&str]) {
    let complaint = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{complaint}");
    for part in parts {
        assert!(complaint.contains(part), "{complaint:?} doesn't mention {part:?}");
    }
}

#[test]
fn numbers_times_and_networks_are_refused_in_words() {
    let place = Place::new();
    let token = ["gateway", "service-token", "create", "calls", "--state", "state"];
    for (arguments, expected) in [
        (&["transcribe", "a.wav", "--buffer", "5"][..], "expected a whole number from 30 to 3600"),
        (&["transcribe", "a.wav", "--patience", "soon"], "expected a whole number from 1 to 86400"),
        (&["transcribe", "a.wav", "--cue-pause", "0"], "expected a number of seconds from 0.1 to 60"),
        (&["decode", "a.wav", "--rate", "1"], "expected a whole number from 8000 to 192000"),
        (&["serve", "--max-sessions", "0"], "is not a whole number from 1 to 65535"),
        (&["serve", "--drain", "5s"], "expected a whole number from 0 to 31536000"),
        (&["serve", "--listen", "8085"], "expected an address and a port, as 127.0.0.1:8085"),
        (&["serve", "--listen", "example.com"], "or :8085 for all addresses"),
        (
            &[&token[..], &["--expires-in", "30x"]].concat(),
            "expected a number of seconds, or a time such as 12h or 30d",
        ),
        (&[&token[..], &["--expires-in", "0"]].concat(), "expected one second at least"),
        (&[&token[..], &["--from", "10.0.0/8"]].concat(), "expected a network such as 10.0.0.0/8"),
        (&[&token[..], &["--max-sessions", "few"]].concat(), "expected a whole number from 0 to 4294967295"),
    ] {
        assert_refused(&place.run(arguments), &[expected]);
    }
}

#[test]
fn a_token_lives_as_long_as_people_say() {
    let place = Place::new();
    let state = ["--state", "state"];
    let run = |arguments: &[&str]| {
        let done = place.run(&[arguments, &state].concat());
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        text(&done.stdout).to_owned()
    };
    run(&["gateway", "project", "create", "calls"]);
    let create =
        ["gateway", "service-token", "create", "calls", "--audio-per-day", "10h", "--from", "10.0.0.1"];
    run(&[&create[..], &["--expires-in", "30d"]].concat());
    run(&[&create[..], &["--expires-in", "2592000"]].concat());
    let listed: Value = serde_json::from_str(&run(&["gateway", "service-token", "list", "--json"])).unwrap();
    let tokens = listed.as_array().unwrap();
    assert_eq!(tokens.len(), 2);
    for token in tokens {
        let terms = &token["terms"];
        assert_eq!(terms["expires_in"], 30 * 86_400, "{token}");
        assert_eq!(terms["audio"]["per_day"], 36_000, "{token}");
        assert_eq!(terms["networks"][0], "10.0.0.1/32", "{token}");
    }
}

#[test]
fn an_address_to_listen_on_may_be_short() {
    let place = Place::new();
    let shown = |arguments: &[&str]| {
        let done = place.run(&[&["config", "show"], arguments].concat());
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        text(&done.stdout).lines().find(|line| line.starts_with("listen = ")).unwrap().to_owned()
    };
    assert_eq!(shown(&["--listen", ":8085"]), "listen = \"0.0.0.0:8085\"  # flag");
    assert_eq!(shown(&["--listen", "localhost:80"]), "listen = \"127.0.0.1:80\"  # flag");
    place.file("voxline.toml", "[gateway]\nlisten = \":8085\"\n");
    assert_eq!(shown(&["--config", "voxline.toml"]), "listen = \"0.0.0.0:8085\"  # file");
    place.file("bad.toml", "[gateway]\nlisten = \"8085\"\n");
    assert_fails(
        &place.run(&["config", "check", "--config", "bad.toml"]),
        2,
        &["bad.toml", "line 2", ":8085"],
    );
}

#[test]
fn a_misspelt_model_is_suggested_and_a_missing_one_fetched_to_its_place() {
    let place = Place::new();
    place.file("a.wav", voxline_fixtures::gateway::audio::wav(1, 16_000, 16_000));
    let misspelt = place.run(&["transcribe", "a.wav", "--model", "whisper-bsae"]);
    assert_fails(&misspelt, 2, &["whisper-bsae", "did you mean --model whisper-base?"]);
    let misspelt = place.run(&["models", "pull", "wisper-base"]);
    assert_fails(&misspelt, 2, &["wisper-base", "did you mean whisper-base?"]);
    let far = place.run(&["transcribe", "a.wav", "--model", "zzz"]);
    assert_fails(&far, 2, &["--model takes the name of a model"]);

    let missing = place.run(&["transcribe", "a.wav", "--models", "no where"]);
    assert_fails(&missing, 2, &["voxline models pull whisper-base --models 'no where'"]);
    let missing = place.run(&["models", "verify", "whisper-base", "--models", "nowhere"]);
    assert_fails(&missing, 2, &["voxline models pull whisper-base --models nowhere"]);
    let mut usual = place.command(&["transcribe", "a.wav"]);
    let usual = usual.env_remove("VOXLINE_MODELS").output().unwrap();
    assert_fails(&usual, 2, &["voxline models pull whisper-base`"]);
}
