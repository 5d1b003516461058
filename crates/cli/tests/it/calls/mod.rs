//! Telephone calls by every protocol: peers that are written by hand from the contracts play a recording in
//! real time, and the events have its words.

mod audiosocket;
mod binary;
mod refusals;
mod relatives;
mod telephone;
mod twilio;
mod webhooks;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use self::telephone::{Recording, Weather, from_mu_law};
use crate::cli::{Place, path, signal, text};
use voxline_engines::wer::{WordErrors, normal};
use voxline_fixtures::deadline::within;

/// Longest wait for an event.
const PATIENCE: Duration = Duration::from_secs(120);

/// `voxline calls` as a process, and its events.
struct Calls {
    child: Child,
    websocket: SocketAddr,
    audiosocket: SocketAddr,
    events: mpsc::UnboundedReceiver<Value>,
}

impl Calls {
    /// Starts the program with these further arguments, and waits until it listens.
    async fn start(place: &Place, arguments: &[&str]) -> Calls {
        let doors = ["calls", "--listen", "127.0.0.1:0", "--audiosocket", "127.0.0.1:0", "--language", "en"];
        let mut program = place.command(&[&doors[..], arguments].concat());
        let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (told, mut events) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in lines {
                let event = serde_json::from_str(&line.unwrap()).expect("each line is a JSON object");
                let _ = told.send(event);
            }
        });
        let listening: Value = within(PATIENCE, "the first line", events.recv()).await.expect("it listens");
        assert_eq!(listening["event"], "listening", "{listening}");
        let address = |door: &str| listening[door].as_str().unwrap().parse().unwrap();
        Calls { child, websocket: address("websocket"), audiosocket: address("audiosocket"), events }
    }

    /// Waits for the end of the process.
    async fn ends(&mut self) -> ExitStatus {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(PATIENCE, "the end of the process", ended).await
    }

    /// Returns all events up to the end of this many calls.
    async fn until_ended(&mut self, calls: usize) -> Vec<Value> {
        let mut events = Vec::new();
        let mut ended = 0;
        while ended < calls {
            let event = within(PATIENCE, "the end of a call", self.events.recv()).await.expect("it runs");
            ended += usize::from(event["event"] == "ended");
            events.push(event);
        }
        events
    }
}

/// Kills the process, if it did not end by itself.
impl Drop for Calls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the events of one call.
fn of_call<'a>(events: &'a [Value], call: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["call"] == call).collect()
}

/// Returns the words of a leg in its final events.
fn words(events: &[&Value], leg: &str) -> Vec<String> {
    let finals = events.iter().filter(|event| event["event"] == "final" && event["leg"] == leg);
    finals.flat_map(|event| normal(event["text"].as_str().unwrap())).collect()
}

/// Returns the words of each leg of the recording, as the program transcribes it from a file.
fn transcribed(place: &Place, recording: &Recording) -> [Vec<String>; 2] {
    let file = place.path("call.wav");
    recording.write(&file);
    let arguments =
        ["transcribe", path(&file), "--channels", "split", "--language", "en", "--format", "jsonl"];
    let output = place.run(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let mut words = [Vec::new(), Vec::new()];
    for line in text(&output.stdout).lines() {
        let segment: Value = serde_json::from_str(line).unwrap();
        let leg = usize::from(segment["speaker"] == "agent");
        words[leg].extend(normal(segment["text"].as_str().unwrap()));
    }
    assert!(words.iter().all(|words| words.len() > 3), "{words:?}");
    words
}

/// Returns the name of the only call of a peer.
#[track_caller]
fn call_by<'a>(events: &'a [Value], peer: &str) -> &'a str {
    let mut started = events.iter().filter(|event| event["event"] == "started" && event["peer"] == peer);
    let call = started.next().unwrap_or_else(|| panic!("no call by {peer}"));
    assert!(started.next().is_none(), "one call by {peer}");
    call["call"].as_str().unwrap()
}

/// Checks the events of a call that has played both channels of the recording.
#[track_caller]
fn assert_call(events: &[Value], call: &str, peer: &str, customer: &[String], agent: &[String]) {
    let events = of_call(events, call);
    assert_eq!(events[0]["event"], "started", "{call}: {:?}", events[0]);
    assert_eq!(events[0]["peer"], peer);
    let ended = events.last().unwrap();
    assert_eq!(ended["event"], "ended");
    for (leg, said) in [("customer", customer), ("agent", agent)] {
        let heard = words(&events, leg);
        // A machine that stands still for long makes a packet late for its place, or looks like silence: then
        // a word may suffer, and no more.
        let differing = WordErrors::between(&said.join(" "), &heard.join(" ")).errors;
        let lost = ended["legs"][leg]["packets"]["lost"].as_u64();
        let is_exact = peer == "twilio" && lost == Some(0);
        assert!(differing <= usize::from(!is_exact), "{call}, {leg}: {heard:?} instead of {said:?}");
    }
    for (leg, account) in ended["legs"].as_object().unwrap() {
        assert_eq!(account["unfinished"], 0.0, "{call}, {leg}: {account}");
        assert_eq!(account["recognised"], account["accepted"], "{call}, {leg}: {account}");
    }
    for event in events.iter().filter(|event| event["event"] == "final") {
        let time = |key: &str| event[key].as_f64().unwrap();
        assert!(time("start") < time("end"), "{event}");
        let words = event["words"].as_array().unwrap();
        assert!(!words.is_empty(), "{event}");
        for word in words {
            let (start, end) = (word["start"].as_f64().unwrap(), word["end"].as_f64().unwrap());
            assert!(time("start") <= start && start <= end && end <= time("end"), "{event}");
        }
    }
}

/// Checks the recording of a call that has lost nothing: both legs, each sample in its place.
#[track_caller]
fn assert_recorded(place: &Place, ended: &Value, recording: &Recording) {
    let file = place.path(ended["recording"].as_str().expect("the call is recorded"));
    let mut reader = hound::WavReader::open(file).unwrap();
    assert_eq!((reader.spec().channels, reader.spec().sample_rate), (2, 8_000));
    let samples: Vec<i16> = reader.samples().collect::<Result<_, _>>().unwrap();
    let frames = samples.as_chunks::<2>().0;
    // The first packet is 5 ms from the beginning of the stream.
    let (before, call) = frames.split_at(40);
    assert!(before.iter().all(|frame| *frame == [0, 0]));
    assert_eq!(call.len(), recording.legs[0].len());
    for (at, [agent, customer]) in call.iter().enumerate() {
        assert_eq!(*customer, from_mu_law(recording.legs[0][at]), "the customer's frame {at}");
        assert_eq!(*agent, from_mu_law(recording.legs[1][at]), "the agent's frame {at}");
    }
}

/// Checks a call by a network that has lost some packets: each is told, and few words suffer.
#[track_caller]
fn assert_losses(events: &[&Value], said: [&[String]; 2]) {
    let ended = events.last().unwrap();
    for (leg, said) in ["customer", "agent"].into_iter().zip(said) {
        let lost = ended["legs"][leg]["packets"]["lost"].as_u64().unwrap();
        assert!(lost > 0, "the weather was fine: {ended}");
        let gaps = events.iter().filter(|event| event["event"] == "gap" && event["leg"] == leg);
        let seconds: f64 =
            gaps.map(|gap| gap["end"].as_f64().unwrap() - gap["start"].as_f64().unwrap()).sum();
        assert!((seconds - lost as f64 * 0.02).abs() < 1e-6, "{leg}: {seconds} s of {lost} packets");
        let heard = words(events, leg);
        let differing = WordErrors::between(&said.join(" "), &heard.join(" ")).errors;
        assert!(differing <= 1, "{leg}: {heard:?} instead of {said:?}");
    }
}

/// The process is killed during a call, and the next one finishes it: no word is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_finished_by_the_process_after_one_that_was_killed() {
    let place = Place::new();
    let recording = Recording::new();
    let [customer, _] = transcribed(&place, &recording);
    let arguments = ["--no-partials", "--spool", "spool"];
    let mut calls = Calls::start(&place, &arguments).await;
    let connection = audiosocket::play(calls.audiosocket, [8; 16], &recording).await;
    // Linear samples, all but the chunk that is being filled.
    let spoken = 2 * recording.legs[0].len() as u64 - 1_600;
    let spooled = async {
        while spool_bytes(&place) < spoken {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(PATIENCE, "the audio on the disk", spooled).await;
    calls.child.kill().unwrap();
    calls.child.wait().unwrap();
    drop(connection);

    let mut calls = Calls::start(&place, &arguments).await;
    let events = calls.until_ended(1).await;
    let events = of_call(&events, "08080808-0808-0808-0808-080808080808");
    assert_eq!(words(&events, "customer"), customer);
    let ended = events.last().unwrap();
    assert_eq!(ended["reason"], "interrupted");
    assert_eq!(ended["legs"]["customer"]["unfinished"], 0.0, "{ended}");
    assert_eq!(std::fs::read_dir(place.path("spool")).unwrap().count(), 0, "what is finished is deleted");
}

/// Returns the size of the only spool.
fn spool_bytes(place: &Place) -> u64 {
    let files = std::fs::read_dir(place.path("spool")).unwrap().map(|file| file.unwrap());
    let spools = files.filter(|file| file.path().extension().is_some_and(|it| it == "spool"));
    spools.map(|file| file.metadata().unwrap().len()).sum()
}

/// All protocols at once, each with the same recording: the words of a file, on the right legs.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_by_each_protocol_has_the_words_of_the_recording() {
    let place = Place::new();
    let recording = Recording::new();
    let [customer, agent] = transcribed(&place, &recording);
    let mut calls = Calls::start(&place, &["--no-partials", "--record", "calls"]).await;
    let (websocket, audiosocket) = (calls.websocket, calls.audiosocket);
    let peers = async {
        tokio::join!(
            audiosocket::call(audiosocket, [7; 16], &recording),
            twilio::call(websocket, "CA1", &recording, Weather::calm()),
            twilio::call(websocket, "CA2", &recording, Weather::jittery(1)),
            twilio::call(websocket, "CA3", &recording, Weather::stormy(1)),
            relatives::call(websocket, &recording),
            binary::call(websocket, &recording),
        )
    };
    let (events, _) = tokio::join!(calls.until_ended(13), peers);
    // AudioSocket has one leg: what Asterisk hears.
    assert_call(&events, "07070707-0707-0707-0707-070707070707", "audiosocket", &customer, &[]);
    assert_call(&events, "CA1", "twilio", &customer, &agent);
    assert_call(&events, "CA2", "twilio", &customer, &agent);
    for peer in ["telnyx", "signalwire", "plivo", "fork", "audio-stream", "jambonz"] {
        assert_call(&events, call_by(&events, peer), peer, &customer, &agent);
    }
    for peer in ["exotel", "chan-websocket", "vonage"] {
        assert_call(&events, call_by(&events, peer), peer, &customer, &[]);
    }
    let calm = of_call(&events, "CA1");
    assert_eq!(calm.iter().filter(|event| event["event"] == "gap").count(), 0, "nothing was lost");
    assert_eq!(calm.last().unwrap()["reason"], "hung_up");
    assert_recorded(&place, calm.last().unwrap(), &recording);
    assert_losses(&of_call(&events, "CA3"), [&customer, &agent]);

    signal(&calls.child, "TERM");
    assert!(calls.ends().await.success(), "it ends once no call is left");
}
