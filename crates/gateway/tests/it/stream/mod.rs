//! The gateway's end of the stream protocol, tested with the documented messages in JSON and bytes, without
//! our client. The recogniser writes digests, so that a final result proves which samples it covers.

mod replay;

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use voxline::auth::AccessToken;
use voxline::transport::Message;
use voxline_gateway::Options;
use voxline_gateway::authority::Terms;
use voxline_testing::DigestRecognizer;

use voxline_fixtures::gateway::http::{http_client, url};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::socket::{CHUNK, Said, Segment, Socket};
use voxline_fixtures::gateway::tokens::{bearer, foreign, minted};

/// Number of frames in half a second.
const SEGMENT: u64 = 8_000;

/// Returns audio in which every half second differs.
pub(crate) fn audio(frames: u64) -> Vec<i16> {
    (0..frames).map(|frame| ((frame * frame / 7 + frame) as u16).cast_signed()).collect()
}

pub(crate) fn digest(samples: &[i16]) -> String {
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn index(position: u64) -> usize {
    usize::try_from(position).unwrap()
}

async fn server(options: Options) -> (Server, Arc<DigestRecognizer>) {
    serving(Setup { options, ..Setup::default() }).await
}

async fn serving(setup: Setup) -> (Server, Arc<DigestRecognizer>) {
    let recognizer = Arc::new(DigestRecognizer::new(index(SEGMENT)));
    (Server::with(recognizer.clone(), setup).await, recognizer)
}

/// Checks that every segment has the digest of the samples it covers, and that together they cover exactly
/// `covered`.
fn assert_covers(finals: &[Segment], pcm: &[i16], covered: &[(u64, u64)]) {
    for Segment { start, end, text } in finals {
        assert_eq!(*text, digest(&pcm[index(*start)..index(*end)]), "{start}..{end}");
    }
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &Segment { start, end, .. } in finals {
        match ranges.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => ranges.push((start, end)),
        }
    }
    assert_eq!(ranges, covered);
}

async fn token(server: &Server) -> AccessToken {
    server.tokens().token().await.unwrap()
}

#[tokio::test]
async fn what_a_gap_leaves_is_heard_and_nothing_else() {
    let (server, recognizer) = server(Options::default()).await;
    let (mut socket, _) = Socket::start(&server, &token(&server).await).await;
    let pcm = audio(90_000);
    socket.audio(&pcm, 0, 20_000);
    // Audio that the server has already is not part of a gap, wherever the client begins it.
    socket.gap(15_000, 50_000);
    socket.acknowledged(50_000).await;
    socket.audio(&pcm, 50_000, 70_000);
    // A repeated gap, and two adjacent ones.
    socket.gap(20_000, 50_000);
    socket.gap(70_000, 75_000);
    socket.gap(75_000, 80_000);
    socket.acknowledged(80_000).await;
    // The recogniser receives the gap too.
    while socket.final_ < 80_000 {
        socket.hear("ack").await;
    }
    socket.audio(&pcm, 80_000, 90_000);
    let finals = socket.end(90_000).await;
    assert_covers(&finals, &pcm, &[(0, 20_000), (50_000, 70_000), (80_000, 90_000)]);
    let heard = [&pcm[..20_000], &pcm[50_000..70_000], &pcm[80_000..]];
    let recordings = recognizer.recordings();
    assert!(recordings.iter().filter(|heard| !heard.is_empty()).eq(heard.iter()), "other samples were heard");
    server.stop().await;
}

#[tokio::test]
async fn a_session_may_begin_and_end_with_a_gap() {
    let (server, _) = server(Options::default()).await;
    let (mut socket, _) = Socket::start(&server, &token(&server).await).await;
    let pcm = audio(30_000);
    socket.gap(0, 10_000);
    socket.acknowledged(10_000).await;
    socket.audio(&pcm, 10_000, 20_000);
    // Longer than the backlog that may wait for the recogniser.
    let end = 100_000_000_000;
    socket.gap(20_000, end);
    socket.acknowledged(end).await;
    assert_covers(&socket.end(end).await, &pcm, &[(10_000, 20_000)]);

    let (mut socket, _) = Socket::start(&server, &token(&server).await).await;
    socket.gap(0, 5);
    assert_eq!(socket.end(5).await, []);
    server.stop().await;
}

#[tokio::test]
async fn a_gap_leaves_no_frame_over_at_another_rate() {
    let (server, _) = server(Options::default()).await;
    let mut socket = Socket::dial(&server, &token(&server).await).await;
    socket.say(&json!({ "type": "start", "sample_rate": 44_100, "origin": 7 }));
    socket.hear("ready").await;
    let pcm = audio(200_000);
    socket.audio(&pcm, 7, 50_001);
    socket.gap(50_001, 100_003);
    socket.acknowledged(100_003).await;
    socket.audio(&pcm, 100_003, 199_999);
    let finals = socket.end(199_999).await;
    let mut at = 7;
    for segment in &finals {
        assert!(segment.start == at || (at, segment.start) == (50_001, 100_003), "{segment:?} after {at}");
        at = segment.end;
    }
    assert!(at == 199_999 && finals.iter().any(|segment| segment.start == 100_003), "{finals:?}");
    server.stop().await;
}

#[tokio::test]
async fn gaps_that_break_the_protocol_are_refused() {
    let (server, _) = server(Options::default()).await;
    let token = token(&server).await;
    let pcm = audio(100);
    for (from, to) in [(101, 200), (u64::MAX, u64::MAX), (100, u64::MAX), (0, u64::MAX), (101, 0), (100, 99)]
    {
        let (mut socket, _) = Socket::start(&server, &token).await;
        socket.audio(&pcm, 0, 100);
        socket.gap(from, to);
        let (code, reason, error) = socket.closed().await;
        assert_eq!((code, &error.unwrap()["code"]), (4400, &json!(4400)), "{from}..{to}: {reason}");
    }
    // Nothing may follow the end, but a message from before it may be repeated.
    let (mut socket, _) = Socket::start(&server, &token).await;
    socket.gap(0, 100);
    socket.finish(100);
    socket.gap(50, 100);
    socket.hear("done").await;
    socket.gap(100, 101);
    assert_eq!(socket.closed().await.0, 4400);
    drop(socket);
    server.stop().await;
}

#[tokio::test]
async fn a_socket_outlives_its_tokens_when_they_are_renewed_in_band() {
    let lifetime = Duration::from_secs(6);
    let (server, recognizer) = serving(Setup { token_lifetime: lifetime, ..Setup::default() }).await;
    let tokens = server.tokens();
    let mut token = tokens.token().await.unwrap();
    let (mut socket, ready) = Socket::start(&server, &token).await;
    assert_eq!(ready["auth"], true);
    let pcm = audio(5 * CHUNK);
    // Each wait is half a token's lifetime, so that the last is long after the expiry of the first.
    for round in 0..4 {
        socket.audio(&pcm, round * CHUNK, (round + 1) * CHUNK);
        socket.acknowledged((round + 1) * CHUNK).await;
        let quiet = timeout(lifetime / 2, async {
            // A final result may come, and its acknowledgement, but no message about the token.
            loop {
                match socket.next().await {
                    Said::Message(message) if message["type"] == "ack" || message["type"] == "final" => {}
                    Said::Message(message) => return message.to_string(),
                    Said::Close(code, reason) => return format!("close {code} {reason}"),
                }
            }
        });
        assert_eq!(quiet.await.ok(), None);
        token = tokens.newer_than(token.generation()).await.unwrap();
        socket.auth(token.expose());
        let left = socket.hear("auth_ok").await["token_expires_in_ms"].as_u64().unwrap();
        assert!((1..=6_000).contains(&left), "{left}");
    }
    socket.audio(&pcm, 4 * CHUNK, 5 * CHUNK);
    assert_covers(&socket.end(5 * CHUNK).await, &pcm, &[(0, 5 * CHUNK)]);
    assert_eq!(recognizer.recordings(), [pcm]);
    server.stop().await;
}

#[tokio::test]
async fn a_token_without_an_end_ends_nothing() {
    let lifetime = Duration::from_secs(4);
    let (server, _) = serving(Setup { token_lifetime: lifetime, ..Setup::default() }).await;
    let (mut socket, _) = Socket::start(&server, &token(&server).await).await;
    let service = server.gateway.authority().create_service_token("test", Terms::default()).unwrap();
    socket.auth(service.token.expose_secret());
    assert_eq!(socket.hear("auth_ok").await, json!({ "type": "auth_ok" }));
    let silence = timeout(lifetime * 3 / 2, socket.next()).await;
    assert!(silence.is_err(), "the old token still counts");
    socket.end(0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_token_in_band_costs_the_socket_and_not_the_session() {
    let (server, _) = server(Options::default()).await;
    let token = token(&server).await;
    let pcm = audio(20_000);
    let wrong = [foreign(&server), "no-token".to_owned().into(), String::new().into()];
    for wrong in &wrong {
        let (mut socket, ready) = Socket::start(&server, &token).await;
        socket.audio(&pcm, 0, 10_000);
        socket.acknowledged(10_000).await;
        socket.auth(wrong.expose_secret());
        let (code, reason, error) = socket.closed().await;
        let error = error.unwrap();
        assert_eq!((code, &error["code"]), (4401, &json!(4048)));
        let secret = wrong.expose_secret();
        assert!(secret.is_empty() || !format!("{reason} {error}").contains(secret), "{reason} {error}");

        let (mut socket, ready) = Socket::resume(&server, &token, &ready, 0).await;
        assert_eq!(ready["received"], 10_000);
        socket.audio(&pcm, 10_000, 20_000);
        assert_covers(&socket.end(20_000).await, &pcm, &[(0, 20_000)]);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_gateway_that_takes_no_tokens_in_band_says_so() {
    let (server, _) = server(Options { in_band_auth: false, ..Options::default() }).await;
    let (mut socket, ready) = Socket::start(&server, &token(&server).await).await;
    assert_eq!(ready["auth"], false);
    socket.auth(minted(&server).expose_secret());
    assert_eq!(socket.closed().await.0, 4400);
    drop(socket);
    server.stop().await;
}

#[tokio::test]
async fn the_end_of_a_token_is_told_before_it_comes() {
    let lifetime = Duration::from_secs(4);
    let (server, _) = serving(Setup { token_lifetime: lifetime, ..Setup::default() }).await;
    let (mut socket, ready) = Socket::start(&server, &bearer(&minted(&server))).await;
    assert!((1..=4_000).contains(&ready["token_expires_in_ms"].as_u64().unwrap()), "{ready}");
    for round in 0..2 {
        let goaway = socket.hear("goaway").await;
        assert_eq!(goaway["reason"], "token");
        assert!(goaway["deadline_ms"].as_u64().unwrap() <= 400, "{goaway}");
        let next = match socket.next().await {
            Said::Message(message) => message,
            Said::Close(code, reason) => panic!("{code} {reason}"),
        };
        assert_eq!((&next["type"], &next["code"]), (&json!("error"), &json!(4048)), "round {round}");
        assert_eq!(socket.closed().await.0, 4401);
        // The expiry of each token is announced once, also that of the next socket's token.
        (socket, _) = Socket::resume(&server, &bearer(&minted(&server)), &ready, 0).await;
    }
    socket.end(0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_gateway_that_stops_tells_and_lets_sessions_end() {
    let (server, _) = server(Options::default()).await;
    let drain = Options::default().drain;
    let token = token(&server).await;
    let (mut socket, _) = Socket::start(&server, &token).await;
    let pcm = audio(20_000);
    socket.audio(&pcm, 0, 10_000);
    socket.acknowledged(10_000).await;
    let ending = async {
        let goaway = socket.hear("goaway").await;
        assert_eq!(goaway["reason"], "drain");
        let left = Duration::from_millis(goaway["deadline_ms"].as_u64().unwrap());
        assert!(left <= drain && left > drain / 2, "{left:?}");
        socket.audio(&pcm, 10_000, 20_000);
        assert_covers(&socket.end(20_000).await, &pcm, &[(0, 20_000)]);
    };
    tokio::join!(server.stop(), ending);
}

#[tokio::test]
async fn sessions_that_do_not_end_are_cut_when_the_gateway_stops() {
    let (server, _) = server(Options { drain: Duration::from_millis(200), ..Options::default() }).await;
    let (mut socket, _) = Socket::start(&server, &token(&server).await).await;
    let watching = async {
        assert_eq!(socket.hear("goaway").await["reason"], "drain");
        assert_eq!(socket.closed().await.0, 1001);
    };
    tokio::join!(server.stop(), watching);
}

#[tokio::test]
async fn a_session_moves_while_its_old_socket_still_sends() {
    let (server, recognizer) = server(Options::default()).await;
    let token = token(&server).await;
    let pcm = audio(20 * 16_000);
    let end = pcm.len() as u64;
    let (mut socket, ready) = Socket::start(&server, &token).await;
    let mut moved_at = vec![0];
    for _ in 0..5 {
        // One piece for each answer until the session has moved, and ten pieces ahead of the answers.
        let sending = async {
            let mut at = *moved_at.last().unwrap();
            let mut more = |socket: &mut Socket| {
                let next = (at + 100).min(end);
                socket.audio(&pcm, at, next);
                at = next;
            };
            for _ in 0..10 {
                more(&mut socket);
            }
            loop {
                match socket.next().await {
                    Said::Message(message) => assert_ne!(message["type"], "error"),
                    Said::Close(code, _) => return code,
                }
                more(&mut socket);
            }
        };
        let (code, (new, taken)) = tokio::join!(sending, Socket::resume(&server, &token, &ready, 0));
        assert_eq!(code, 4409);
        moved_at.push(taken["received"].as_u64().unwrap());
        socket = new;
    }
    let from = *moved_at.last().unwrap();
    assert!(from > 0 && from < end, "the old socket should have sent some, not all: {moved_at:?}");
    socket.audio(&pcm, from, end);
    assert_covers(&socket.end(end).await, &pcm, &[(0, end)]);
    assert_eq!(recognizer.recordings(), [pcm]);
    server.stop().await;
}

#[tokio::test]
async fn a_resumed_session_says_what_the_client_has_not_heard() {
    let (server, _) = server(Options::default()).await;
    let token = token(&server).await;
    let pcm = audio(40_000);
    let (mut old, ready) = Socket::start(&server, &token).await;
    old.audio(&pcm, 0, 20_000);
    old.gap(20_000, 30_000);
    while old.finals.len() < 3 {
        old.hear("final").await;
    }
    let (mut new, resumed) = Socket::resume(&server, &token, &ready, 1).await;
    let stands = ["received", "final", "finals"].map(|field| resumed[field].as_u64().unwrap());
    assert_eq!(stands, [30_000, 30_000, 3]);
    new.audio(&pcm, 30_000, 40_000);
    let finals = new.end(40_000).await;
    assert_eq!(finals[..2], old.finals[1..]);
    assert_covers(&finals, &pcm, &[(SEGMENT, 20_000), (30_000, 40_000)]);

    let (_, ready) = Socket::start(&server, &token).await;
    let mut greedy = Socket::dial(&server, &token).await;
    greedy.say(&json!({
        "type": "resume", "session": ready["session"], "resume_key": ready["resume_key"], "finals_seen": 1,
    }));
    assert_eq!(greedy.closed().await.0, 4400);
    drop(greedy);
    server.stop().await;
}

#[tokio::test]
async fn an_old_socket_changes_nothing_any_more() {
    let (server, recognizer) = server(Options::default()).await;
    let token = token(&server).await;
    let pcm = audio(40_000);
    let other = vec![0x5555; 40_000];
    for what in ["audio", "gap", "finish", "flush", "auth", "nonsense", "oversize", "normal", "leave", "drop"]
    {
        let (mut old, ready) = Socket::start(&server, &token).await;
        old.audio(&pcm, 0, 10_000);
        old.acknowledged(10_000).await;
        let (mut new, resumed) = Socket::resume(&server, &token, &ready, 0).await;
        assert_eq!(resumed["received"], 10_000);
        match what {
            "audio" => old.audio(&other, 10_000, 20_000),
            "gap" => old.gap(10_000, 20_000),
            "finish" => old.finish(10_000),
            "flush" => old.say(&json!({ "type": "flush" })),
            "auth" => old.auth("wrong"),
            "nonsense" => old.say(&json!({ "type": "nonsense" })),
            "oversize" => old.frame(10_000, &vec![0; 100_000]),
            _ => {}
        }
        match what {
            // The old socket may go in any way, whether or not it has been told to.
            "normal" => old.wire.close(1000, "").await.unwrap(),
            "leave" => old.wire.close(1001, "").await.unwrap(),
            "drop" => drop(old),
            _ => assert_eq!(old.closed().await.0, 4409, "{what}"),
        }
        new.audio(&pcm, 10_000, 40_000);
        let finals = new.end(40_000).await;
        assert_covers(&finals, &pcm, &[(0, 40_000)]);
        // No flush and no gap was made in between.
        assert_eq!(finals.len(), 5, "{what}");
    }
    assert!(recognizer.recordings().iter().all(|heard| *heard == pcm));
    server.stop().await;
}

#[tokio::test]
async fn frames_of_one_sample_are_heard_like_any_others() {
    let (server, recognizer) = server(Options::default()).await;
    let (mut socket, _) = Socket::start(&server, &token(&server).await).await;
    let pcm = audio(10_000);
    for (at, sample) in (0..).zip(&pcm) {
        socket.frame(at, std::slice::from_ref(sample));
    }
    socket.acknowledged(10_000).await;
    assert_covers(&socket.end(10_000).await, &pcm, &[(0, 10_000)]);
    assert_eq!(recognizer.recordings(), [pcm]);
    server.stop().await;
}

#[tokio::test]
async fn audio_is_acknowledged_four_times_a_second_at_least() {
    let (server, _) = server(Options::default()).await;
    let (mut socket, _) = Socket::start(&server, &token(&server).await).await;
    let pcm = audio(20 * CHUNK);
    socket.audio(&pcm, 0, 20 * CHUNK);
    let mut before = 0;
    while before < 20 * CHUNK {
        socket.hear("ack").await;
        assert!(socket.received - before <= 4_000, "from {before} to {}", socket.received);
        before = socket.received;
    }
    socket.end(20 * CHUNK).await;
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_control_messages_costs_the_socket() {
    let (server, _) = server(Options::default()).await;
    let token = token(&server).await;
    let (mut socket, ready) = Socket::start(&server, &token).await;
    let pcm = audio(10_000);
    socket.audio(&pcm, 0, 10_000);
    // The messages that a delayed client may have to send are accepted.
    for _ in 0..900 {
        socket.say(&json!({ "type": "flush" }));
    }
    socket.gap(10_000, 20_000);
    socket.acknowledged(20_000).await;
    for _ in 0..3_000 {
        socket.gap(20_000, 20_000);
    }
    let (code, reason, error) = socket.closed().await;
    assert_eq!((code, &error.unwrap()["code"]), (4429, &json!(4429)));
    assert!(reason.contains("50 control messages a second"), "{reason}");
    // Pings are control messages too.
    let mut socket = resumed_later(&server, &token, &ready).await;
    assert_eq!(socket.received, 20_000);
    for _ in 0..3_000 {
        socket.wire.send(Message::Ping(bytes::Bytes::new()));
    }
    assert_eq!(socket.closed().await.0, 4429);
    assert_covers(&ended_later(&server, &token, &ready, 20_000).await, &pcm, &[(0, 10_000)]);
    server.stop().await;
}

/// Opens a socket that takes over a session whose allowance was used up, as soon as enough of it is
/// restored.
async fn resumed_later(server: &Server, token: &AccessToken, ready: &Value) -> Socket {
    let resuming = async {
        loop {
            let mut socket = Socket::resuming(server, token, ready, 0).await;
            loop {
                match socket.next().await {
                    Said::Message(message) if message["type"] == "ready" => return socket,
                    Said::Message(_) => {}
                    Said::Close(code, reason) => {
                        assert_eq!(code, 4429, "{reason}");
                        break;
                    }
                }
            }
        }
    };
    timeout(Duration::from_secs(30), resuming).await.expect("the allowance comes back")
}

/// Ends a session whose allowance was used up, as soon as enough of it is restored. Returns its final
/// results.
async fn ended_later(server: &Server, token: &AccessToken, ready: &Value, through: u64) -> Vec<Segment> {
    let ending = async {
        loop {
            let mut socket = Socket::resuming(server, token, ready, 0).await;
            socket.finish(through);
            loop {
                match socket.next().await {
                    Said::Message(message) if message["type"] == "done" => return socket.finals,
                    Said::Message(_) => {}
                    Said::Close(code, reason) => {
                        assert_eq!(code, 4429, "{reason}");
                        break;
                    }
                }
            }
        }
    };
    timeout(Duration::from_secs(30), ending).await.expect("the allowance comes back")
}

#[tokio::test]
async fn a_client_that_was_cut_for_a_flood_does_not_resume_at_once() {
    let (server, _) = server(Options::default()).await;
    let token = token(&server).await;
    let (mut socket, ready) = Socket::start(&server, &token).await;
    // The attempt must come within a second. A busy machine may be too slow for that, and tries again.
    let mut refused = false;
    for _ in 0..20 {
        for _ in 0..3_000 {
            socket.say(&json!({ "type": "flush" }));
        }
        assert_eq!(socket.closed().await.0, 4429);
        socket = Socket::resuming(&server, &token, &ready, 0).await;
        let Said::Message(answer) = socket.next().await else { panic!("an error comes before the close") };
        refused = answer["type"] == "error";
        if refused {
            assert_eq!(socket.closed().await.0, 4429);
            break;
        }
    }
    assert!(refused, "attempts to resume cost nothing");
    assert_eq!(ended_later(&server, &token, &ready, 0).await, []);
    server.stop().await;
}

#[tokio::test]
async fn another_socket_brings_no_other_allowance() {
    let (server, _) = server(Options::default()).await;
    let token = token(&server).await;
    let (mut socket, ready) = Socket::start(&server, &token).await;
    // All of this takes less than the fifteen seconds in which so many messages are forgiven.
    for resumed in 0.. {
        assert!(resumed < 10, "{} messages and no end", resumed * 250);
        for _ in 0..250 {
            socket.say(&json!({ "type": "flush" }));
        }
        socket.wire.send(Message::Ping(bytes::Bytes::from_static(b"last")));
        if !socket.answers_ping(b"last").await {
            assert!(resumed >= 3, "cut after {} messages", resumed * 250);
            break;
        }
        socket = Socket::resuming(&server, &token, &ready, 0).await;
    }
    assert_eq!(ended_later(&server, &token, &ready, 0).await, []);
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_token_in_band_counts_against_the_address() {
    let (server, _) = server(Options { max_failures: 2, ..Options::default() }).await;
    let token = token(&server).await;
    let (mut first, ready) = Socket::start(&server, &token).await;
    first.auth("wrong");
    assert_eq!(first.closed().await.0, 4401);
    let (mut second, _) = Socket::resume(&server, &token, &ready, 0).await;
    second.auth("wrong");
    assert_eq!(second.closed().await.0, 4401);
    let asked = http_client().unwrap().get(url(&server, "/tts")).bearer_auth(minted(&server).expose_secret());
    assert_eq!(asked.send().await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    server.stop().await;
}

#[tokio::test]
async fn the_first_guess_at_a_segment_is_told_whatever_its_revision() {
    let (server, _) = server(Options::default()).await;
    let mut socket = Socket::dial(&server, &token(&server).await).await;
    socket.say(&json!({ "type": "start", "sample_rate": 16_000, "partials": true }));
    socket.hear("ready").await;
    let pcm = audio(2 * SEGMENT);
    // One partial result for each of the two segments, and so with the same revision.
    for (segment, start, end) in [(0, 0, SEGMENT / 2), (1, SEGMENT / 2, SEGMENT + SEGMENT / 2)] {
        socket.frame(start, &pcm[index(start)..index(end)]);
        let partial = socket.hear("partial").await;
        assert_eq!([&partial["segment"], &partial["revision"]], [&json!(segment), &json!(0)], "{partial}");
        let text = digest(&pcm[index(segment * SEGMENT)..index(end)]);
        assert_eq!(partial["text"], text);
    }
    socket.end(SEGMENT + SEGMENT / 2).await;
    server.stop().await;
}

#[tokio::test]
async fn an_end_that_is_not_where_the_audio_ends_is_refused() {
    let (server, _) = server(Options::default()).await;
    let token = token(&server).await;
    for through in [0, 99, 101, u64::MAX] {
        let (mut socket, _) = Socket::start(&server, &token).await;
        socket.audio(&audio(100), 0, 100);
        socket.finish(through);
        let (code, reason, error) = socket.closed().await;
        assert_eq!((code, &error.unwrap()["code"]), (4400, &json!(4400)), "{through}: {reason}");
    }
    server.stop().await;
}
