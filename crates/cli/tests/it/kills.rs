//! A gateway that is killed, again and again, while a session runs: no sample is lost, and none is told twice.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use voxline::audio::Feed;
use voxline::auth::TokenProvider;
use voxline::pace::{Pace, Pacer};
use voxline::session::{self, Ended, Settings};
use voxline::transcript::{FinalSegment, TranscriptEvent};
use voxline::transport::WebSocketConnector;

use crate::random::{Random, seed};
use crate::session::{chunks, noise};
use crate::support::gateway_process::{GatewayProcess, serve_until_told};

const RATE: u32 = 16_000;
/// Ten minutes.
const FRAMES: u64 = 600 * RATE as u64;

/// How many kills: `VOXLINE_KILLS`, or 20.
#[expect(clippy::disallowed_methods, reason = "the knob of the tests that kill")]
pub(crate) fn kills() -> usize {
    std::env::var("VOXLINE_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20)
}

/// A gateway, for the tests that need one to kill: they start it as a process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a gateway for other tests, which start it"]
async fn gateway_process() {
    serve_until_told().await;
}

/// A client of the gateway. It knows nothing of kills.
struct Client {
    connector: WebSocketConnector,
    tokens: TokenProvider,
}

impl Client {
    fn of(gateway: &GatewayProcess) -> Client {
        Client { connector: WebSocketConnector::new(gateway.endpoint()).unwrap(), tokens: gateway.tokens() }
    }

    /// Runs a session of ten minutes, fed at `pace` and no farther than to the `end` of what there is; `told` is all it
    /// tells.
    async fn ten_minutes(
        &self,
        pace: Pace,
        mut end: watch::Receiver<u64>,
        seed: u64,
        told: mpsc::UnboundedSender<TranscriptEvent>,
    ) -> Ended {
        let (sender, feed) = mpsc::channel(4);
        let feeding = async {
            let pacer = Pacer::new(pace, RATE);
            for feed in chunks(&noise(FRAMES as usize)) {
                if let Feed::Audio(chunk) = &feed {
                    end.wait_for(|end| *end >= chunk.range().end.0)
                        .await
                        .expect("the test holds the other end");
                }
                pacer.wait(&feed).await;
                if sender.send(feed).await.is_err() {
                    return;
                }
            }
            let _ = sender.send(Feed::End).await;
        };
        let (events, mut listened) = mpsc::channel(4);
        let telling = async {
            while let Some(event) = listened.recv().await {
                let _ = told.send(event);
            }
            drop(told);
        };
        let mut settings = Settings::new(RATE);
        settings.seed = seed;
        settings.partials = false;
        // A connection that has told a final has proved itself here. With the default of half a minute the waits
        // between the tries would grow to ten seconds, and this would be a test of patience.
        settings.healthy_after = Duration::from_millis(1);
        let run = session::run(&self.connector, &self.tokens, settings, feed, events);
        let (ended, (), ()) = tokio::join!(run, feeding, telling);
        ended
    }
}

/// What a session told, and the finals of it.
struct Told {
    events: mpsc::UnboundedReceiver<TranscriptEvent>,
    finals: Vec<FinalSegment>,
}

impl Told {
    /// The next event; `None` at the end of the session.
    async fn next(&mut self) -> Option<TranscriptEvent> {
        let event = self.events.recv().await;
        if let Some(TranscriptEvent::Final(segment)) = &event {
            self.finals.push(segment.clone());
        }
        event
    }

    /// Waits for an event of this kind. The session must not end before.
    async fn wait_for(&mut self, kind: impl Fn(&TranscriptEvent) -> bool) {
        while !kind(&self.next().await.expect("the session goes on")) {}
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the figures that it prints")]
async fn a_gateway_killed_in_mid_stream_costs_no_sample() {
    let mut random = Random::for_test("kills::a_gateway_killed_in_mid_stream_costs_no_sample");
    let (began, kills) = (Instant::now(), kills());
    let mut gateway = GatewayProcess::start();
    let client = Client::of(&gateway);

    let (sender, events) = mpsc::unbounded_channel();
    let mut undisturbed = Told { events, finals: Vec::new() };
    let (_end, all) = watch::channel(FRAMES);
    let ended = client.ten_minutes(Pace::Max, all, random.next(), sender).await;
    assert_eq!(ended.whole().unwrap().recognised, FRAMES);
    while undisturbed.next().await.is_some() {}
    assert_eq!(undisturbed.finals.len(), 1_200);

    // Each kill has its part of the audio, spoken within a second: the source has more to say at each of them, however
    // long the gateway takes to come back.
    let pace = Pace::Times(600.0 / kills as f64);
    let part = FRAMES / (kills as u64 + 1);
    let (end, until) = watch::channel(0);
    let (sender, events) = mpsc::unbounded_channel();
    let mut told = Told { events, finals: Vec::new() };
    let killing = async {
        for kill in 0..kills {
            end.send_replace(part * (kill as u64 + 1));
            if kill > 0 {
                told.wait_for(|event| matches!(event, TranscriptEvent::Reconnected { .. })).await;
            }
            told.wait_for(|event| matches!(event, TranscriptEvent::Final(_))).await;
            // When exactly is the fault, and any time will do.
            tokio::time::sleep(Duration::from_millis(random.below(100) as u64)).await;
            gateway = tokio::task::spawn_blocking(move || {
                gateway.kill();
                gateway.restart();
                gateway
            })
            .await
            .unwrap();
        }
        let heard = told.finals.len();
        end.send_replace(FRAMES);
        while told.next().await.is_some() {}
        heard
    };
    let seed = Random::seeded(seed()).next();
    let (ended, heard) = tokio::join!(client.ten_minutes(pace, until, seed, sender), killing);
    let ledger = ended.ledger;
    println!("{kills} kills in {:.0} s, by final {heard} of 1200; {ledger}", began.elapsed().as_secs_f64());
    assert_eq!(ended.result, Ok(()));
    assert!(heard < 1_200, "the last kills came too late to hit anything");
    assert_eq!(told.finals, undisturbed.finals);
    assert!(ledger.is_balanced(), "{ledger}");
    assert_eq!((ledger.accepted, ledger.recognised), (FRAMES, FRAMES), "{ledger}");
    assert!(ledger.reconnects >= kills as u64, "{ledger}");
}
