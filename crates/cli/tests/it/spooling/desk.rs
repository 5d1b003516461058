//! Runs of `voxline transcribe --spool` against a service, and what they must have told.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use secrecy::ExposeSecret;
use serde_json::Value;
use sha2::{Digest, Sha256};
use voxline::auth::Credentials;

use crate::cli::{Place, text};

/// Length of a segment in frames: half a second, so that a session has many finals.
pub(super) const SEGMENT: usize = 8_000;

/// A directory with the credentials of a service.
pub(super) struct Desk {
    pub(super) place: Place,
    pub(super) address: String,
    pub(super) client_id: String,
}

impl Desk {
    pub(super) fn new(address: SocketAddr, credentials: &Credentials) -> Desk {
        let place = Place::new();
        place.secret("secret", credentials.client_secret.expose_secret());
        Desk { place, address: format!("http://{address}"), client_id: credentials.client_id.clone() }
    }

    /// Returns the command `voxline transcribe` with these arguments, for the service and with a ledger
    /// in JSON.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let at =
            ["--endpoint", &self.address, "--client-id", &self.client_id, "--client-secret-file", "secret"];
        let form = ["--format", "jsonl", "--no-partials", "--ledger=json"];
        let mut command = self.place.command(&[&["transcribe"], arguments, &at, &form].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Returns the paths of all spools, sorted.
    pub(super) fn spools(&self) -> Vec<std::path::PathBuf> {
        let mut spools: Vec<_> =
            fs::read_dir(self.place.path("spool")).unwrap().map(|entry| entry.unwrap().path()).collect();
        spools.sort();
        spools
    }
}

/// A running program, and the lines that it has written so far.
pub(super) struct Running {
    pub(super) child: Child,
    stdout: BufReader<ChildStdout>,
    lines: Vec<String>,
}

impl Running {
    pub(super) fn start(command: &mut Command) -> Running {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Running { child, stdout, lines: Vec::new() }
    }

    /// Waits until the program has written this many lines.
    pub(super) fn wait_for(&mut self, lines: usize) {
        while self.lines.len() < lines {
            let mut line = String::new();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "it ended at line {}", self.lines.len());
            self.lines.push(line);
        }
    }

    /// Kills the program with SIGKILL. Returns all lines that it wrote.
    pub(super) fn kill(mut self) -> Vec<String> {
        assert!(self.child.try_wait().unwrap().is_none(), "it ended by itself");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        self.lines.extend(rest.split_inclusive('\n').map(str::to_owned));
        self.lines
    }

    /// Waits for the end of the program. Returns all lines, standard error, and the exit code.
    pub(super) fn end(mut self) -> (Vec<String>, String, Option<i32>) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        self.lines.extend(rest.split_inclusive('\n').map(str::to_owned));
        let mut complaint = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
        (std::mem::take(&mut self.lines), complaint, self.child.wait().unwrap().code())
    }
}

/// Writes a WAV file of these channels: 16 kHz, 16 bits.
pub(super) fn write_wav(path: &Path, channels: &[&[i16]]) {
    let spec = hound::WavSpec {
        channels: channels.len() as u16,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut wav = hound::WavWriter::create(path, spec).unwrap();
    for frame in 0..channels[0].len() {
        channels.iter().for_each(|channel| wav.write_sample(channel[frame]).unwrap());
    }
    wav.finalize().unwrap();
}

pub(super) fn lines(output: &[u8]) -> Vec<String> {
    text(output).split_inclusive('\n').map(str::to_owned).collect()
}

pub(super) fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// Returns the texts of a transcript, which are digests of the audio.
pub(super) fn digests(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| json(line)["text"].as_str().unwrap().to_owned()).collect()
}

/// Returns the texts that the recogniser produces for these samples.
pub(super) fn expected(pcm: &[i16]) -> Vec<String> {
    let digest = |samples: &[i16]| {
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        Sha256::digest(&bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    };
    pcm.chunks(SEGMENT).map(digest).collect()
}

/// Asserts that the ledger in `complaint` counts `accepted` frames as accepted and recognised, without
/// gaps or unfinished frames. Returns the ledger.
#[track_caller]
pub(super) fn whole_ledger(complaint: &str, accepted: usize) -> Value {
    let ledger = json(complaint.lines().next().expect("a ledger"));
    assert_eq!(
        (&ledger["accepted"], &ledger["recognised"]),
        (&accepted.into(), &accepted.into()),
        "{ledger}"
    );
    assert_eq!((&ledger["gaps"], &ledger["unfinished"]), (&0.into(), &0.into()), "{ledger}");
    ledger
}

/// Runs the command to its end: it repeats the lines that an earlier run has `told`, goes on to the end of
/// `pcm`, and removes the spool.
#[track_caller]
pub(super) fn finishes(desk: &Desk, spooled: &[&str], told: &[String], pcm: &[i16]) {
    let finished = desk.run(spooled);
    assert_eq!(finished.status.code(), Some(0), "{}", text(&finished.stderr));
    whole_ledger(text(&finished.stderr), pcm.len());
    let finished = lines(&finished.stdout);
    assert_eq!(finished[..told.len()], *told);
    assert_eq!(digests(&finished), expected(pcm));
    assert_eq!(desk.spools(), [] as [&Path; 0]);
}
