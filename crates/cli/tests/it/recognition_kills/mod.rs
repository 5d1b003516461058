//! A gateway with Whisper that is killed right after a final result: the session, begun anew at that final
//! with its context, has the text that it would have had undisturbed.
//!
//! `./dev prove kills` kills the gateway after each final of ten minutes, live and as a recording.

mod relay;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use voxline::audio::Feed;
use voxline::auth::TokenProvider;
use voxline::pace::{Pace, Pacer};
use voxline::protocol::Latency;
use voxline::session::{Session, Settings};
use voxline::transcript::{FinalSegment, TranscriptEvent};
use voxline::transport::WebSocketConnector;

use self::relay::{Kills, Relay};
use crate::cli::{Place, text};
use crate::support::serving::Serving;
use voxline_fixtures::clips;
use voxline_fixtures::gateway::audio::chunks;
use voxline_fixtures::knob::knob;
use voxline_fixtures::random::Random;

const RATE: u32 = 16_000;
/// Length of the audio of a sample, and of the proof, in seconds.
const SAMPLE: usize = 30;
const WHOLE: usize = 600;
/// Number of kills of a sample.
const KILLS: usize = 3;

/// A gateway's state directory, and a token that it takes.
struct Desk {
    place: Place,
    tokens: TokenProvider,
}

impl Desk {
    fn new() -> Arc<Desk> {
        let place = Place::new();
        place.run(&["gateway", "project", "create", "calls", "--state", "state"]);
        let created = place.run(&["gateway", "service-token", "create", "calls", "--state", "state"]);
        let token = text(&created.stdout).trim().to_owned();
        let tokens = TokenProvider::service(&token.into()).unwrap();
        Arc::new(Desk { place, tokens })
    }

    fn serve(&self) -> Serving {
        let usual = ["serve", "--listen", "127.0.0.1:0", "--state", "state"];
        let sizes = ["--threads", "1", "--max-sessions", "4"];
        Serving::start(self.place.command(&[&usual[..], &sizes].concat()))
    }

    /// Returns the finals of a session of this audio, and checks that it lost nothing.
    async fn hear(&self, endpoint: &str, pcm: &[i16], settings: Settings) -> Vec<FinalSegment> {
        let connector = WebSocketConnector::new(endpoint.parse().unwrap()).unwrap();
        let (feed, audio) = mpsc::channel(4);
        let (events, mut told) = mpsc::channel(64);
        // Live audio arrives slowly enough for partial results, which may become finals.
        let pace = match settings.request.latency {
            Latency::Live => Pace::times(8.0).expect("a pace in range"),
            Latency::Relaxed => Pace::MAX,
        };
        let speaking = async {
            let pacer = Pacer::new(pace, RATE);
            for chunk in chunks(pcm).chain([Feed::End]) {
                pacer.wait(&chunk).await;
                feed.send(chunk).await.expect("the session takes all audio");
            }
        };
        let listening = async {
            let mut finals = Vec::new();
            while let Some(event) = told.recv().await {
                if let TranscriptEvent::Final(segment) = event {
                    finals.push(segment);
                }
            }
            finals
        };
        let running = Session::new(&connector, &self.tokens, settings).run(audio, events);
        let (ended, (), finals) = tokio::join!(running, speaking, listening);
        let ledger = ended.into_result().expect("the session ends well");
        assert_eq!((ledger.accepted, ledger.gaps), (pcm.len() as u64, 0), "{ledger}");
        assert_eq!(ledger.recognised, ledger.accepted, "{ledger}");
        finals
    }
}

fn settings(latency: Latency, seed: u64) -> Settings {
    let mut settings = Settings::new(RATE).with_seed(seed);
    settings.request.latency = latency;
    // A connection that has delivered a final counts as healthy here. With the default of half a minute the
    // backoff would grow to ten seconds, and the test would mostly wait.
    settings.timeouts.healthy_after = Duration::from_millis(1);
    settings
}

/// Returns speech of people in two languages, with pauses of 0.2 to 3 s, some of 11 s, and faint noise.
fn speech(random: &mut Random, seconds: usize) -> Vec<i16> {
    let sets = ["en-16k", "en-telephone", "ru-telephone"].map(clips::set);
    let frames = seconds * RATE as usize;
    let mut pcm = Vec::new();
    while pcm.len() < frames {
        // A few clips of one speaker, and a pause that ends an utterance.
        let set = &sets[random.below(sets.len())];
        for _ in 0..=random.below(3) {
            pcm.extend_from_slice(&set[random.below(set.len())].pcm);
            let pause = match random.below(16) {
                0 => 11.0,
                _ => 0.2 * 15f32.powf(random.sample().abs()),
            };
            pcm.resize(pcm.len() + (pause * RATE as f32) as usize, 0);
        }
        pcm.resize(pcm.len() + RATE as usize, 0);
    }
    pcm.truncate(frames);
    pcm.iter().map(|sample| sample.saturating_add((random.sample() * 8.0) as i16)).collect()
}

/// Returns all of a final that a user sees.
fn shown(segment: &FinalSegment) -> FinalSegment {
    FinalSegment { context: None, ..segment.clone() }
}

/// Kills the gateway of a session after some finals, or after each, and compares its finals with those of an
/// undisturbed session.
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the figures that it prints")]
async fn compare(name: &str, random: &mut Random, latency: Latency) {
    let is_whole = knob::<String>("VOXLINE_KILLED_FINALS").is_some_and(|finals| finals == "all");
    let pcm = speech(random, if is_whole { WHOLE } else { SAMPLE });
    let (desk, began) = (Desk::new(), Instant::now());
    let serving = desk.serve();
    let undisturbed = desk.hear(&serving.endpoint, &pcm, settings(latency, random.next())).await;
    drop(serving);
    let words = undisturbed.iter().filter(|segment| !segment.text.is_empty()).count();
    assert!(words >= 3, "{undisturbed:?}");

    let schedule = if is_whole {
        Kills::Each
    } else {
        let mut finals = BTreeSet::new();
        while finals.len() < KILLS.min(undisturbed.len()) {
            finals.insert(random.below(undisturbed.len()));
        }
        Kills::After(finals)
    };
    let expected = match &schedule {
        Kills::Each => undisturbed.len(),
        Kills::After(finals) => finals.len(),
    };
    let again = Arc::clone(&desk);
    let relay = Relay::start(move || again.serve(), schedule, false);
    let endpoint = format!("http://{}", relay.address);
    let killed = desk.hear(&endpoint, &pcm, settings(latency, random.next())).await;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{name}: {} kills, {} finals, {words} with words, in {seconds:.0} s",
        relay.kills(),
        killed.len()
    );
    for (killed, undisturbed) in killed.iter().zip(&undisturbed) {
        assert_eq!(shown(killed), shown(undisturbed));
    }
    assert_eq!((killed.len(), relay.kills()), (undisturbed.len(), expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_whose_gateway_is_killed_after_a_final_has_the_undisturbed_text() {
    let mut random = Random::for_test(
        "recognition_kills::a_recording_whose_gateway_is_killed_after_a_final_has_the_undisturbed_text",
    );
    compare("recording", &mut random, Latency::Relaxed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_session_whose_gateway_is_killed_after_a_final_has_the_undisturbed_text() {
    let mut random = Random::for_test(
        "recognition_kills::a_live_session_whose_gateway_is_killed_after_a_final_has_the_undisturbed_text",
    );
    compare("live session", &mut random, Latency::Live).await;
}

/// One word is too little to tell Russian from Polish. After a sentence in Russian all words are Russian,
/// unless the gateways in between have forgotten it.
#[tokio::test(flavor = "multi_thread")]
async fn the_settled_language_outlives_a_killed_gateway_by_the_context_alone() {
    let mut pcm = Vec::new();
    for name in ["queue-youarenext", "vm-isunavail", "vm-received", "vm-isonphone"] {
        pcm.extend(clips::audio("ru-telephone", name));
        pcm.resize(pcm.len() + RATE as usize, 0);
    }
    for strips_context in [false, true] {
        let desk = Desk::new();
        let again = Arc::clone(&desk);
        let relay = Relay::start(move || again.serve(), Kills::Each, strips_context);
        let endpoint = format!("http://{}", relay.address);
        let finals = desk.hear(&endpoint, &pcm, settings(Latency::Live, 1)).await;
        let said: Vec<_> = finals.iter().filter(|segment| !segment.text.is_empty()).collect();
        let russian = said.iter().filter(|segment| segment.language.as_deref() == Some("ru")).count();
        assert!(said.len() >= 3, "{finals:?}");
        if strips_context {
            assert!(russian < said.len(), "the words alone are clear by now: {said:?}");
        } else {
            assert_eq!(russian, said.len(), "{said:?}");
        }
    }
}
