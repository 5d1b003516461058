//! The program as users run it: transcription, speech, gateways, and errors.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use voxline_engines::wer::normal;
use voxline_fixtures::clips;
use voxline_fixtures::samples::models_dir;

/// Transcript of [`RECORDING`], which is `austen_0930` of `samples/transcripts.tsv`.
pub(crate) const SAID: &str = "he might even have been made amiable himself";

/// Recording that the tests here transcribe.
const RECORDING: &str =
    "/usr/share/pocketsphinx/test/data/librivox/sense_and_sensibility_01_austen_64kb-0930.wav";

/// A temporary directory of one test, in which the program runs. It is also the program's home directory.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).unwrap();
        path
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn secret(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name, contents);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Returns the program with these arguments, without settings or credentials from the test's
    /// environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_voxline"));
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        let ours = std::env::vars_os().map(|(name, _)| name);
        for variable in ours.filter(|name| name.to_string_lossy().starts_with("VOXLINE_")) {
            command.env_remove(variable);
        }
        command.env_remove("CREDENTIALS_DIRECTORY");
        command.env("HOME", self.0.path()).env("VOXLINE_MODELS", models_dir());
        for variable in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(variable);
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Asserts that the program succeeded and printed these words.
#[track_caller]
pub(crate) fn assert_said(output: &Output, said: &str) {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(normal(text(&output.stdout)), normal(said));
}

/// Asserts that the program failed with this exit code, and printed one line on standard error that
/// contains each of `parts`.
#[track_caller]
pub(crate) fn assert_fails(output: &Output, code: i32, parts: &[&str]) {
    let complaint = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{complaint}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    for part in parts {
        assert!(complaint.contains(part), "{complaint:?} doesn't mention {part:?}");
    }
}

#[test]
fn one_command_transcribes_with_no_account_and_no_network() {
    let place = Place::new();
    let said = place.run(&["transcribe", RECORDING]);
    assert_said(&said, SAID);
    assert_eq!(text(&said.stderr), "");
    // The program leaves nothing behind.
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 0);
}

#[test]
fn audio_may_come_by_a_pipe_and_go_to_files_in_every_format() {
    let place = Place::new();
    let mut piped = place.command(&["transcribe", "-", "--language", "en", "--no-partials"]);
    assert_said(&piped.stdin(fs::File::open(RECORDING).unwrap()).output().unwrap(), SAID);

    let jsonl = place.run(&["transcribe", RECORDING, "--format", "jsonl", "-o", "out.jsonl"]);
    assert_eq!(jsonl.status.code(), Some(0));
    let lines = fs::read_to_string(place.path("out.jsonl")).unwrap();
    let segments: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let words = segments.iter().map(|segment| segment["text"].as_str().unwrap());
    assert_eq!(normal(&words.collect::<Vec<_>>().join(" ")), normal(SAID));

    // A directory receives one file for each recording. Captions need that, because each recording has
    // its own timeline.
    fs::create_dir(place.path("captions")).unwrap();
    let copy = place.file("second.wav", fs::read(RECORDING).unwrap());
    let both = ["transcribe", RECORDING, path(&copy), "--format", "vtt"];
    assert_fails(&place.run(&both), 2, &["--output"]);
    let done = place.run(&[&both[..], &["-o", "captions"]].concat());
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let second = fs::read_to_string(place.path("captions/second.vtt")).unwrap();
    assert!(second.starts_with("WEBVTT\n\n") && second.contains("amiable"), "{second}");
    assert_eq!(fs::read_dir(place.path("captions")).unwrap().count(), 2);

    // A trailing slash makes a directory, and a dash stands for standard output.
    place.run(&["transcribe", RECORDING, "second.wav", "-o", "new/texts/", "--language", "en"]);
    assert_eq!(normal(&fs::read_to_string(place.path("new/texts/second.txt")).unwrap()), normal(SAID));
    assert_said(&place.run(&["transcribe", RECORDING, "-o", "-"]), SAID);
}

#[test]
fn no_file_is_lost_to_a_mistake() {
    let place = Place::new();
    let recording = fs::read(RECORDING).unwrap();
    place.file("in.wav", &recording);
    assert_fails(&place.run(&["transcribe", "in.wav", "-o", "./in.wav"]), 2, &["in.wav", "recording itself"]);
    assert_eq!(fs::read(place.path("in.wav")).unwrap(), recording);

    place.file("precious.txt", "precious");
    assert_fails(&place.run(&["transcribe", "missing.wav", "-o", "precious.txt"]), 3, &["missing.wav"]);
    let mut no_model = place.command(&["transcribe", "in.wav", "-o", "precious.txt"]);
    no_model.env("VOXLINE_MODELS", place.path("nowhere")).output().unwrap();
    assert_eq!(fs::read_to_string(place.path("precious.txt")).unwrap(), "precious");

    fs::create_dir_all(place.path("a")).unwrap();
    place.file("a/in.wav", &recording);
    let both = place.run(&["transcribe", "in.wav", "a/in.wav", "-o", "texts/"]);
    assert_fails(&both, 2, &["texts/in.txt", "in.wav and a/in.wav"]);
}

#[test]
fn a_proxy_in_the_environment_sees_nothing() {
    let place = Place::new();
    let mut proxied = place.command(&["transcribe", RECORDING, "--language", "en"]);
    for variable in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        proxied.env(variable, "http://127.0.0.1:9");
    }
    assert_said(&proxied.output().unwrap(), SAID);
}

#[test]
fn an_interruption_ends_the_audio_and_keeps_the_text() {
    let place = Place::new();
    let mut transcribe = place.command(&["transcribe", "-", "--language", "en"]);
    let mut child =
        transcribe.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    // The input stays open, so only the signal can end the program. The pause lets the first text out,
    // which shows that the program is listening.
    let samples = clips::clip("en-16k", "austen_0930").pcm;
    input.write_all(&wav_stream_header(16_000)).unwrap();
    for part in [&samples[..], &[0; 56_000], &samples[..], &[0; 32_000]] {
        let bytes: Vec<u8> = part.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        input.write_all(&bytes).unwrap();
    }
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    signal(&child, "INT");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let mut complaint = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{complaint}");
    assert_eq!(complaint, "voxline: standard input: interrupted\n");
    assert_eq!(normal(&first), normal(SAID));
    drop(input);
}

#[test]
fn what_is_spoken_is_heard_again() {
    let place = Place::new();
    // The voice's output differs slightly each time. Every word of this sentence is easy to recognise.
    let sentence = "The weather in Boston was cold and cloudy for seven days.";
    let spoken = place.run(&["speak", sentence, "-o", "speech.wav"]);
    assert_eq!(spoken.status.code(), Some(0), "{}", text(&spoken.stderr));
    assert_said(&place.run(&["transcribe", "speech.wav", "--language", "en"]), sentence);

    // Two programs and a pipe: a WAV stream of unknown length.
    let mut speaking = place.command(&["speak", sentence, "-o", "-"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut hearing = place.command(&["transcribe", "-", "--language", "en"]);
    let heard = hearing.stdin(speaking.stdout.take().unwrap()).output().unwrap();
    assert!(speaking.wait().unwrap().success());
    assert_said(&heard, sentence);
}

#[test]
fn russian_is_spoken_by_festival_and_understood() {
    let place = Place::new();
    // The voice cuts some words so badly that a change of the last bit makes others of them. Whisper is sure
    // of each of these, by 0.9.
    let sentence = "Подождите, пожалуйста, я скоро вернусь.";
    let spoken = place.run(&["speak", sentence, "-o", "speech.wav"]);
    assert_eq!(spoken.status.code(), Some(0), "{}", text(&spoken.stderr));
    let heard = place.run(&["transcribe", "speech.wav", "--language", "ru"]);
    assert_said(&heard, sentence);
}

#[test]
fn bad_input_is_one_line_and_its_exit_code() {
    let place = Place::new();
    place.file("notes.txt", "These are notes, and no audio.\n".repeat(50));
    place.file("empty.wav", "");
    place.secret("secret", "not-a-token\n");
    fs::create_dir(place.path("folder")).unwrap();
    for (file, part) in [
        ("missing.wav", "no such file"),
        ("folder", "is a directory"),
        ("notes.txt", "not a known audio format"),
        ("empty.wav", "is empty"),
    ] {
        assert_fails(&place.run(&["transcribe", file]), 3, &[file, part]);
    }
    let refused = place.run(&["transcribe", RECORDING, "--endpoint", "http://127.0.0.1:1"]);
    assert_fails(&refused, 2, &["--client-id"]);
    let plain =
        place.run(&["transcribe", RECORDING, "--endpoint", "http://10.0.0.1", "--token-file", "secret"]);
    assert_fails(&plain, 2, &["http://10.0.0.1", "https"]);
    let mut no_model = place.command(&["transcribe", RECORDING]);
    let no_model = no_model.env("VOXLINE_MODELS", place.path("nowhere")).output().unwrap();
    assert_fails(&no_model, 2, &["nowhere", "voxline models pull whisper-base"]);
    place.file("bad.toml", "endpont = \"x\"\n");
    assert_fails(
        &place.run(&["transcribe", "x.wav", "--config", "bad.toml"]),
        2,
        &["bad.toml", "line 1", "endpont"],
    );
    let full = place.run(&["transcribe", RECORDING, "-o", "/dev/full"]);
    assert_fails(&full, 7, &["/dev/full", "No space left"]);
    assert_eq!(place.run(&["transcribe"]).status.code(), Some(2));
    place.file("odd\nname.wav", "no audio");
    assert_fails(&place.run(&["transcribe", "odd\nname.wav"]), 3, &["odd name.wav"]);
    let mut no_voice = place.command(&["speak", "Hello.", "-o", "x.wav"]);
    let no_voice = no_voice.env("VOXLINE_MODELS", place.path("nowhere")).output().unwrap();
    assert_fails(&no_voice, 2, &["voxline models pull piper-joe"]);
    assert_fails(&place.run(&["speak", " "]), 2, &["no words"]);
    assert_fails(&place.run(&["speak", "Hello.", "-o", "no/such/place.wav"]), 7, &["no/such/place.wav"]);
    assert_fails(&place.run(&["speak", "Hello.", "--voice", "bob", "-o", "x.wav"]), 2, &["bob", "espeak-en"]);
}

#[test]
fn silence_is_nothing_recognised() {
    let place = Place::new();
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut silence = hound::WavWriter::create(place.path("silence.wav"), spec).unwrap();
    for _ in 0..5 * 8_000 {
        silence.write_sample(0_i16).unwrap();
    }
    silence.finalize().unwrap();
    assert_fails(&place.run(&["transcribe", "silence.wav"]), 1, &["silence.wav", "no speech"]);
}

#[test]
fn what_came_before_a_fault_is_kept_and_other_recordings_go_on() {
    let place = Place::new();
    let whole = fs::read(RECORDING).unwrap();
    place.file("cut.wav", &whole[..whole.len() * 3 / 4]);
    let done = place.run(&["transcribe", "cut.wav", "missing.wav", RECORDING, "--language", "en"]);
    assert_eq!(done.status.code(), Some(3));
    let complaints: Vec<&str> = text(&done.stderr).lines().collect();
    assert!(complaints.len() == 2 && complaints[0].contains("cut.wav: is cut short at"), "{complaints:?}");
    let lines: Vec<Vec<String>> = text(&done.stdout).lines().map(normal).collect();
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert_eq!(lines[1][..4], ["he", "might", "even", "have"]);
    assert_eq!(lines[4], normal(SAID));
}

/// Sends a signal with the shell's built-in `kill`, because not every machine has the program of that
/// name.
pub(crate) fn signal(child: &Child, name: &str) {
    let command = format!("kill -{name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
}

/// A process that runs `voxline serve`.
struct Serving {
    child: Child,
    endpoint: String,
    _stdout: BufReader<ChildStdout>,
}

impl Serving {
    fn start(place: &Place) -> Serving {
        let mut serve = place.command(&["serve", "--listen", "127.0.0.1:0", "--state", "state"]);
        let mut child = serve.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let endpoint = line.trim().strip_prefix("listening on ").expect("it says where").to_owned();
        Serving { child, endpoint, _stdout: stdout }
    }

    /// Sends the signal `name` to the gateway, and waits until it has stopped.
    fn stop(self, name: &str) {
        signal(&self.child, name);
        self.end();
    }

    /// Waits until the gateway stops by itself.
    fn end(mut self) {
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

/// Kills the gateway of a failed test, which would otherwise hold the test's output open.
impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

#[test]
fn a_gateway_serves_other_programs() {
    let place = Place::new();
    let created = place.run(&["gateway", "project", "create", "calls", "--state", "state", "--json"]);
    let project: Value = serde_json::from_slice(&created.stdout).expect("it prints JSON");
    let client_id = project["client_id"].as_str().unwrap();
    place.secret("secret", project["client_secret"].as_str().unwrap());
    place.secret("wrong", "wrong\n");
    let token = place.run(&["gateway", "service-token", "create", "calls", "--state", "state"]);
    place.secret("token", &token.stdout);
    assert_fails(&place.run(&["gateway", "project", "create", "calls", "--state", "state"]), 2, &["'calls'"]);

    let serving = Serving::start(&place);
    // The running gateway is administered by the same commands.
    let again = place.run(&["gateway", "project", "create", "calls", "--state", "state"]);
    assert_fails(&again, 2, &["'calls' exists"]);
    let endpoint = serving.endpoint.as_str();
    let by_client = ["--endpoint", endpoint, "--client-id", client_id, "--client-secret-file", "secret"];
    let transcribe = ["transcribe", RECORDING, "--language", "en"];
    assert_said(&place.run(&[&transcribe[..], &by_client[..]].concat()), SAID);
    let kept = fs::read_dir(place.path(".local/share/voxline/tokens")).unwrap();
    let vaults = kept.filter(|entry| entry.as_ref().unwrap().path().extension() == Some("vault".as_ref()));
    assert_eq!(vaults.count(), 1);

    let by_token = ["--endpoint", endpoint, "--token-file", "token"];
    assert_said(&place.run(&[&transcribe[..], &by_token[..]].concat()), SAID);
    let speak = ["speak", "Good morning to you all.", "-o", "morning.wav"];
    assert_eq!(place.run(&[&speak[..], &by_token[..]].concat()).status.code(), Some(0));
    // The same settings by a file. The environment overrides the file.
    place.file(
        "voxline.toml",
        format!("endpoint = \"{endpoint}\"\ntoken_file = \"wrong\"\nlanguage = \"en\"\n"),
    );
    let mut configured = place.command(&["transcribe", "morning.wav", "--config", "voxline.toml"]);
    assert_said(&configured.env("VOXLINE_TOKEN_FILE", "token").output().unwrap(), "Good morning to you all.");

    let wrong = ["--endpoint", endpoint, "--token-file", "wrong"];
    for command in [&transcribe[..], &speak[..]] {
        let refused = place.run(&[command, &wrong[..]].concat());
        assert_fails(&refused, 4, &[endpoint, "(status 401): token is missing", "can't be refreshed"]);
    }
    let wrong = ["--endpoint", endpoint, "--client-id", "nobody", "--client-secret-file", "wrong"];
    let refused = place.run(&[&transcribe[..], &wrong[..]].concat());
    assert_fails(&refused, 4, &[endpoint, "client id or secret is wrong"]);
    // The file's credentials belong to the file's endpoint and are not used for another one. Flags
    // override the file.
    let mut other = place.command(&["transcribe", "morning.wav", "--config", "voxline.toml"]);
    let other = other.args(["--endpoint", "http://127.0.0.1:1"]).output().unwrap();
    assert_fails(&other, 2, &["--token-file"]);
    place.file(
        "client.toml",
        format!("endpoint = \"{endpoint}\"\nclient_id = \"x\"\nclient_secret_file = \"y\"\n"),
    );
    let by_flag = ["--config", "client.toml", "--token-file", "token"];
    assert_said(&place.run(&[&transcribe[..], &by_flag[..]].concat()), SAID);
    // Commands that use no service ignore its settings.
    let mut list = place.command(&["models", "list", "--config", "client.toml"]);
    assert_eq!(list.env("VOXLINE_ENDPOINT", endpoint).output().unwrap().status.code(), Some(0));
    let secret = project["client_secret"].as_str().unwrap();
    assert!(
        !text(&place.run(&[&transcribe[..], &by_client[..], &["--log", "trace"]].concat()).stderr)
            .contains(secret)
    );

    let endpoint = serving.endpoint.clone();
    let state = fs::metadata(place.path("state/authority.redb")).unwrap().permissions().mode();
    assert_eq!(state & 0o777, 0o600);
    // A client that never finishes its request must not keep the gateway from stopping.
    let mut half = std::net::TcpStream::connect(endpoint.strip_prefix("http://").unwrap()).unwrap();
    half.write_all(b"POST /auth/oauth/v1/token HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        .unwrap();
    serving.stop("INT");
    drop(half);
    let gone = ["--endpoint", &endpoint, "--token-file", "token"];
    assert_fails(&place.run(&[&transcribe[..], &gone[..]].concat()), 5, &[&endpoint, "refused"]);
}

#[test]
fn a_stopping_gateway_lets_a_session_end() {
    let place = Place::new();
    place.run(&["gateway", "project", "create", "calls", "--state", "state"]);
    let token = place.run(&["gateway", "service-token", "create", "calls", "--state", "state"]);
    place.secret("token", &token.stdout);
    let serving = Serving::start(&place);
    let mut command = place.command(&[
        "transcribe",
        "-",
        "--language",
        "en",
        "--endpoint",
        &serving.endpoint,
        "--token-file",
        "token",
    ]);
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Two recordings in one stream: the text of the first one proves that the session is alive.
    let samples = clips::clip("en-16k", "austen_0930").pcm;
    let pause = vec![0_i16; 24_000];
    let mut input = client.stdin.take().unwrap();
    let mut stdout = BufReader::new(client.stdout.take().unwrap());
    let send = |input: &mut dyn Write, samples: &[i16]| {
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        input.write_all(&bytes).unwrap();
    };
    input.write_all(&wav_stream_header(16_000)).unwrap();
    send(&mut input, &samples);
    send(&mut input, &pause);
    // The decoder reads ahead in blocks. Enough silence pushes the first recording through it.
    send(&mut input, &vec![0_i16; 32_000]);
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    assert_eq!(normal(&first), normal(SAID));
    signal(&serving.child, "TERM");
    send(&mut input, &samples);
    drop(input);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(normal(&rest), normal(SAID));
    assert_eq!(client.wait().unwrap().code(), Some(0));
    // The gateway already received its signal. After a second one it would not wait for sessions.
    serving.end();
}

/// Returns the header of a WAV stream of unknown length: mono, 16 bits.
fn wav_stream_header(sample_rate: u32) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0");
    header.extend(sample_rate.to_le_bytes());
    header.extend((sample_rate * 2).to_le_bytes());
    header.extend(b"\x02\0\x10\0data\xff\xff\xff\xff");
    header
}

#[test]
fn models_are_listed_and_verified() {
    let place = Place::new();
    let listed = place.run(&["models", "list", "--json"]);
    let models: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let whisper = models.as_array().unwrap().iter().find(|model| model["name"] == "whisper-base").unwrap();
    assert_eq!((&whisper["state"], whisper["size"].is_u64()), (&Value::from("present"), true));
    assert_eq!(place.run(&["models", "verify"]).status.code(), Some(0));
    assert_fails(&place.run(&["models", "verify", "nothing"]), 2, &["nothing", "whisper-base"]);
    let empty = place.run(&["models", "verify", "whisper-base", "--models", "nowhere"]);
    assert_fails(&empty, 2, &["nowhere", "voxline models pull whisper-base"]);
    let voices = text(&place.run(&["voices"]).stdout).to_owned();
    assert!(voices.contains("joe") && voices.contains("licence: "), "{voices}");
}
