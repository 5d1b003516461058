//! All attacks at once on a gateway with live sessions: no audio is lost, and no word changes.
//!
//! `./dev prove siege` runs 20 sessions and an hour of attacks (`VOXLINE_SIEGE_SESSIONS`,
//! `VOXLINE_SIEGE_SECONDS`). There the latency of the sessions' final results and the gateway's memory are
//! compared with those of ten minutes without attack.

mod attacks;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use voxline::audio::Feed;
use voxline::auth::TokenProvider;
use voxline::pace::{Pace, Pacer};
use voxline::session::{Session, Settings};
use voxline::transcript::{FinalSegment, TranscriptEvent};
use voxline::transport::WebSocketConnector;

use self::attacks::Target;
use crate::cli::Place;
use crate::support::serving::Serving;
use voxline_fixtures::clips;
use voxline_fixtures::gateway::audio::chunks;
use voxline_fixtures::knob::knob;

const RATE: u32 = 16_000;
/// Silence between two recordings, as between two utterances.
const PAUSE: usize = RATE as usize;
/// Longest time without attack, with which an hour of attacks is compared.
const LONGEST_CALM: u64 = 600;
/// Shortest attack, in seconds, that is long enough for quantiles of latency and for a trend of memory.
const MEASURED: u64 = 600;
/// Largest ratio of the latency of final results under attack to that without: the bound that
/// docs/proofs.md states.
const SLOWER: f64 = 1.2;
/// Largest growth of the gateway's resident memory from the second third of the attacks to the last.
const GROWTH: f64 = 1.1;

#[expect(clippy::disallowed_methods, reason = "latencies are of real time")]
fn now() -> Instant {
    Instant::now()
}

/// Returns speech of `seconds`: the recordings of read English one after another, starting with the one at
/// `first`.
fn speech(first: usize, seconds: u64) -> Vec<i16> {
    let clips = clips::set("en-16k");
    let frames = seconds as usize * RATE as usize;
    let mut pcm = Vec::with_capacity(frames);
    for clip in clips.iter().cycle().skip(first % clips.len()) {
        pcm.extend_from_slice(&clip.pcm);
        pcm.resize(pcm.len() + PAUSE, 0);
        if pcm.len() >= frames {
            break;
        }
    }
    pcm.truncate(frames);
    pcm
}

/// Results of one caller's session.
struct Call {
    finals: Vec<FinalSegment>,
    /// Time from the end of each segment with words to its arrival.
    latencies: Vec<Duration>,
}

/// Speaks for `seconds` in real time, and checks that nothing was lost.
async fn call(connector: &WebSocketConnector, tokens: &TokenProvider, number: usize, seconds: u64) -> Call {
    let pcm = speech(number, seconds);
    let frames = pcm.len() as u64;
    let mut settings = Settings::new(RATE).with_seed(number as u64);
    settings.request.language = Some("en".to_owned());
    let (feed, audio) = mpsc::channel(1);
    let (events, mut told) = mpsc::channel(64);
    let begun = now();
    let speaking = async {
        let pacer = Pacer::new(Pace::REAL_TIME, RATE);
        for chunk in chunks(&pcm).chain([Feed::End]) {
            pacer.wait(&chunk).await;
            feed.send(chunk).await.expect("the session takes all audio");
        }
    };
    let listening = async {
        let mut call = Call { finals: Vec::new(), latencies: Vec::new() };
        while let Some(event) = told.recv().await {
            let TranscriptEvent::Final(segment) = event else { continue };
            // The end of the audio ends the last utterance at once.
            if !segment.text.is_empty() && segment.range.end.0 < frames {
                call.latencies.push(begun.elapsed().saturating_sub(segment.range.end.time(RATE)));
            }
            call.finals.push(segment);
        }
        call
    };
    let running = Session::new(connector, tokens, settings).run(audio, events);
    let (ended, (), call) = tokio::join!(running, speaking, listening);
    let ledger = ended.into_result().unwrap_or_else(|error| panic!("call {number}: {error}"));
    assert!(ledger.is_balanced(), "call {number}: {ledger}");
    assert_eq!(
        (ledger.accepted, ledger.recognised, ledger.gaps),
        (frames, frames, 0),
        "call {number}: {ledger}"
    );
    call
}

async fn calls(target: &Target, tokens: &TokenProvider, count: usize, seconds: u64) -> Vec<Call> {
    let connector = WebSocketConnector::new(target.endpoint()).unwrap();
    join_all((0..count).map(|number| call(&connector, tokens, number, seconds))).await
}

/// Returns the latency of final results at the quantile `part`, in seconds.
///
/// # Panics
/// Panics if there were no final results with words.
fn quantile(calls: &[Call], part: f64) -> f64 {
    let mut latencies: Vec<_> = calls.iter().flat_map(|call| &call.latencies).collect();
    assert!(!latencies.is_empty(), "no final has words");
    latencies.sort_unstable();
    let index = ((latencies.len() - 1) as f64 * part).round() as usize;
    latencies[index].as_secs_f64()
}

/// Returns the resident memory of a process, in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells VmRSS");
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// Samples the gateway's memory every second until cancelled.
async fn watch_memory(pid: u32, over: CancellationToken) -> Vec<u64> {
    let mut samples = Vec::new();
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while over.run_until_cancelled(second.tick()).await.is_some() {
        samples.push(resident(pid));
    }
    samples
}

/// Creates a project and returns its credentials.
fn project(place: &Place, name: &str) -> (String, String) {
    let created = place.run(&["gateway", "project", "create", name, "--state", "state", "--json"]);
    let project: Value = serde_json::from_slice(&created.stdout).expect("it prints JSON");
    let field = |name: &str| project[name].as_str().unwrap().to_owned();
    (field("client_id"), field("client_secret"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the figures are what one runs it for")]
async fn all_attacks_at_once_cost_the_calls_nothing() {
    let (count, seconds) =
        (knob("VOXLINE_SIEGE_SESSIONS").unwrap_or(2) as usize, knob("VOXLINE_SIEGE_SECONDS").unwrap_or(8));
    let place = Place::new();
    let (client_id, client_secret) = project(&place, "calls");
    project(&place, "attackers");
    let create =
        ["gateway", "service-token", "create", "attackers", "--state", "state", "--max-sessions", "1"];
    let service_token = place.run(&create).stdout;
    // The calls take all but two of the gateway's places. Those two are left for the attackers to fill.
    let places = (count + 2).to_string();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--state", "state", "--demo", "--max-sessions", &places];
    let serving = Serving::start(place.command(&serve));
    let target = Arc::new(Target {
        address: serving.address(),
        service_token: String::from_utf8(service_token).unwrap().trim().to_owned(),
    });
    let tokens = target.tokens(client_id, client_secret, &place.path("tokens"));

    let calm = calls(&target, &tokens, count, seconds.min(LONGEST_CALM)).await;
    let over = CancellationToken::new();
    let (memory, under_attack, rounds) = tokio::join!(
        watch_memory(serving.pid(), over.clone()),
        async {
            let calls = calls(&target, &tokens, count, seconds).await;
            over.cancel();
            calls
        },
        attacks::all(target.clone(), over.clone()),
    );

    for (attack, rounds) in &rounds {
        println!("{attack}: {rounds} rounds");
        assert!(*rounds > 0, "{attack} never came about");
    }
    for (number, (calm, attacked)) in calm.iter().zip(&under_attack).enumerate() {
        // The last segment ends with the audio, which is longer if the attack lasts longer.
        let whole = &calm.finals[..calm.finals.len() - 1];
        assert_eq!(&attacked.finals[..whole.len()], whole, "call {number} has other text under attack");
    }
    for part in [0.5, 0.95] {
        let (without, with) = (quantile(&calm, part), quantile(&under_attack, part));
        let ratio = with / without;
        println!(
            "latency of finals, quantile {part}: {without:.3} s calm, {with:.3} s attacked, ratio {ratio:.2}"
        );
        assert!(seconds < MEASURED || ratio <= SLOWER, "finals come {ratio:.2} times as late");
    }
    let thirds: Vec<u64> =
        memory.chunks(memory.len().div_ceil(3)).map(|third| *third.iter().max().unwrap()).collect();
    println!("most resident memory in each third of the attacks: {thirds:?}");
    let growth = thirds[2] as f64 / thirds[1] as f64;
    assert!(seconds < MEASURED || growth <= GROWTH, "memory grows: {thirds:?}");
    let (status, _) = serving.stop();
    assert!(status.success(), "{status}");
}
