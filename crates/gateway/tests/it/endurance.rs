//! A long call over real sockets that are cut, with tokens that expire sooner. The audio at the gateway and
//! the results of the caller must be the same as in an undisturbed call. `VOXLINE_ENDURANCE_SECONDS=3600`
//! plays an hour, at ten times the speed.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use voxline::pace::Pace;
use voxline::session::Settings;
use voxline::transport::WebSocketConnector;
use voxline_testing::{Cut, DigestRecognizer, Fault, FaultProxy};

use voxline_fixtures::gateway::server::{Server, Setup, endpoint};
use voxline_fixtures::gateway::session::{transcribe, transcribe_at};
use voxline_fixtures::knob::knob;
use voxline_fixtures::noise;
use voxline_fixtures::random::Random;

/// Returns the length of the call's audio in seconds.
fn seconds() -> usize {
    knob("VOXLINE_ENDURANCE_SECONDS").unwrap_or(240)
}

const PACE: f64 = 10.0;
const TOKEN_LIFETIME: Duration = Duration::from_secs(2);
/// Half a second.
const SEGMENT: usize = 8_000;

/// Returns faults that cut each connection within three seconds at this pace, unless it is closed before. A
/// cut looks like a peer that crashes or one that exits.
fn cuts(mut random: Random) -> impl Iterator<Item = Fault> + Send + 'static {
    std::iter::repeat_with(move || {
        let cut = if random.below(2) == 0 { Cut::Close } else { Cut::Reset };
        match random.below(4) {
            0 => Fault::CutServer { after: 500 + random.below(6_000) as u64, cut },
            _ => Fault::CutClient { after: 30_000 + random.below(900_000) as u64, cut },
        }
    })
}

#[allow(clippy::print_stdout, reason = "the figures of a long run")]
async fn endure(test: &str, in_band_auth: bool) {
    let recognizer = Arc::new(DigestRecognizer::new(SEGMENT));
    let setup = Setup { token_lifetime: TOKEN_LIFETIME, ..Setup::default() };
    let server = Server::with(recognizer.clone(), setup).await;
    let (seconds, frames) = (seconds() as u64, seconds() * 16_000);
    let pcm = noise(frames);
    let connector = WebSocketConnector::new(server.endpoint()).unwrap();
    let tokens = server.tokens();
    let undisturbed = transcribe(&connector, &tokens, Settings::new(16_000).with_seed(0), &pcm).await;

    let proxy = FaultProxy::with_faults(server.address, cuts(Random::for_test(test))).await.unwrap();
    let connector = WebSocketConnector::new(endpoint(proxy.address())).unwrap();
    let mut settings = Settings::new(16_000).with_seed(0);
    settings.in_band_auth = in_band_auth;
    // Cuts come after a number of bytes, so that a connection that catches up lives for a moment only. With
    // the backoff for a service that is down, most of the call would be waiting.
    settings.timeouts.healthy_after = Duration::ZERO;
    let pace = Pace::times(PACE).expect("a pace in range");
    let run = transcribe_at(pace, &connector, &tokens, settings, &pcm).await;
    let ledger = run.result.as_ref().expect("the session ends well");
    println!("{test}: {seconds} s of audio, {} connections cut; {ledger}", proxy.cuts());

    assert!(ledger.is_balanced() && ledger.recognised == frames as u64, "{ledger}");
    assert_eq!(run.finals(), undisturbed.finals(), "the transcript differs");
    let hashes: Vec<_> = recognizer.recordings().iter().map(|pcm| hash(pcm)).collect();
    assert!(
        hashes.len() == 2 && hashes.iter().all(|hash_| *hash_ == hash(&pcm)),
        "the gateway heard other audio"
    );
    assert!(ledger.token_renewals >= seconds / 24, "{ledger}");
    assert!(proxy.cuts() as u64 >= seconds / 36 && ledger.reconnects >= seconds / 48, "{ledger}");
    server.stop().await;
}

fn hash(pcm: &[i16]) -> [u8; 32] {
    let mut hash = Sha256::new();
    pcm.iter().for_each(|sample| hash.update(sample.to_le_bytes()));
    hash.finalize().into()
}

#[tokio::test]
async fn cuts_and_dying_tokens_change_nothing_with_tokens_in_band() {
    endure("endurance::cuts_and_dying_tokens_change_nothing_with_tokens_in_band", true).await;
}

#[tokio::test]
async fn cuts_and_dying_tokens_change_nothing_with_second_connections() {
    endure("endurance::cuts_and_dying_tokens_change_nothing_with_second_connections", false).await;
}
