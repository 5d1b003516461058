//! Sessions over real sockets against the real gateway. The gateway's recogniser writes digests of its
//! audio, so a transcript proves which samples arrived, and how often.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use voxline::audio::{Feed, FramePos};
use voxline::auth::{TokenProvider, TokenSet, Vault};
use voxline::clock::{Clock, SystemClock};
use voxline::pace::Pace;
use voxline::protocol::close;
use voxline::recovery::Recovery;
use voxline::session::{Session, SessionError, Settings};
use voxline::transcript::TranscriptEvent;
use voxline::transport::{Connect, Message, WebSocketConnector};
use voxline_engines::Whisper;
use voxline_gateway::Options;
use voxline_testing::{DigestRecognizer, FaultProxy};

use voxline_fixtures::clips;
use voxline_fixtures::deadline::within;
use voxline_fixtures::gateway::audio::chunks;
use voxline_fixtures::gateway::server::{Server, Setup, endpoint};
use voxline_fixtures::gateway::session::{Run, transcribe, transcribe_at};
use voxline_fixtures::noise;
use voxline_fixtures::samples::models_dir;

/// Half a second, so that a session has many finals.
const SEGMENT: usize = 8_000;
/// Longest wait for a partial result. One comes with each acknowledgement, at least four times a second;
/// the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// Bytes of the upgrade request with its headers, and of `start`. A cut before them is too early to lose
/// audio.
const HANDSHAKE: u64 = 1_000;

/// Returns audio in which every half second differs.
fn audio(seconds: usize) -> Vec<i16> {
    noise(seconds * 16_000)
}

fn assert_whole(run: &Run, frames: u64) {
    let ledger = run.result.as_ref().expect("the session ends well");
    assert_eq!((ledger.accepted, ledger.recognised), (frames, frames));
    let mut end = FramePos::ZERO;
    for (index, segment) in run.finals().into_iter().enumerate() {
        assert_eq!((segment.index, segment.range.start), (index as u64, end));
        end = segment.range.end;
    }
    assert_eq!(end, FramePos(frames));
    let last = TranscriptEvent::End { frames, finals: run.finals().len() as u64 };
    assert_eq!(run.events.last(), Some(&last));
}

#[tokio::test]
async fn five_cuts_change_nothing() {
    let recognizer = Arc::new(DigestRecognizer::new(SEGMENT));
    let server = Server::start(recognizer.clone()).await;
    let (tokens, pcm) = (server.tokens(), audio(60));

    let connector = WebSocketConnector::new(server.endpoint()).unwrap();
    let undisturbed = transcribe(&connector, &tokens, Settings::new(16_000).with_seed(0), &pcm).await;
    assert_whole(&undisturbed, pcm.len() as u64);
    assert_eq!(undisturbed.result.as_ref().unwrap().reconnects, 0);

    // Cuts in the middle of a frame, between frames, soon after a resume, and late.
    let budgets = [200_000, 3_207, 64_000, 5_001, 333_333].map(|bytes| HANDSHAKE + bytes).to_vec();
    let proxy = FaultProxy::start(server.address, budgets).await.unwrap();
    let connector = WebSocketConnector::new(endpoint(proxy.address())).unwrap();
    let cut = transcribe(&connector, &tokens, Settings::new(16_000).with_seed(0), &pcm).await;
    assert_whole(&cut, pcm.len() as u64);
    assert_eq!(proxy.cuts(), 5);
    assert_eq!(cut.result.as_ref().unwrap().reconnects, 5);
    assert_eq!(cut.finals(), undisturbed.finals());
    let [one, two] = &recognizer.recordings()[..] else { panic!("a resume must not start a new stream") };
    assert!(*one == pcm && *two == pcm, "the gateway heard other samples than were sent");
    server.stop().await;
}

#[tokio::test]
async fn five_cuts_change_no_word_of_a_real_recording() {
    let whisper = Whisper::load(&models_dir().join("whisper-base")).expect("the model is there");
    let setup = Setup { token_lifetime: Duration::from_secs(2), ..Setup::default() };
    let server = Server::with(Arc::new(whisper), setup).await;
    let (tokens, recording) = (server.tokens(), clips::clip("en-telephone", "demo-echotest"));
    let mut settings = Settings::new(16_000).with_seed(0);
    settings.request.language = Some("en".to_owned());
    settings.request.partials = false;
    let connector = WebSocketConnector::new(server.endpoint()).unwrap();
    let undisturbed = transcribe(&connector, &tokens, settings.clone(), &recording.pcm).await;
    assert_whole(&undisturbed, recording.pcm.len() as u64);

    let budgets = [100_000, 90_000, 3_000, 150_000, 120_000].map(|bytes| HANDSHAKE + bytes).to_vec();
    let proxy = FaultProxy::start(server.address, budgets).await.unwrap();
    let connector = WebSocketConnector::new(endpoint(proxy.address())).unwrap();
    let cut = transcribe(&connector, &tokens, settings, &recording.pcm).await;
    assert_eq!(proxy.cuts(), 5);
    assert_eq!(cut.finals(), undisturbed.finals());
    server.stop().await;
}

#[tokio::test]
async fn a_forgotten_session_starts_again_at_the_last_final() {
    let recognizer = Arc::new(DigestRecognizer::new(SEGMENT));
    // No session survives its socket: each cut acts as a server that lost its memory.
    let options = Options { resume_window: Duration::ZERO, ..Options::default() };
    let server = Server::with(recognizer.clone(), Setup { options, ..Setup::default() }).await;
    let (tokens, pcm) = (server.tokens(), audio(60));
    let connector = WebSocketConnector::new(server.endpoint()).unwrap();
    let undisturbed = transcribe(&connector, &tokens, Settings::new(16_000).with_seed(0), &pcm).await;

    // After each cut one connection asks for the old session in vain.
    let budgets = vec![300_000, u64::MAX, 2_000, u64::MAX, 100_000];
    let proxy = FaultProxy::start(server.address, budgets).await.unwrap();
    let connector = WebSocketConnector::new(endpoint(proxy.address())).unwrap();
    let cut = transcribe(&connector, &tokens, Settings::new(16_000).with_seed(0), &pcm).await;
    assert_whole(&cut, pcm.len() as u64);
    assert_eq!(cut.text(), undisturbed.text());
    assert_eq!(proxy.cuts(), 3);
    server.stop().await;
}

/// Sends ninety seconds of audio in eighteen, with tokens that live for five seconds.
async fn outlive_tokens(in_band_auth: bool) {
    let pcm = audio(90);
    let recognizer = Arc::new(DigestRecognizer::new(SEGMENT));
    let setup = Setup { token_lifetime: Duration::from_secs(5), ..Setup::default() };
    let server = Server::with(recognizer.clone(), setup).await;
    let connector = WebSocketConnector::new(server.endpoint()).unwrap();
    let mut settings = Settings::new(16_000).with_seed(0);
    settings.in_band_auth = in_band_auth;
    let pace = Pace::times(5.0).expect("a pace in range");
    let run = transcribe_at(pace, &connector, &server.tokens(), settings, &pcm).await;
    assert_whole(&run, pcm.len() as u64);
    let ledger = run.result.unwrap();
    assert!(ledger.token_renewals >= 3 && ledger.reconnects == 0 && ledger.token_refusals == 0, "{ledger}");
    assert_eq!(ledger.handovers, if in_band_auth { 0 } else { ledger.token_renewals }, "{ledger}");
    assert!(recognizer.recordings() == [pcm], "the gateway heard other audio");
    server.stop().await;
}

#[tokio::test]
async fn tokens_are_replaced_in_band_before_they_die_and_nobody_notices() {
    outlive_tokens(true).await;
}

#[tokio::test]
async fn tokens_are_replaced_by_second_connections_before_they_die_and_nobody_notices() {
    outlive_tokens(false).await;
}

#[tokio::test]
async fn partial_results_come_while_the_caller_pauses() {
    let server = Server::start(Arc::new(DigestRecognizer::new(SEGMENT))).await;
    let tokens = server.tokens();
    let connector = WebSocketConnector::new(server.endpoint()).unwrap();
    let (sender, audio_feed) = mpsc::channel(64);
    let (events, mut heard) = mpsc::channel(64);
    let pcm = audio(1);
    let talking = async {
        // A segment and a half, and no end.
        for feed in chunks(&pcm[..12_000]) {
            sender.send(feed).await.unwrap();
        }
        let partial = async {
            loop {
                match heard.recv().await.expect("the session goes on") {
                    TranscriptEvent::Partial { segment: 1, range, .. } if range.end == FramePos(12_000) => {
                        break;
                    }
                    _ => {}
                }
            }
        };
        within(SOON, "a partial result for what was said before the pause", partial).await;
        // The flush asks for the pending audio now.
        sender.send(Feed::Flush).await.unwrap();
        let answer = async {
            loop {
                match heard.recv().await.expect("the session goes on") {
                    TranscriptEvent::Final(segment) if segment.index == 1 => break,
                    _ => {}
                }
            }
        };
        within(SOON, "the final that answers the flush", answer).await;
        sender.send(Feed::End).await.unwrap();
        while heard.recv().await.is_some() {}
    };
    let run = Session::new(&connector, &tokens, Settings::new(16_000).with_seed(0)).run(audio_feed, events);
    let (result, ()) = tokio::join!(run, talking);
    assert_eq!(result.into_result().unwrap().recognised, 12_000);
    server.stop().await;
}

#[tokio::test]
async fn a_session_of_another_rate_is_covered_to_the_last_frame() {
    let server = Server::start(Arc::new(DigestRecognizer::new(SEGMENT))).await;
    let connector = WebSocketConnector::new(server.endpoint()).unwrap();
    let tokens = server.tokens();
    for (rate, frames) in [(8_000, 30_001), (44_100, 100_003)] {
        let pcm = &audio(7)[..frames];
        let run = transcribe(&connector, &tokens, Settings::new(rate).with_seed(0), pcm).await;
        assert_whole(&run, frames as u64);
        assert!(run.finals().len() > 3);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_empty_session_ends_well() {
    let server = Server::start(Arc::new(DigestRecognizer::new(SEGMENT))).await;
    let connector = WebSocketConnector::new(server.endpoint()).unwrap();
    let run = transcribe(&connector, &server.tokens(), Settings::new(16_000).with_seed(0), &[]).await;
    assert_whole(&run, 0);
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_token_is_told_as_such() {
    let server = Server::start(Arc::new(DigestRecognizer::new(SEGMENT))).await;
    let connector = WebSocketConnector::new(server.endpoint()).unwrap();
    let wrong = TokenProvider::service(&"not-a-token".to_owned().into()).unwrap();
    let run = transcribe(&connector, &wrong, Settings::new(16_000).with_seed(0), &audio(1)).await;
    assert!(matches!(run.result, Err(SessionError::Authentication { .. })), "{:?}", run.result);
    server.stop().await;
}

#[tokio::test]
async fn a_token_refused_at_the_door_is_replaced() {
    let server = Server::start(Arc::new(DigestRecognizer::new(SEGMENT))).await;
    // An earlier run left a token that the gateway no longer knows.
    let vault = Vault::new(server.vault.path(), &server.endpoint(), &server.credentials.client_id);
    let revoked = TokenSet {
        access: "revoked".to_owned().into(),
        refresh: None,
        granted: SystemClock::new().moment(),
        lifetime: Duration::from_secs(3600),
        scope: None,
    };
    let mut locked = vault.lock().await.unwrap();
    locked.account.tokens = Some(revoked);
    drop(locked.save().await.unwrap());
    let connector = WebSocketConnector::new(server.endpoint()).unwrap();
    let pcm = audio(1);
    let run = transcribe(&connector, &server.tokens(), Settings::new(16_000).with_seed(0), &pcm).await;
    assert_whole(&run, pcm.len() as u64);
    assert_eq!(run.result.unwrap().token_refusals, 1);
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_that_ends_without_an_answer_may_be_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connector = WebSocketConnector::new(endpoint(listener.local_addr().unwrap())).unwrap();
    let token = TokenProvider::service(&"token".to_owned().into()).unwrap().token().await.unwrap();
    let hanging_up = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        // Read the whole request, so that the close ends the stream instead of resetting it.
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            socket.read_buf(&mut request).await.unwrap();
        }
    };
    let (answer, ()) = tokio::join!(connector.connect(&token, None), hanging_up);
    assert_eq!(answer.err().map(|failure| failure.recovery), Some(Recovery::Retry));
}

#[tokio::test]
async fn a_timeline_that_starts_at_its_end_is_refused() {
    let server = Server::start(Arc::new(DigestRecognizer::new(SEGMENT))).await;
    let connector = WebSocketConnector::new(server.endpoint()).unwrap();
    let token = server.tokens().token().await.unwrap();
    let mut wire = connector.connect(&token, None).await.unwrap().into_wire();
    wire.send(Message::text(format!(r#"{{"type":"start","sample_rate":16000,"origin":{}}}"#, u64::MAX)));
    let code = loop {
        if let Message::Close(frame) = wire.next().await.unwrap().unwrap() {
            break frame.unwrap().code;
        }
    };
    assert_eq!(code, close::PROTOCOL);
    server.stop().await;
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_told_soon() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let connector = WebSocketConnector::new(endpoint(free)).unwrap();
    let tokens = TokenProvider::service(&"token".to_owned().into()).unwrap();
    let mut settings = Settings::new(16_000).with_seed(0);
    settings.timeouts.first_contact = Duration::from_millis(300);
    let run = transcribe(&connector, &tokens, settings, &audio(1)).await;
    let Err(SessionError::Unreachable { reason, .. }) = run.result else { panic!("{:?}", run.result) };
    assert!(reason.contains(&free.to_string()), "{reason}");
}

#[tokio::test]
async fn a_language_nobody_knows_is_refused_by_name() {
    let whisper = Whisper::load(&models_dir().join("whisper-base")).expect("the model is there");
    let server = Server::start(Arc::new(whisper)).await;
    let connector = WebSocketConnector::new(server.endpoint()).unwrap();
    let mut settings = Settings::new(16_000).with_seed(0);
    settings.request.language = Some("xx".to_owned());
    let run = transcribe(&connector, &server.tokens(), settings, &audio(1)).await;
    let Err(SessionError::Unsupported { reason, .. }) = run.result else { panic!("{:?}", run.result) };
    assert!(reason.contains("xx"), "{reason}");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_closes_is_answered_at_once() {
    let options = Options { max_sessions: 1, ..Options::default() };
    let server =
        Server::with(Arc::new(DigestRecognizer::new(SEGMENT)), Setup { options, ..Setup::default() }).await;
    let connector = WebSocketConnector::new(server.endpoint()).unwrap();
    let token = server.tokens().token().await.unwrap();
    // Each client takes the only session slot, and frees it by closing with 1000 (the rest is not wanted).
    for _ in 0..3 {
        let mut wire = connector.connect(&token, None).await.unwrap().into_wire();
        wire.send(Message::text(r#"{"type":"start","sample_rate":16000}"#));
        let Message::Text(ready) = wire.next().await.unwrap().unwrap() else { panic!("no ready") };
        assert!(ready.contains(r#""type":"ready""#), "{ready}");
        wire.close(close::NORMAL, "").await.unwrap();
    }
    server.stop().await;
}
