//! A gateway that is told to stop while a hundred people speak (G15).

use std::time::Instant;

use futures::future::join_all;
use tokio::sync::{mpsc, watch};
use voxline::audio::Feed;
use voxline::auth::TokenProvider;
use voxline::session::{self, Ledger, Settings};
use voxline::transcript::TranscriptEvent;
use voxline::transport::WebSocketConnector;

use crate::session::{chunks, noise};
use crate::stream::digest;
use crate::support::gateway_process::{DRAIN, GatewayProcess, SEGMENT};

const SESSIONS: usize = 100;
const RATE: u32 = 16_000;
/// Ten seconds; and how much of them is said before the gateway is told to stop.
const FRAMES: usize = 10 * RATE as usize;
const BEFORE: usize = 4 * RATE as usize;

/// Each session says something else.
fn speech(number: usize) -> Vec<i16> {
    noise(FRAMES + number * 1_000).split_off(number * 1_000)
}

/// Runs one session, which says no more than `may` allows, and counts on `begun` once it has a final. Its text and its
/// account.
async fn speak(
    (connector, tokens): (&WebSocketConnector, &TokenProvider),
    number: usize,
    mut may: watch::Receiver<usize>,
    begun: &watch::Sender<usize>,
) -> (Vec<String>, Ledger) {
    let (sender, audio) = mpsc::channel(1);
    let (events, mut told) = mpsc::channel(1);
    let feeding = async move {
        for feed in chunks(&speech(number)) {
            if let Feed::Audio(chunk) = &feed {
                let end = chunk.range().end.0 as usize;
                may.wait_for(|may| end <= *may).await.unwrap();
            }
            sender.send(feed).await.unwrap();
        }
        sender.send(Feed::End).await.unwrap();
    };
    let listening = async move {
        let mut text = Vec::new();
        while let Some(event) = told.recv().await {
            if let TranscriptEvent::Final(segment) = event {
                if text.is_empty() {
                    begun.send_modify(|begun| *begun += 1);
                }
                text.push(segment.text);
            }
        }
        text
    };
    let mut settings = Settings::new(RATE);
    settings.seed = number as u64;
    let session = session::run(connector, tokens, settings, audio, events);
    let (ended, (), text) = tokio::join!(session, feeding, listening);
    (text, ended.whole().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the figures that it prints")]
async fn a_gateway_that_is_told_to_stop_loses_no_word() {
    let mut gateway = GatewayProcess::start();
    let client = (WebSocketConnector::new(gateway.endpoint()).unwrap(), gateway.tokens());
    let (begun, mut beginning) = watch::channel(0);
    // Half of the people come to their end while the gateway waits for them, the others speak on.
    let (short, short_may) = watch::channel(BEFORE);
    let (long, long_may) = watch::channel(BEFORE);
    let sessions = (0..SESSIONS).map(|number| {
        let may = if number % 2 == 0 { short_may.clone() } else { long_may.clone() };
        speak((&client.0, &client.1), number, may, &begun)
    });
    let restarting = async {
        beginning.wait_for(|begun| *begun == SESSIONS).await.unwrap();
        short.send_replace(FRAMES);
        let told = Instant::now();
        let stopped = tokio::task::spawn_blocking(move || {
            gateway.stop();
            let took = told.elapsed();
            gateway.restart();
            (gateway, took)
        });
        let stopped = stopped.await.unwrap();
        long.send_replace(FRAMES);
        stopped
    };
    let (ended, (_gateway, took)) = tokio::join!(join_all(sessions), restarting);

    for (number, (text, ledger)) in ended.iter().enumerate() {
        let expected: Vec<String> = speech(number).chunks(SEGMENT).map(digest).collect();
        assert_eq!(*text, expected, "session {number}: {ledger}");
        assert_eq!((ledger.recognised, ledger.gaps), (FRAMES as u64, 0), "session {number}: {ledger}");
        // Nobody who speaks on can have ended with a gateway that is gone.
        assert!(number % 2 == 0 || ledger.reconnects > 0, "session {number}: {ledger}");
    }
    let stayed = ended.iter().filter(|(_, ledger)| ledger.reconnects == 0).count();
    let took = took.as_secs_f64();
    println!(
        "{SESSIONS} sessions at the signal: {stayed} ended before the gateway did, after {took:.1} s; the others moved"
    );
    assert!(stayed > 0, "the gateway waited for nobody");
    // It waits as long as it may, and a little for its last answers.
    assert!(took >= DRAIN.as_secs_f64(), "it left after {took:.1} s");
}
