//! Output of results: formats by file name, several recordings in one output, pipes whose readers leave,
//! terminals, and signals.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use secrecy::ExposeSecret;
use serde_json::Value;
use voxline_engines::wer::normal;
use voxline_gateway::authority::Terms;
use voxline_testing::DigestRecognizer;

use crate::cli::{Place, SAID, assert_fails, signal, text};
use voxline_fixtures::clips;
use voxline_fixtures::gateway::audio::{wav, wav_of};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::voice::Tone;

/// A directory with the recordings a.wav and b.wav, of two segments each, and a service for the program.
struct Desk {
    place: Place,
    endpoint: String,
}

impl Desk {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command(arguments);
        command.env("VOXLINE_ENDPOINT", &self.endpoint).env("VOXLINE_TOKEN_FILE", self.place.path("token"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

impl Desk {
    /// Runs the program on a terminal of its own, after the shell command `before`, by `script` of
    /// util-linux. Its standard output is what the terminal receives.
    fn on_terminal(&self, before: &str, arguments: &str) -> Output {
        let program = format!("{before} exec {} {arguments}", env!("CARGO_BIN_EXE_voxline"));
        let mut script = Command::new("script");
        for (name, value) in self.command(&[]).get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        script.args(["-qec", &program, "/dev/null"]).stdin(Stdio::null());
        script.current_dir(self.place.path("")).output().unwrap()
    }
}

/// Runs `test` beside a gateway, on a thread that may block.
async fn with_desk(test: impl FnOnce(&Desk) + Send + 'static) {
    let setup = Setup { voices: Tone::voices(), ..Setup::default() };
    let server = Server::with(Arc::new(DigestRecognizer::new(8_000)), setup).await;
    let token = server.gateway.authority().create_service_token("test", Terms::default()).unwrap();
    let desk = Desk { place: Place::new(), endpoint: server.endpoint().to_string() };
    desk.place.secret("token", token.token.expose_secret());
    for name in ["a.wav", "b.wav"] {
        desk.place.file(name, wav(1, 16_000, 16_000));
    }
    tokio::task::spawn_blocking(move || test(&desk)).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_the_output_says_its_format() {
    with_desk(|desk| {
        let written = |name: &str, more: &[&str]| {
            let done = desk.run(&[&["transcribe", "a.wav", "-o", name], more].concat());
            assert_eq!(done.status.code(), Some(0), "{name}: {}", text(&done.stderr));
            fs::read_to_string(desk.place.path(name)).unwrap()
        };
        assert!(written("talk.srt", &[]).starts_with("1\n00:00:00,000 --> "));
        assert!(written("talk.VTT", &[]).starts_with("WEBVTT\n\n"));
        assert!(written("talk.jsonl", &[]).starts_with("{\"type\":\"segment\""));
        let plain = written("talk.txt", &[]);
        assert_eq!(plain.lines().count(), 2);
        assert_eq!(written("talk", &[]), plain);
        assert!(written("talk", &["--format", "vtt"]).starts_with("WEBVTT\n\n"));
        assert!(
            written("other.srt", &["--format", "srt", "--cue-width", "10"])
                .lines()
                .all(|line| { line.contains("-->") || line.chars().count() <= 10 })
        );

        let refused = desk.run(&["transcribe", "a.wav", "-o", "talk.srt", "--format", "vtt"]);
        assert_fails(&refused, 2, &["--format vtt", "contradicts the extension of talk.srt"]);
        let refused = desk.run(&["transcribe", "a.wav", "-o", "talk.docx"]);
        assert_fails(&refused, 2, &["talk.docx", ".txt, .jsonl, .srt or .vtt"]);
        let wide = desk.run(&["transcribe", "a.wav", "--cue-width", "9"]);
        assert_eq!(wide.status.code(), Some(2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_recordings_on_one_output_are_told_apart() {
    with_desk(|desk| {
        let alone = desk.run(&["transcribe", "a.wav"]);
        let said = text(&alone.stdout);
        assert_eq!(said.lines().count(), 2, "{said}");
        let both = desk.run(&["transcribe", "a.wav", "b.wav"]);
        assert_eq!(text(&both.stdout), format!("==> a.wav <==\n{said}\n==> b.wav <==\n{said}"));
        let file = desk.run(&["transcribe", "a.wav", "b.wav", "-o", "both.txt"]);
        assert_eq!(file.status.code(), Some(0));
        assert_eq!(fs::read(desk.place.path("both.txt")).unwrap(), both.stdout);

        let recordings = |arguments: &[&str]| {
            let done = desk.run(&[arguments, &["--format", "jsonl"]].concat());
            let lines = text(&done.stdout).lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            lines.map(|line| line["recording"].as_str().map(str::to_owned)).collect::<Vec<_>>()
        };
        let [a, b] = ["a.wav", "b.wav"].map(|name| Some(name.to_owned()));
        assert_eq!(recordings(&["transcribe", "a.wav", "b.wav"]), [a.clone(), a, b.clone(), b]);
        assert_eq!(recordings(&["transcribe", "a.wav"]), [None, None]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_enough_is_no_failure() {
    with_desk(|desk| {
        for arguments in [
            &["transcribe", "a.wav", "b.wav"][..],
            &["transcribe", "a.wav", "--format", "srt"],
            &["decode", "a.wav"],
            &["decode", "a.wav", "--format", "s16le"],
            &["speak", "Hello.", "-o", "-"],
            &["speak", "Hello.", "-o", "-", "--encoder", "mp3"],
            &["probe", "a.wav"],
            &["voices"],
        ] {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let done = desk.command(arguments).stdout(writer).output().unwrap();
            assert_eq!((done.status.code(), text(&done.stderr)), (Some(0), ""), "{arguments:?}");
        }
        // A full disk is a failure.
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let done = desk.command(&["transcribe", "a.wav"]).stdout(full).output().unwrap();
        assert_fails(&done, 7, &["standard output", "No space left"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_tells_which_signal_ended_the_audio() {
    with_desk(|desk| {
        for (name, code, word) in [("INT", 130, "interrupted"), ("TERM", 143, "terminated")] {
            let mut transcribe = desk.command(&["transcribe", "-"]);
            let transcribe = transcribe.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = transcribe.spawn().unwrap();
            // The input stays open, so only the signal can end the program. The program listens once the
            // first line is out.
            let mut input = child.stdin.take().unwrap();
            input.write_all(&wav(1, 16_000, 64_000)).unwrap();
            let mut stdout = BufReader::new(child.stdout.take().unwrap());
            stdout.read_line(&mut String::new()).unwrap();
            signal(&child, name);
            let mut complaint = String::new();
            child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(code), "{complaint}");
            assert_eq!(complaint, format!("voxline: standard input: {word}\n"));
            drop(input);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audio_is_not_written_to_a_terminal() {
    with_desk(|desk| {
        for arguments in ["decode a.wav", "decode a.wav --format s16le -o -", "speak Hello. -o -"] {
            let done = desk.on_terminal("", arguments);
            assert_eq!(done.status.code(), Some(2), "{arguments}: {done:?}");
            assert!(text(&done.stdout).contains("standard output is a terminal"), "{arguments}: {done:?}");
        }
    })
    .await;
}

/// Returns the lines that a terminal draws, without its control sequences (ECMA-48, 5.4).
fn drawn(output: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut chars = output.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => {
                chars.next();
                chars.by_ref().find(|c| ('@'..='~').contains(c));
            }
            '\r' | '\n' => lines.push(String::new()),
            c => lines.last_mut().expect("there is one").push(c),
        }
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn the_progress_line_fits_a_narrow_terminal() {
    with_desk(|desk| {
        let name = "a-recording-with-a-name-longer-than-the-line.wav";
        desk.place.file(name, wav(1, 16_000, 64_000));
        for columns in [24, 40, 100] {
            let stty = format!("stty rows 24 cols {columns} &&");
            let done = desk.on_terminal(&stty, &format!("transcribe {name} -o {columns}.txt"));
            assert_eq!(done.status.code(), Some(0), "{done:?}");
            // Spaces fill each line that is drawn, up to the width of the terminal.
            let rows = drawn(text(&done.stdout)).into_iter().flat_map(|line| {
                let line: Vec<char> = line.chars().collect();
                line.chunks(columns).map(|row| row.iter().collect()).collect::<Vec<String>>()
            });
            let rows: Vec<String> = rows.collect();
            // A line that is wider than the terminal fills the last column of a row.
            let wrapped = rows.iter().find(|row| row.chars().count() == columns && !row.ends_with(' '));
            assert_eq!(wrapped, None, "{columns} columns: {rows:#?}");
            assert!(rows.iter().any(|row| row.contains("0:00 / 0:04")), "{columns} columns: {rows:#?}");
        }
    })
    .await;
}

#[test]
fn headerless_audio_is_told_what_it_lacks() {
    let place = Place::new();
    // A tone, as a recording program writes it to a pipe.
    let pcm: Vec<u8> = (0..16_000_i32).flat_map(|frame| ((frame % 100 * 200) as i16).to_le_bytes()).collect();
    place.file("call.raw", &pcm);
    let hint = ["not a known audio format", "--raw s16le:16000"];
    let input = || fs::File::open(place.path("call.raw")).unwrap();
    assert_fails(
        &place.command(&["decode", "-", "-o", "out.wav"]).stdin(input()).output().unwrap(),
        3,
        &hint,
    );
    assert_fails(&place.run(&["probe", "call.raw"]), 3, &hint);
    let known = place.run(&["decode", "call.raw", "--raw", "ulaw:16000", "-o", "out.wav"]);
    assert_eq!(known.status.code(), Some(0), "{}", text(&known.stderr));
}

/// The second recording is complete long before the first, which takes a minute of speech. On one thread they
/// are heard one after the other.
#[test]
fn recordings_of_a_directory_are_transcribed_at_once() {
    if std::thread::available_parallelism().is_ok_and(|threads| threads.get() == 1) {
        return;
    }
    let (place, mut pcm) = (Place::new(), clips::audio("en-16k", "austen_0930"));
    pcm.resize(pcm.len() + 16_000, 0);
    place.file("long.wav", wav_of(&pcm.repeat(15)));
    place.file("short.wav", wav_of(&pcm));
    let run = ["transcribe", "long.wav", "missing.wav", "short.wav", "--language", "en", "-o", "texts/"];
    assert_fails(&place.run(&run), 3, &["missing.wav"]);
    let written = |name| fs::metadata(place.path(name)).unwrap().modified().unwrap();
    assert!(written("texts/short.txt") < written("texts/long.txt"), "the long one came first");
    assert_eq!(normal(&fs::read_to_string(place.path("texts/short.txt")).unwrap()), normal(SAID));
    let long = fs::read_to_string(place.path("texts/long.txt")).unwrap();
    assert!(long.len() > 10 * SAID.len(), "{long}");
}
