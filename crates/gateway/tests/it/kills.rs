//! A gateway that is killed again and again while a session runs: no sample is lost, and none is reported
//! twice.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use voxline::audio::Feed;
use voxline::auth::TokenProvider;
use voxline::pace::{Pace, Pacer};
use voxline::session::{Ended, Session, Settings};
use voxline::transcript::{FinalSegment, TranscriptEvent};
use voxline::transport::WebSocketConnector;

use voxline_fixtures::gateway::audio::chunks;
use voxline_fixtures::gateway::process::{GatewayProcess, kills};
use voxline_fixtures::noise;
use voxline_fixtures::random::{Random, seed};

const RATE: u32 = 16_000;
/// Length of a session in frames: ten minutes.
const FRAMES: u64 = 600 * RATE as u64;

/// A client of the gateway. It has no knowledge of the kills.
struct Client {
    connector: WebSocketConnector,
    tokens: TokenProvider,
}

impl Client {
    fn of(gateway: &GatewayProcess) -> Client {
        Client { connector: WebSocketConnector::new(gateway.endpoint()).unwrap(), tokens: gateway.tokens() }
    }

    /// Runs a session of ten minutes, fed at `pace` and no farther than the position in `end`. All its
    /// events go to `told`.
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
        let mut settings = Settings::new(RATE).with_seed(seed);
        settings.request.partials = false;
        // A connection that has delivered a final counts as healthy here. With the default of half a
        // minute the backoff would grow to ten seconds, and the test would mostly wait.
        settings.timeouts.healthy_after = Duration::from_millis(1);
        let run = Session::new(&self.connector, &self.tokens, settings).run(feed, events);
        let (ended, (), ()) = tokio::join!(run, feeding, telling);
        ended
    }
}

/// Events of a session, and the finals among them.
struct Told {
    events: mpsc::UnboundedReceiver<TranscriptEvent>,
    finals: Vec<FinalSegment>,
}

impl Told {
    /// Returns the next event, or `None` at the end of the session.
    async fn next(&mut self) -> Option<TranscriptEvent> {
        let event = self.events.recv().await;
        if let Some(TranscriptEvent::Final(segment)) = &event {
            self.finals.push(segment.clone());
        }
        event
    }

    /// Waits for an event of this kind. The session must not end before it.
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
    let ended = client.ten_minutes(Pace::MAX, all, random.next(), sender).await;
    assert_eq!(ended.into_result().unwrap().recognised, FRAMES);
    while undisturbed.next().await.is_some() {}
    assert_eq!(undisturbed.finals.len(), 1_200);

    // Each kill has its part of the audio, sent within a second. The source therefore has more audio at
    // each kill, however long the gateway takes to come back.
    let pace = Pace::times(600.0 / kills as f64).expect("a pace in range");
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
            // The kill is the fault, and any time for it will do.
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
