//! Admission, limits and ends of the streams of dialects, which are those of every session.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use voxline_gateway::authority::{Amount, Budget, Scope, Terms};
use voxline_gateway::{ConnectionOptions, Options};
use voxline_testing::{NullRecognizer, digest};

use super::gated::gated;
use super::peer::{PATIENCE, Peer, Said};
use super::{SEGMENT, bytes, digesting, key, limited_key};
use secrecy::ExposeSecret;
use voxline_fixtures::deadline::within;
use voxline_fixtures::gateway::authority::clock;
use voxline_fixtures::gateway::http::{http_client, url};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::tokens::minted;
use voxline_fixtures::gateway::voice::Tone;
use voxline_fixtures::noise;

const LISTEN: &str = "/v1/listen?encoding=linear16&sample_rate=16000";

async fn null(options: Options) -> Server {
    Server::with(Arc::new(NullRecognizer::new(8_000)), Setup { options, ..Setup::default() }).await
}

#[tokio::test]
async fn a_key_comes_in_any_of_deepgrams_forms() {
    let server = null(Options::default()).await;
    let (key, access) = (key(&server), minted(&server));
    for header in
        [format!("Token {key}"), format!("token {key}"), format!("bearer {}", access.expose_secret())]
    {
        let opened = Peer::ask(&server, LISTEN, &[("authorization", &header)]).await;
        assert!(opened.is_ok(), "{header}: {:?}", opened.err());
    }
    for scheme in ["token", "bearer"] {
        let offer = format!("{scheme}, {key}");
        let opened = Peer::ask(&server, LISTEN, &[("sec-websocket-protocol", &offer)]).await.expect(scheme);
        // The token is not repeated.
        assert_eq!(opened.headers["sec-websocket-protocol"], scheme);
    }
    server.stop().await;
}

#[tokio::test]
async fn refusals_before_the_upgrade_are_deepgrams() {
    let server = null(Options { max_sessions: 1, ..Options::default() }).await;
    let good = key(&server);
    let speech =
        limited_key(&server, Terms { scopes: [Scope::Tts].into_iter().collect(), ..Terms::default() });
    let spent = Terms { audio: Budget { total: Some(0), per_day: None }, ..Terms::default() };
    let (spent, path) = (limited_key(&server, spent), "/v1/listen?encoding=linear16");
    let taken = Peer::open(&server, LISTEN, &good).await;
    for (path, key, status, code) in [
        (LISTEN, "wrong", 401, "INVALID_AUTH"),
        (LISTEN, &speech, 403, "INSUFFICIENT_PERMISSIONS"),
        (LISTEN, &spent, 402, "ASR_PAYMENT_REQUIRED"),
        (path, &good, 400, "BAD_REQUEST"),
        (LISTEN, &good, 429, "TOO_MANY_REQUESTS"),
    ] {
        let header = format!("Token {key}");
        let refused = Peer::ask(&server, path, &[("authorization", &header)]).await.err().expect(code);
        assert_eq!(refused.status, status, "{refused:?}");
        let id = refused.headers["dg-request-id"].to_str().unwrap();
        assert_eq!((id.len(), &refused.body["request_id"]), (36, &json!(id)));
        assert_eq!((&refused.body["category"], &refused.body["err_code"]), (&json!(code), &json!(code)));
        assert!(
            refused.body["message"].is_string() && refused.headers.contains_key("dg-error"),
            "{refused:?}"
        );
        assert_eq!(refused.headers.contains_key("retry-after"), status == 429, "{refused:?}");
    }
    // A request for no WebSocket.
    let answer = http_client().unwrap().get(url(&server, LISTEN)).bearer_auth(&good).send().await.unwrap();
    assert_eq!(answer.status(), 426);
    assert_eq!(answer.json::<Value>().await.unwrap()["err_code"], "UPGRADE_REQUIRED");
    drop(taken);
    server.stop().await;
}

#[tokio::test]
async fn a_place_is_free_when_its_stream_has_ended() {
    let server = null(Options { max_sessions: 2, ..Options::default() }).await;
    let one = limited_key(&server, Terms { max_sessions: Some(1), ..Terms::default() });
    for round in 0..4 {
        let mut peer = Peer::open(&server, LISTEN, &one).await;
        let header = format!("Token {one}");
        let refused = Peer::ask(&server, LISTEN, &[("authorization", &header)]).await;
        assert_eq!(refused.err().expect("the token has one session").status, 429, "{round}");
        if round % 2 == 0 {
            peer.say(&json!({ "type": "CloseStream" })).await;
            peer.rest().await;
        } else {
            drop(peer);
            within_reason(&server).await;
        }
    }
    // Two channels are two sessions, and take both places or none.
    let stereo = format!("{LISTEN}&channels=2&multichannel=true");
    let other = key(&server);
    let mono = Peer::open(&server, LISTEN, &other).await;
    let refused = Peer::ask(&server, &stereo, &[("authorization", &format!("Token {other}"))]).await;
    assert_eq!(refused.err().expect("one place is left").status, 429);
    drop(mono);
    within_reason(&server).await;
    drop(Peer::open(&server, &stereo, &other).await);
    within_reason(&server).await;
    server.stop().await;
}

/// Waits until no session is left.
async fn within_reason(server: &Server) {
    let http = http_client().unwrap();
    let gone = async {
        loop {
            let health: Value = http.get(url(server, "/healthz")).send().await.unwrap().json().await.unwrap();
            if health["sessions"] == 0 {
                break;
            }
        }
    };
    tokio::time::timeout(super::peer::PATIENCE, gone).await.expect("sessions end with their clients");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the time that a revocation takes")]
async fn a_revoked_token_ends_the_stream_within_a_second() {
    let server = null(Options::default()).await;
    let authority = server.gateway.authority();
    for path in [LISTEN, "/vosk"] {
        let token = authority.create_service_token("test", Terms::default()).unwrap();
        let mut peer = Peer::open(&server, path, token.token.expose_secret()).await;
        peer.audio(&[0; 3_200]).await;
        // Another token's end is none of its business.
        let other = authority.create_service_token("test", Terms::default()).unwrap();
        authority.revoke_token(&other.id).unwrap();
        let revoked = std::time::Instant::now();
        authority.revoke_token(&token.id).unwrap();
        let (_, close) = peer.rest().await;
        let Said::Close(code, reason) = close else { panic!("{path}: {close:?}") };
        assert_eq!(code, 1008, "{reason}");
        assert!(revoked.elapsed() < Duration::from_secs(1), "{path}: {:?}", revoked.elapsed());
    }
    within_reason(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_token_that_expires_ends_no_stream_but_its_projects_end_does() {
    let clock = clock();
    let setup = Setup { clock: Arc::new(clock.clone()), ..Setup::default() };
    let server = Server::with(Arc::new(NullRecognizer::new(8_000)), setup).await;
    let authority = server.gateway.authority();
    let token = limited_key(&server, Terms { expires_in: Some(60), ..Terms::default() });
    let mut peer = Peer::open(&server, LISTEN, &token).await;
    clock.advance(Duration::from_secs(3_600));
    // The token is looked at again, and is known to have expired.
    let other = authority.create_service_token("test", Terms::default()).unwrap();
    authority.revoke_token(&other.id).unwrap();
    peer.audio(&[0; 32_000]).await;
    assert_eq!(peer.hear("Results").await["duration"], 0.5);
    authority.set_active("test", false).unwrap();
    let (_, close) = peer.rest().await;
    assert!(matches!(close, Said::Close(1008, _)), "{close:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_budget_that_is_used_up_ends_the_stream() {
    let server = null(Options::default()).await;
    let terms = Terms { audio: Budget { total: Some(2), per_day: None }, ..Terms::default() };
    let mut peer = Peer::open(&server, LISTEN, &limited_key(&server, terms)).await;
    peer.audio_in(&[0; 16_000 * 2 * 3], 3_200).await;
    let (messages, close) = peer.rest().await;
    assert!(matches!(&close, Said::Close(1008, _)), "{close:?}");
    let heard: f64 = messages.iter().map(|message| message["duration"].as_f64().unwrap()).sum();
    assert!(heard <= 2.0, "{heard} s of 2 were heard");
    server.stop().await;
}

#[tokio::test]
async fn a_gateway_that_stops_tells_the_text_of_all_that_came() {
    let options = Options { drain: Duration::from_secs(2), ..Options::default() };
    let (server, _) = digesting(options).await;
    let key = key(&server);
    let (mut deepgram, mut vosk) =
        (Peer::open(&server, LISTEN, &key).await, Peer::open(&server, "/vosk", &key).await);
    let pcm = noise(SEGMENT + 1_000);
    deepgram.audio(&bytes(&pcm)).await;
    vosk.say(&json!({ "config": { "sample_rate": 16_000 } })).await;
    vosk.audio(&bytes(&pcm)).await;
    deepgram.hear("Results").await;
    vosk.message().await;
    server.begin_stop();
    let (messages, close) = deepgram.rest().await;
    assert!(matches!(&close, Said::Close(1001, _)), "{close:?}");
    let last = &messages[messages.len() - 2]["channel"]["alternatives"][0]["transcript"];
    assert_eq!(
        (last, &messages.last().unwrap()["type"]),
        (&json!(digest(&pcm[SEGMENT..])), &json!("Metadata"))
    );
    let (replies, close) = vosk.rest().await;
    assert!(matches!(&close, Said::Close(1001, _)), "{close:?}");
    let text = replies.last().unwrap()["text"].as_str().unwrap();
    assert!(text.ends_with(&digest(&pcm[SEGMENT..])), "{text}");
    server.stop().await;
}

#[tokio::test]
async fn a_stream_without_audio_and_signs_of_life_ends() {
    let (recognizer, _, allow) = gated(SEGMENT);
    let server = Server::with(Arc::new(recognizer), Setup::default()).await;
    // This one has said all it has to say, and waits longer than a silent client may.
    let mut waiting = Peer::open(&server, &format!("{LISTEN}&language=de"), &key(&server)).await;
    let pcm = noise(1_000);
    waiting.audio(&bytes(&pcm)).await;
    waiting.say(&json!({ "type": "Finalize" })).await;
    let mut silent = Peer::open(&server, LISTEN, &key(&server)).await;
    let mut alive = Peer::open(&server, LISTEN, &key(&server)).await;
    // Signs of life come in the meantime, the last of them when the silent stream has ended.
    let mut tick = tokio::time::interval(Duration::from_secs(4));
    let close = loop {
        tokio::select! {
            (_, close) = silent.rest() => break close,
            _ = tick.tick() => alive.say(&json!({ "type": "KeepAlive" })).await,
        }
    };
    let Said::Close(code, reason) = close else { panic!("{close:?}") };
    assert_eq!(code, 1011);
    assert!(reason.starts_with("NET-0001"), "{reason}");
    allow.send(()).unwrap();
    let result = waiting.hear("Results").await;
    let text = &result["channel"]["alternatives"][0]["transcript"];
    assert_eq!((text, &result["from_finalize"]), (&json!(digest(&pcm)), &json!(true)));
    for peer in [&mut alive, &mut waiting] {
        peer.say(&json!({ "type": "CloseStream" })).await;
        assert_eq!(peer.rest().await.1, Said::Close(1000, String::new()));
    }
    server.stop().await;
}

#[tokio::test]
async fn audio_and_bytes_are_counted_by_dialect() {
    let server = null(Options::default()).await;
    let key = key(&server);
    let mut peer = Peer::open(&server, "/v1/listen?encoding=mulaw&sample_rate=8000", &key).await;
    peer.audio(&[0; 16_000]).await;
    peer.say(&json!({ "type": "CloseStream" })).await;
    peer.rest().await;
    let mut peer = Peer::open(&server, "/vosk", &key).await;
    peer.audio(&[0; 16_000]).await;
    peer.text(r#"{"eof" : 1}"#).await;
    peer.rest().await;
    let metrics =
        http_client().unwrap().get(url(&server, "/metrics")).send().await.unwrap().text().await.unwrap();
    for line in [
        r#"voxline_sessions_started_total{api="deepgram"} 1"#,
        r#"voxline_sessions_started_total{api="vosk"} 1"#,
        r#"voxline_audio_received_seconds_total{api="deepgram"} 2"#,
        r#"voxline_audio_received_seconds_total{api="vosk"} 1"#,
        r#"voxline_payload_bytes_total{api="deepgram",direction="in"} 16000"#,
        r#"voxline_payload_bytes_total{api="vosk",direction="in"} 16000"#,
    ] {
        assert!(metrics.lines().any(|known| known.starts_with(line)), "{line} is not in\n{metrics}");
    }
    let usage = server.gateway.authority().usage(Some("test")).unwrap();
    let used = usage.iter().find(|entry| entry.total.audio_ms == 3_000).unwrap();
    let apis = [("deepgram", 2_000), ("vosk", 1_000)];
    assert_eq!(used.apis, apis.map(|(api, ms)| (api.to_owned(), Amount::audio(ms))).into());
    server.stop().await;
}

#[tokio::test]
async fn the_status_of_a_self_hosted_service_counts_streams() {
    let server = null(Options { max_sessions: 1, ..Options::default() }).await;
    let http = http_client().unwrap();
    let status = |path: &'static str| {
        let asked = http.get(url(&server, path)).send();
        async move { asked.await.unwrap().json::<Value>().await.unwrap() }
    };
    let idle = json!({ "active_batch_requests": 0, "active_stream_requests": 0, "system_health": "Healthy" });
    assert_eq!(status("/v1/status").await, idle);
    assert_eq!(status("/v1/status/engine").await["engine_connection_status"], "Connected");
    let stream = Peer::open(&server, LISTEN, &key(&server)).await;
    let full =
        json!({ "active_batch_requests": 0, "active_stream_requests": 1, "system_health": "Critical" });
    assert_eq!(status("/v1/status").await, full);
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn sockets_of_vosk_without_audio_give_way() {
    let server =
        null(Options { max_sessions: 2, threads: NonZero::<usize>::MIN, ..Options::default() }).await;
    let key = key(&server);
    let mut greedy = [Peer::open(&server, "/vosk", &key).await, Peer::open(&server, "/vosk", &key).await];
    let authority = server.gateway.authority();
    authority.create_project("other").unwrap();
    let other = authority.create_service_token("other", Terms::default()).unwrap();
    let mut peer = Peer::open(&server, "/vosk", other.token.expose_secret()).await;
    let (_, close) = greedy[0].rest().await;
    assert!(matches!(&close, Said::Close(1013, _)), "{close:?}");
    peer.audio(&[0; 100]).await;
    assert_eq!(peer.message().await, json!({ "partial": "" }));
    drop((greedy, peer));
    server.stop().await;
}

#[tokio::test]
async fn sockets_without_a_stream_end_as_soon_as_the_gateway_drains() {
    // Nothing else ends within the patience of the test.
    let options = Options { drain: Duration::from_secs(3_600), ..Options::default() };
    let setup = Setup { voices: Tone::voices(), options, ..Setup::default() };
    let server = Server::with(Arc::new(NullRecognizer::new(8_000)), setup).await;
    let key = key(&server);
    let mut peers = Vec::new();
    for path in ["/vosk", "/jambonz", "/v1/speak"] {
        let header = format!("Bearer {key}");
        peers.push(Peer::ask(&server, path, &[("authorization", &header)]).await.expect(path));
    }
    let ends = async {
        for mut peer in peers {
            let (_, close) = peer.rest().await;
            assert!(matches!(&close, Said::Close(1001, _)), "{close:?}");
        }
    };
    within(PATIENCE, "the end of the gateway", async { tokio::join!(server.stop(), ends) }).await;
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let server = null(Options { connections: ConnectionOptions::default(), ..Options::default() }).await;
    let authorization = format!("Token {}", key(&server));
    for path in [LISTEN, "/vosk"] {
        let headers = [("authorization", authorization.as_str()), ("origin", "http://elsewhere.example")];
        let refused = Peer::ask(&server, path, &headers).await.err().expect("a page of another origin");
        assert_eq!(refused.status, 403, "{path}");
    }
    server.stop().await;
}
