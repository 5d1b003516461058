//! A gateway that is told to stop during a hundred sessions (G15).

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use voxline::audio::Feed;
use voxline::auth::TokenProvider;
use voxline::session::{Ledger, Session, Settings};
use voxline::transcript::TranscriptEvent;
use voxline::transport::WebSocketConnector;

use crate::stream::digest;
use voxline_fixtures::deadline::within;
use voxline_fixtures::gateway::audio::chunks;
use voxline_fixtures::gateway::http::http_client;
use voxline_fixtures::gateway::process::{DRAIN, GatewayProcess, SEGMENT};
use voxline_fixtures::noise;

const SESSIONS: usize = 100;
const RATE: u32 = 16_000;
/// Length of a session's audio in frames: ten seconds.
const FRAMES: usize = 10 * RATE as usize;
/// Number of frames that are sent before the gateway is told to stop.
const BEFORE: usize = 4 * RATE as usize;
/// Length of the sessions that end while the gateway waits for them. Half a second is left by then, which
/// takes even a busy machine far less time than the gateway gives.
const SHORT: usize = BEFORE + SEGMENT;
/// Longest wait for an event.
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns the audio of a session. Each session has different audio, and every other one is short.
fn speech(number: usize) -> Vec<i16> {
    let frames = if is_short(number) { SHORT } else { FRAMES };
    noise(frames + number * 1_000).split_off(number * 1_000)
}

fn is_short(number: usize) -> bool {
    number.is_multiple_of(2)
}

/// Runs one session. The session sends no audio beyond the position in `may`. It increments `heard` once
/// it has all finals of the audio before the stop. Returns its text and its ledger.
async fn speak(
    (connector, tokens): (&WebSocketConnector, &TokenProvider),
    number: usize,
    mut may: watch::Receiver<usize>,
    heard: &watch::Sender<usize>,
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
                text.push(segment.text);
                if text.len() == BEFORE / SEGMENT {
                    heard.send_modify(|heard| *heard += 1);
                }
            }
        }
        text
    };
    let settings = Settings::new(RATE).with_seed(number as u64);
    let session = Session::new(connector, tokens, settings).run(audio, events);
    let (ended, (), text) = tokio::join!(session, feeding, listening);
    (text, ended.into_result().unwrap())
}

/// Waits until the gateway drains: it accepts no new sessions, and waits for the running ones.
async fn draining(gateway: &GatewayProcess) {
    let (http, health) = (http_client().unwrap(), format!("http://{}/healthz", gateway.address));
    loop {
        let answer = http.get(&health).send().await.unwrap();
        if answer.json::<Value>().await.unwrap()["status"] == "draining" {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the figures that it prints")]
async fn a_gateway_that_is_told_to_stop_loses_no_word() {
    let mut gateway = GatewayProcess::start();
    let client = (WebSocketConnector::new(gateway.endpoint()).unwrap(), gateway.tokens());
    let (heard, mut hearing) = watch::channel(0);
    // Half of the sessions end while the gateway waits for them. The others go on.
    let (short, short_may) = watch::channel(BEFORE);
    let (long, long_may) = watch::channel(BEFORE);
    let sessions = (0..SESSIONS).map(|number| {
        let may = if is_short(number) { short_may.clone() } else { long_may.clone() };
        speak((&client.0, &client.1), number, may, &heard)
    });
    let restarting = async {
        let all = hearing.wait_for(|heard| *heard == SESSIONS);
        within(PATIENCE, "all sessions to be heard so far", all).await.unwrap();
        let told = Instant::now();
        gateway.begin_stop();
        within(PATIENCE, "the gateway to drain", draining(&gateway)).await;
        short.send_replace(SHORT);
        let stopped = tokio::task::spawn_blocking(move || {
            gateway.stopped();
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
        let said = speech(number);
        let expected: Vec<String> = said.chunks(SEGMENT).map(digest).collect();
        assert_eq!(*text, expected, "session {number}: {ledger}");
        assert_eq!((ledger.recognised, ledger.gaps), (said.len() as u64, 0), "session {number}: {ledger}");
        // A session that goes on cannot have ended with a gateway that is gone.
        assert!(is_short(number) || ledger.reconnects > 0, "session {number}: {ledger}");
    }
    let stayed = ended.iter().filter(|(_, ledger)| ledger.reconnects == 0).count();
    let took = took.as_secs_f64();
    println!(
        "{SESSIONS} sessions at the signal: {stayed} ended before the gateway did, after {took:.1} s; the others moved"
    );
    assert!(stayed > 0, "the gateway waited for nobody");
    // The gateway waits for as long as it may, and a little longer for its last responses.
    assert!(took >= DRAIN.as_secs_f64(), "it left after {took:.1} s");
}
