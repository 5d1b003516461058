//! The gateway, held against docs/protocol.md by a client written from that document alone. Each test has the
//! number of its rule.

mod client;
mod schema;
mod traffic;

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::time::timeout;
use voxline::engine::{self, EngineError, Guess, Recognizer, RecognizerStream, StreamOptions};
use voxline::gateway::Options;
use voxline::gateway::authority::{Scope, Terms};
use voxline::testing::DigestRecognizer;

use self::client::{Client, PATH, PROTOCOL, Said, bearer, request};
use crate::support::server::{Server, Setup};

/// Half a second, the length of the recogniser's segments.
const SEGMENT: u64 = 8_000;

struct Gateway {
    server: Server,
    token: String,
}

async fn gateway() -> Gateway {
    with(Setup::default()).await
}

async fn with(setup: Setup) -> Gateway {
    let server = Server::with(Arc::new(DigestRecognizer::new(8_000)), setup).await;
    let token = minted(&server, "test");
    Gateway { server, token }
}

/// A token of a client of the server, or of another project of this name.
fn minted(server: &Server, project: &str) -> String {
    let authority = server.gateway.authority();
    let (id, secret) = if project == "test" {
        (server.credentials.client_id.clone(), server.credentials.client_secret.clone())
    } else {
        let client = authority.create_project(project).unwrap();
        (client.client_id, client.client_secret)
    };
    authority.client_credentials(&id, &secret).unwrap().access_token.expose_secret().to_owned()
}

impl Gateway {
    async fn start(&self, more: Value) -> (Client, Value) {
        Client::start(self.server.address, &self.token, more).await
    }

    /// A session with some audio, in which something is about to be broken.
    async fn started(&self) -> Client {
        let (mut client, _) = self.start(json!({})).await;
        client.audio(0, &samples(0, 100)).await;
        client.acknowledged(100).await;
        client
    }

    async fn dial(&self) -> Client {
        Client::dial(self.server.address, &self.token).await
    }

    async fn refusal(&self, path: &str, more: &[String]) -> (u16, String) {
        let (answer, _) = Client::ask(self.server.address, &request(path, more)).await;
        (answer.status, answer.text)
    }
}

/// Audio in which every half second differs.
fn samples(start: u64, end: u64) -> Vec<i16> {
    (start..end).map(|frame| ((frame * frame / 7 + frame) as u16).cast_signed()).collect()
}

fn number(message: &Value, field: &str) -> u64 {
    message[field].as_u64().unwrap_or_else(|| panic!("no {field} in {message}"))
}

fn protocol() -> String {
    PROTOCOL.to_owned()
}

#[tokio::test]
async fn s1_refusals_come_before_the_upgrade() {
    let gateway = gateway().await;
    let Gateway { server, token } = &gateway;
    for headers in [vec![protocol()], vec![protocol(), bearer("wrong")]] {
        let (status, text) = gateway.refusal(PATH, &headers).await;
        assert!(status == 401 && text.contains("4048"), "{text}");
    }
    let authority = server.gateway.authority();
    let terms = Terms { scopes: [Scope::Tts].into_iter().collect(), ..Terms::default() };
    let other = authority.create_service_token("test", terms).unwrap().token;
    let (status, text) = gateway.refusal(PATH, &[protocol(), bearer(other.expose_secret())]).await;
    assert_eq!(status, 403, "{text}");
    let wrong = "Sec-WebSocket-Protocol: voxline.asr.v2".to_owned();
    assert_eq!(gateway.refusal(PATH, &[bearer(token), wrong]).await.0, 400);
    assert_eq!(gateway.refusal(PATH, &[bearer(token)]).await.0, 400);
    for (from, to) in [("Upgrade: websocket", "Upgrade: h2c"), ("Version: 13", "Version: 12")] {
        let usual = request(PATH, &[bearer(token), protocol()]);
        let (answer, _) = Client::ask(server.address, &usual.replace(from, to)).await;
        assert_eq!(answer.status, 426, "{}", answer.text);
    }
    gateway.server.stop().await;

    let full =
        with(Setup { options: Options { max_sessions: 1, ..Options::default() }, ..Setup::default() }).await;
    let (client, _) = full.start(json!({})).await;
    let (status, text) = full.refusal(PATH, &[bearer(&full.token), protocol()]).await;
    assert!(status == 429 && text.contains("retry-after: "), "{text}");
    drop(client);
    full.server.stop().await;
}

#[tokio::test]
async fn s2_s3_a_browser_shows_its_token_as_a_subprotocol_that_is_not_answered() {
    let gateway = gateway().await;
    let offered = format!("{PROTOCOL}, voxline.bearer.{}", gateway.token);
    let extension = "Sec-WebSocket-Extensions: permessage-deflate".to_owned();
    let (answer, _) = Client::ask(gateway.server.address, &request(PATH, &[offered, extension])).await;
    assert_eq!(answer.status, 101, "{}", answer.text);
    assert!(answer.text.contains("sec-websocket-protocol: voxline.asr.v1\r\n"), "{}", answer.text);
    assert!(!answer.text.contains("sec-websocket-extensions"), "{}", answer.text);
    gateway.server.stop().await;
}

#[tokio::test]
async fn s4_a_start_may_follow_the_name_of_a_session() {
    let gateway = gateway().await;
    let path = format!("{PATH}?session=gone");
    let mut client = Client::dial_at(gateway.server.address, &path, &gateway.token).await;
    client.say(json!({ "type": "start", "sample_rate": 16_000 })).await;
    client.hear("ready").await;
    client.close(1000).await;
    gateway.server.stop().await;
}

#[tokio::test]
async fn s5_unknown_fields_and_messages_are_ignored_and_null_is_absent() {
    let gateway = gateway().await;
    let mut client = gateway.dial().await;
    client.say_anything(r#"{"type":"weather","sky":{"blue":[1]}}"#).await;
    client
        .say_anything(
            r#"{"type":"start","sample_rate":16000,"language":null,"partials":null,"latency":"someday","origin":null,
                "context":null,"mood":"good"}"#,
        )
        .await;
    assert_eq!(number(&client.hear("ready").await, "received"), 0);
    client.say_anything(r#"{"type":"weather"}"#).await;
    client.audio(0, &samples(0, 100)).await;
    client.say_anything(r#"{"type":"flush","at":null,"why":1}"#).await;
    client.say(json!({ "type": "finish", "through": 100, "by": "hand" })).await;
    assert_eq!(number(&client.hear("done").await, "frames"), 100);
    client.close(1000).await;
    gateway.server.stop().await;
}

#[tokio::test]
async fn s6_s7_what_is_no_message_is_answered_by_an_error_and_4400() {
    let gateway = gateway().await;
    for text in [
        "",
        "start",
        "[]",
        "{}",
        r#"{"type":7}"#,
        r#"{"type":"start"}"#,
        r#"{"type":"start","sample_rate":"16000"}"#,
        r#"{"type":"start","sample_rate":-1}"#,
        r#"{"type":"start","sample_rate":16000,"partials":"yes"}"#,
        r#"{"type":"resume","session":"a"}"#,
    ] {
        let mut client = gateway.dial().await;
        client.say_anything(text).await;
        assert_eq!(client.closed().await, (4400, Some(4400)), "{text}");
    }
    let mut client = gateway.started().await;
    client.say_anything(r#"{"type":"finish"}"#).await;
    assert_eq!(client.closed().await, (4400, Some(4400)));
    gateway.server.stop().await;
}

#[tokio::test]
async fn s8_the_first_message_opens_a_session_and_no_other_does() {
    let gateway = gateway().await;
    let mut client = gateway.dial().await;
    client.audio(0, &[0]).await;
    assert_eq!(client.closed().await, (4400, Some(4400)), "audio first");
    let mut client = gateway.dial().await;
    client.say(json!({ "type": "flush" })).await;
    assert_eq!(client.closed().await, (4400, Some(4400)), "a flush first");
    let mut client = gateway.started().await;
    client.say(json!({ "type": "start", "sample_rate": 16_000 })).await;
    assert_eq!(client.closed().await, (4400, Some(4400)), "twice");
    gateway.server.stop().await;
}

#[tokio::test]
async fn s8_a_socket_that_opens_nothing_is_closed_after_10_s() {
    let gateway = gateway().await;
    let mut client = gateway.dial().await;
    assert_eq!(client.closed().await, (4400, Some(4400)));
    gateway.server.stop().await;
}

#[tokio::test]
async fn s9_a_rate_or_language_that_is_not_there_is_4415() {
    let gateway = gateway().await;
    for rate in [0, 7_999, 48_001, 4_294_967_295_u64] {
        let mut client = gateway.dial().await;
        client.say_anything(&json!({ "type": "start", "sample_rate": rate }).to_string()).await;
        assert_eq!(client.closed().await, (4415, Some(4415)), "{rate}");
    }
    for rate in [8_000, 48_000] {
        let (mut client, ready) = gateway.start(json!({ "sample_rate": rate })).await;
        // C6: what a client must be able to keep grows with the rate.
        let longest = number(&ready, "max_unfinal_frames");
        assert!(longest >= SEGMENT * rate / 16_000 && longest <= SEGMENT * rate / 16_000 + rate, "{ready}");
        client.close(1000).await;
    }
    gateway.server.stop().await;
}

#[tokio::test]
async fn s10_partials_come_unless_they_are_refused() {
    let gateway = gateway().await;
    for (asked, wanted) in
        [(json!({}), true), (json!({ "partials": true }), true), (json!({ "partials": false }), false)]
    {
        let (mut client, _) = gateway.start(asked).await;
        client.audio(0, &samples(0, 4_000)).await;
        if wanted {
            let partial = client.hear("partial").await;
            assert_eq!((number(&partial, "segment"), number(&partial, "start")), (0, 0));
        }
        client.say(json!({ "type": "finish", "through": 4_000 })).await;
        let heard = client.hear_all("done").await;
        assert!(wanted || heard.iter().all(|message| message["type"] != "partial"), "{heard:?}");
        client.close(1000).await;
    }
    gateway.server.stop().await;
}

#[tokio::test]
async fn s11_the_timeline_starts_at_its_origin() {
    let gateway = gateway().await;
    let farthest = (1_u64 << 62) - 1;
    for origin in [0, 12_345, farthest] {
        let (mut client, ready) = gateway.start(json!({ "origin": origin })).await;
        assert_eq!((number(&ready, "received"), number(&ready, "final")), (origin, origin));
        assert_eq!(number(&ready, "finals"), 0);
        client.close(1000).await;
    }
    let mut client = gateway.dial().await;
    client
        .say_anything(&json!({ "type": "start", "sample_rate": 16_000, "origin": farthest + 1 }).to_string())
        .await;
    assert_eq!(client.closed().await, (4400, Some(4400)));
    gateway.server.stop().await;
}

#[tokio::test]
async fn s12_a_context_has_4096_bytes_at_most() {
    let gateway = gateway().await;
    let (mut client, _) = gateway.start(json!({ "context": "x".repeat(4096) })).await;
    client.close(1000).await;
    let mut client = gateway.dial().await;
    client
        .say_anything(
            &json!({ "type": "start", "sample_rate": 16_000, "context": "x".repeat(4097) }).to_string(),
        )
        .await;
    assert_eq!(client.closed().await, (4400, Some(4400)));
    gateway.server.stop().await;
}

#[tokio::test]
async fn s13_an_unknown_session_a_wrong_key_and_another_project_are_all_4404() {
    let gateway = gateway().await;
    let address = gateway.server.address;
    let (_client, ready) = gateway.start(json!({})).await;
    let mut wrong_key = ready.clone();
    wrong_key["resume_key"] = json!("wrong");
    let mut unknown = ready.clone();
    unknown["session"] = json!("unknown");
    let stranger = minted(&gateway.server, "another");
    for (token, ready) in [(&gateway.token, &wrong_key), (&gateway.token, &unknown), (&stranger, &ready)] {
        let mut client = Client::resume(address, token, ready, 0).await;
        assert_eq!(client.closed().await, (4404, Some(4404)));
    }
    // None of it has touched the session.
    Client::resume(address, &gateway.token, &ready, 0).await.hear("ready").await;
    gateway.server.stop().await;
}

#[tokio::test]
async fn s14_s15_s16_a_resume_moves_the_session_and_brings_the_finals_not_seen() {
    let gateway = gateway().await;
    let address = gateway.server.address;
    let (mut old, ready) = gateway.start(json!({})).await;
    old.audio(0, &samples(0, 3 * SEGMENT)).await;
    for _ in 0..3 {
        old.hear("final").await;
    }
    let mut greedy = Client::resume(address, &gateway.token, &ready, 4).await;
    assert_eq!(greedy.closed().await, (4400, Some(4400)), "finals_seen is a count");
    let mut new = Client::resume(address, &gateway.token, &ready, 1).await;
    let again = new.hear("ready").await;
    assert_eq!((&again["session"], &again["resume_key"]), (&ready["session"], &ready["resume_key"]));
    assert_eq!((number(&again, "received"), number(&again, "finals")), (3 * SEGMENT, 3));
    assert_eq!(number(&new.hear("final").await, "index"), 1);
    assert_eq!(number(&new.hear("final").await, "index"), 2);
    // What the old socket brings is not heard, whatever it is.
    old.audio(3 * SEGMENT, &[1; 100]).await;
    assert_eq!(old.closed().await, (4409, None));
    new.audio(3 * SEGMENT, &samples(3 * SEGMENT, 3 * SEGMENT + 50)).await;
    new.say(json!({ "type": "finish", "through": 3 * SEGMENT + 50 })).await;
    assert_eq!(number(&new.hear("done").await, "finals"), 4);
    new.close(1000).await;
    gateway.server.stop().await;
}

#[tokio::test]
async fn s17_no_more_is_unfinal_than_ready_says() {
    let gateway = gateway().await;
    let (mut client, ready) = gateway.start(json!({})).await;
    let longest = number(&ready, "max_unfinal_frames");
    client.audio(0, &samples(0, longest)).await;
    // Not a frame more is needed.
    client.hear("final").await;
    client.close(1000).await;
    gateway.server.stop().await;
}

#[tokio::test]
async fn s18_audio_is_a_position_and_whole_samples() {
    let gateway = gateway().await;
    for length in [0, 7, 8, 9, 11] {
        let mut client = gateway.started().await;
        client
            .binary(&100_u64.to_le_bytes().into_iter().chain([0; 3]).take(length).collect::<Vec<u8>>())
            .await;
        assert_eq!(client.closed().await, (4400, Some(4400)), "{length} bytes");
    }
    gateway.server.stop().await;
}

#[tokio::test]
async fn s19_max_audio_bytes_counts_the_position() {
    let gateway = gateway().await;
    let (mut client, ready) = gateway.start(json!({})).await;
    let most = number(&ready, "max_audio_bytes");
    let frames = (most - 8) / 2;
    client.audio(0, &samples(0, frames)).await;
    client.acknowledged(frames).await;
    client.audio(frames, &samples(0, frames + 1)).await;
    assert_eq!(client.closed().await, (1009, Some(1009)));
    gateway.server.stop().await;
}

#[tokio::test]
async fn s20_audio_is_idempotent_and_leaves_no_hole() {
    let gateway = gateway().await;
    let mut client = gateway.started().await;
    client.audio(0, &samples(0, 100)).await;
    client.audio(50, &samples(50, 150)).await;
    client.acknowledged(150).await;
    client.audio(151, &samples(151, 200)).await;
    assert_eq!(client.closed().await, (4400, Some(4400)));
    gateway.server.stop().await;
}

/// A recogniser that never says anything, so that all audio stays unfinal.
struct Silent;

impl Recognizer for Silent {
    fn name(&self) -> &str {
        "silent"
    }

    fn start(&self, _: &StreamOptions) -> Result<Box<dyn RecognizerStream>, EngineError> {
        Ok(Box::new(Silent))
    }
}

impl RecognizerStream for Silent {
    fn push(&mut self, _: &[i16]) -> Result<Vec<engine::Segment>, EngineError> {
        Ok(Vec::new())
    }

    fn partial(&mut self) -> Result<Guess, EngineError> {
        Ok(Guess::Nothing)
    }

    fn flush(&mut self) -> Result<Vec<engine::Segment>, EngineError> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn s21_s22_a_gateway_that_is_behind_holds_back_and_audio_beyond_the_window_is_4400() {
    let server = Server::with(Arc::new(Silent), Setup::default()).await;
    let token = minted(&server, "test");
    let (mut client, ready) = Client::start(server.address, &token, json!({ "sample_rate": 8_000 })).await;
    assert!(ready.get("max_unfinal_frames").is_none(), "{ready}");
    let window = number(&ready, "window_frames");
    let second = vec![1; 8_000];
    let (mut sent, mut received) = (0, 0);
    // As long as it acknowledges, it takes more.
    while sent < received + window {
        client.audio(sent, &second).await;
        sent += 8_000;
        // What was said so far; a pong comes behind it.
        client.ping().await;
        loop {
            match client.next("a pong").await {
                Said::Message(message) if message["type"] == "ack" => received = number(&message, "received"),
                Said::Pong => break,
                other => panic!("{other:?} after {sent} frames"),
            }
        }
    }
    assert!(received < sent && sent == received + window, "{received} of {sent}");
    client.audio(sent, &[1]).await;
    assert_eq!(client.closed().await, (4400, Some(4400)));
    server.stop().await;
}

#[tokio::test]
async fn s22_audio_is_acknowledged_by_cursors_that_only_grow() {
    let gateway = gateway().await;
    let (mut client, _) = gateway.start(json!({})).await;
    let mut before = (0, 0);
    for number_of in 1..=20 {
        let end = number_of * 4_000;
        client.audio(end - 4_000, &samples(end - 4_000, end)).await;
        while before.0 < end {
            let ack = client.hear("ack").await;
            let now = (number(&ack, "received"), number(&ack, "final"));
            assert!(now.0 >= before.0 && now.1 >= before.1 && now.1 <= now.0, "{ack} after {before:?}");
            before = now;
        }
    }
    client.close(1000).await;
    gateway.server.stop().await;
}

#[tokio::test]
async fn s23_a_gap_moves_the_timeline_on() {
    let gateway = gateway().await;
    let mut client = gateway.started().await;
    client.say(json!({ "type": "gap", "from": 100, "to": 1_000 })).await;
    client.acknowledged(1_000).await;
    // Said again it is nothing.
    client.say(json!({ "type": "gap", "from": 50, "to": 1_000 })).await;
    client.audio(1_000, &samples(1_000, 1_100)).await;
    client.say(json!({ "type": "finish", "through": 1_100 })).await;
    let heard = client.hear_all("done").await;
    let ranges: Vec<(u64, u64)> = heard
        .iter()
        .filter(|message| message["type"] == "final")
        .map(|message| (number(message, "start"), number(message, "end")))
        .collect();
    assert_eq!(ranges, [(0, 100), (1_000, 1_100)]);
    client.close(1000).await;
    for (from, to) in [(100, 99), (99, 98), (101, 200), (100, 1_u64 << 62)] {
        let mut client = gateway.started().await;
        client.say(json!({ "type": "gap", "from": from, "to": to })).await;
        assert_eq!(client.closed().await, (4400, Some(4400)), "{from}..{to}");
    }
    gateway.server.stop().await;
}

#[tokio::test]
async fn s24_a_flush_ends_the_utterance_unless_audio_lies_behind_it() {
    let gateway = gateway().await;
    let (mut client, _) = gateway.start(json!({})).await;
    client.audio(0, &samples(0, 2_000)).await;
    client.say(json!({ "type": "flush", "at": 1_999 })).await;
    client.audio(2_000, &samples(2_000, 3_000)).await;
    client.say(json!({ "type": "flush", "at": 3_000 })).await;
    let first = client.hear("final").await;
    assert_eq!((number(&first, "start"), number(&first, "end")), (0, 3_000));
    client.audio(3_000, &samples(3_000, 4_000)).await;
    client.say(json!({ "type": "flush" })).await;
    assert_eq!(number(&client.hear("final").await, "end"), 4_000);
    client.close(1000).await;
    gateway.server.stop().await;
}

#[tokio::test]
async fn s25_finish_names_the_end_of_what_was_sent() {
    let gateway = gateway().await;
    for through in [99, 101] {
        let mut client = gateway.started().await;
        client.say(json!({ "type": "finish", "through": through })).await;
        assert_eq!(client.closed().await, (4400, Some(4400)), "{through}");
    }
    let mut client = gateway.started().await;
    client.say(json!({ "type": "finish", "through": 100 })).await;
    client.say(json!({ "type": "finish", "through": 100 })).await;
    // What was sent before may be sent again.
    client.audio(50, &samples(50, 100)).await;
    client.hear("done").await;
    client.audio(100, &[0]).await;
    assert_eq!(client.closed().await, (4400, Some(4400)));
    gateway.server.stop().await;
}

#[tokio::test]
async fn s26_s27_s28_s30_finals_are_contiguous_and_done_counts_them() {
    let gateway = gateway().await;
    let (mut client, _) = gateway.start(json!({ "origin": 70 })).await;
    let end = 70 + 2 * SEGMENT + 500;
    client.audio(70, &samples(70, end)).await;
    client.say(json!({ "type": "finish", "through": end })).await;
    let (mut at, mut index) = (70, 0);
    let mut revision = None;
    for message in client.hear_all("done").await {
        match message["type"].as_str().unwrap() {
            "final" => {
                assert_eq!((number(&message, "index"), number(&message, "start")), (index, at), "{message}");
                (at, index, revision) = (number(&message, "end"), index + 1, None);
            }
            "partial" => {
                assert_eq!(
                    (number(&message, "segment"), number(&message, "start")),
                    (index, at),
                    "{message}"
                );
                let next = number(&message, "revision");
                assert!(revision.replace(next).is_none_or(|before| before < next), "{message}");
            }
            "done" => assert_eq!((number(&message, "frames"), number(&message, "finals")), (end, index)),
            _ => {}
        }
    }
    assert_eq!((at, index), (end, 3));
    client.close(1000).await;
    assert!(matches!(client.next("the answer to the close").await, Said::Close(1000)));
    gateway.server.stop().await;
}

#[tokio::test]
async fn s31_a_session_outlives_its_socket_unless_it_is_given_up() {
    let gateway = gateway().await;
    let address = gateway.server.address;
    for (code, kept) in [(Some(1001), true), (None, true), (Some(1000), false)] {
        let (mut client, ready) = gateway.start(json!({})).await;
        if let Some(code) = code {
            client.close(code).await;
            while !matches!(client.next("the end of the socket").await, Said::End) {}
        }
        drop(client);
        let mut again = Client::resume(address, &gateway.token, &ready, 0).await;
        if kept {
            again.hear("ready").await;
            again.close(1000).await;
        } else {
            assert_eq!(again.closed().await, (4404, Some(4404)));
        }
    }
    gateway.server.stop().await;
}

#[tokio::test]
async fn s32_a_token_is_renewed_in_band_and_a_bad_one_costs_the_socket_alone() {
    let gateway = gateway().await;
    let (mut client, ready) = gateway.start(json!({})).await;
    assert_eq!(ready["auth"], true);
    client.say(json!({ "type": "auth", "access_token": minted(&gateway.server, "test") })).await;
    assert!(number(&client.hear("auth_ok").await, "token_expires_in_ms") > 0);
    let stranger = minted(&gateway.server, "another");
    for bad in ["wrong", &stranger] {
        let mut client = Client::resume(gateway.server.address, &gateway.token, &ready, 0).await;
        client.hear("ready").await;
        client.say(json!({ "type": "auth", "access_token": bad })).await;
        // S7: the one code that differs.
        assert_eq!(client.closed().await, (4401, Some(4048)));
    }
    gateway.server.stop().await;
}

#[tokio::test]
async fn s33_the_end_of_a_token_is_told_and_comes() {
    let lifetime = Duration::from_secs(3);
    let gateway = with(Setup { token_lifetime: lifetime, ..Setup::default() }).await;
    let (mut client, ready) = gateway.start(json!({})).await;
    assert!(number(&ready, "token_expires_in_ms") <= 3_000);
    let goaway = client.hear("goaway").await;
    assert!(goaway["reason"] == "token" && number(&goaway, "deadline_ms") <= 300, "{goaway}");
    assert_eq!(client.closed().await, (4401, Some(4048)));
    gateway.server.stop().await;
}

#[tokio::test]
async fn c14_a_gateway_that_stops_sends_its_sessions_where_it_was_told_to() {
    let there = "http://127.0.0.1:1/b".to_owned();
    for successors in [vec![there.clone()], vec![]] {
        let options = Options { successors: successors.clone(), ..Options::default() };
        let gateway = with(Setup { options, ..Setup::default() }).await;
        let mut client = gateway.started().await;
        gateway.server.begin_stop();
        let goaway = client.hear("goaway").await;
        assert_eq!(goaway["reason"], "drain");
        let restart = goaway.get("restart").is_some_and(|restart| restart == true);
        let endpoints = goaway.get("endpoints").cloned().unwrap_or_else(|| json!([]));
        assert_eq!((restart, endpoints), (!successors.is_empty(), json!(successors)));
        // The session here still runs.
        client.audio(100, &samples(100, 200)).await;
        client.acknowledged(200).await;
        client.close(1000).await;
        gateway.server.stop().await;
    }
}

#[tokio::test]
async fn s34_pings_are_answered() {
    let gateway = gateway().await;
    let (mut client, _) = gateway.start(json!({})).await;
    client.ping().await;
    assert!(matches!(client.next("a pong").await, Said::Pong));
    client.close(1000).await;
    gateway.server.stop().await;
}

/// A second, and the time that a busy machine takes to be asked again and again meanwhile.
const RESUMED: Duration = Duration::from_secs(20);

#[tokio::test]
async fn s35_a_session_goes_on_after_too_many_messages() {
    let gateway = gateway().await;
    let (mut client, ready) = gateway.start(json!({})).await;
    for _ in 0..1_500 {
        client.say_anything(r#"{"type":"flush"}"#).await;
    }
    assert_eq!(client.closed().await, (4429, Some(4429)));
    // It is not lost, once there is an allowance again.
    let resuming = async {
        loop {
            let mut client = Client::resume(gateway.server.address, &gateway.token, &ready, 0).await;
            match client.next("ready").await {
                Said::Message(message) if message["type"] == "ready" => return client,
                _ => assert_eq!(client.closed().await.0, 4429),
            }
        }
    };
    let mut client = timeout(RESUMED, resuming).await.expect("the session may be resumed after a second");
    client.close(1000).await;
    gateway.server.stop().await;
}
