//! Vosk's protocol.

use std::sync::Arc;

use serde_json::{Value, json};
use voxline_gateway::{OpenAccess, Options};
use voxline_testing::{DigestRecognizer, digest};

use super::peer::{PATIENCE, Peer, Said};
use super::{SEGMENT, bytes, digesting, english, heard, key, own_words};
use voxline_fixtures::clips;
use voxline_fixtures::deadline::within;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::noise;

const PATH: &str = "/vosk";

/// Sends audio in lock step, as the clients do. Returns the replies.
async fn lock_step(peer: &mut Peer, pcm: &[i16]) -> Vec<Value> {
    let mut replies = Vec::new();
    for message in bytes(pcm).chunks(4_000) {
        peer.audio(message).await;
        replies.push(peer.message().await);
    }
    replies
}

#[tokio::test]
async fn the_words_are_those_of_our_own_protocol() {
    let server = english().await;
    let pcm = clips::clip("en-telephone", "demo-echotest").pcm;
    let expected = own_words(&server, &pcm).await;
    let mut peer = Peer::open(&server, PATH, &key(&server)).await;
    peer.text(r#"{"config" : {"sample_rate" : 16000.000000, "words" : 1}}"#).await;
    let mut replies = lock_step(&mut peer, &pcm).await;
    peer.text(r#"{"eof" : 1}"#).await;
    replies.push(peer.message().await);
    assert_eq!(peer.next().await, Said::Close(1000, String::new()));

    let results = replies.iter().filter(|reply| !reply["partial"].is_string());
    let mut words_heard = Vec::new();
    for result in results {
        let words = result["result"].as_array().into_iter().flatten();
        let text: Vec<&str> = words.clone().map(|word| word["word"].as_str().unwrap()).collect();
        assert_eq!(result["text"], text.join(" "), "{result}");
        words_heard.extend(words.map(|word| heard(word, "conf")));
    }
    assert_eq!(words_heard, expected);
    server.stop().await;
}

#[tokio::test]
async fn each_message_but_the_configuration_has_one_reply() {
    let (server, recognizer) = digesting(Options::default()).await;
    let mut peer = Peer::open(&server, PATH, &key(&server)).await;
    let pcm = noise(3 * SEGMENT + 100);
    // Neither of these is answered, and the second one counts.
    peer.text(r#"{"config":{"sample_rate":8000}}"#).await;
    peer.text(r#"{"config":{"sample_rate":16000,"words":false}}"#).await;
    let replies = lock_step(&mut peer, &pcm).await;
    assert_eq!(replies.len(), bytes(&pcm).len().div_ceil(4_000));
    // Text that means nothing, and an empty message, are answered like audio: perhaps by finals.
    let mut late = Vec::new();
    for text in ["no JSON", "{}"] {
        peer.text(text).await;
        late.push(peer.message().await);
    }
    peer.audio(&[]).await;
    late.push(peer.message().await);
    assert!(late.iter().all(|reply| reply["partial"].is_string() || reply["text"].is_string()), "{late:?}");
    peer.text(r#"{"reset":1}"#).await;
    late.push(peer.message().await);
    assert!(late[3]["text"].is_string(), "{late:?}");
    let expected: Vec<String> = pcm.chunks(SEGMENT).map(digest).collect();
    // After the reset, the connection goes on.
    late.extend(lock_step(&mut peer, &pcm[..1_000]).await);
    peer.text(r#"{"eof":1}"#).await;
    let (rest, close) = peer.rest().await;
    assert_eq!((rest.len(), close), (1, Said::Close(1000, String::new())));
    let texts = replies.iter().chain(&late).chain(&rest).filter_map(|reply| reply["text"].as_str());
    let heard: Vec<&str> = texts.flat_map(str::split_whitespace).collect();
    assert_eq!(heard[..4], expected);
    assert_eq!(heard[4..], [digest(&pcm[..1_000])]);
    let recordings = recognizer.recordings();
    assert_eq!(recordings, [[&pcm[..], &pcm[..1_000]].concat()]);
    server.stop().await;
}

#[tokio::test]
async fn what_is_known_of_an_utterance_is_told_before_its_end() {
    let (server, _) = digesting(Options::default()).await;
    let mut peer = Peer::open(&server, PATH, &key(&server)).await;
    let pcm = noise(SEGMENT / 2);
    peer.text(r#"{"config":{"sample_rate":16000}}"#).await;
    peer.audio(&bytes(&pcm)).await;
    // A message without audio asks how far the recogniser is.
    let known = async {
        while peer.message().await != json!({ "partial": digest(&pcm) }) {
            peer.audio(&[]).await;
        }
    };
    within(PATIENCE, "the partial result", known).await;
    drop(peer);
    server.stop().await;
}

#[tokio::test]
async fn a_stream_without_audio_is_answered_too() {
    let (server, _) = digesting(Options::default()).await;
    let mut peer = Peer::open(&server, PATH, &key(&server)).await;
    peer.text(r#"{"reset" : 1}"#).await;
    assert_eq!(peer.message().await, json!({ "text": "" }));
    peer.text("anything").await;
    assert_eq!(peer.message().await, json!({ "partial": "" }));
    peer.text(r#"{"eof" : 1}"#).await;
    assert_eq!(peer.message().await, json!({ "text": "" }));
    assert_eq!(peer.next().await, Said::Close(1000, String::new()));
    server.stop().await;
}

#[tokio::test]
async fn a_token_comes_in_the_header_or_in_the_address() {
    let (server, _) = digesting(Options::default()).await;
    let key = key(&server);
    let by_address = format!("{PATH}?token={key}");
    for (path, header) in
        [(PATH, format!("Bearer {key}")), (PATH, format!("Token {key}")), (&by_address, "Basic x".to_owned())]
    {
        let opened = Peer::ask(&server, path, &[("authorization", &header)]).await;
        assert!(opened.is_ok(), "{path} {header}");
    }
    for path in [PATH, "/vosk?token=wrong", "/vosk?token="] {
        let refused = Peer::ask(&server, path, &[]).await.err().expect("no client enters without a token");
        assert_eq!((refused.status, &refused.body["error"]["code"]), (401, &json!(4048)), "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_sample_rate_that_is_none_ends_the_stream() {
    let (server, _) = digesting(Options::default()).await;
    for rate in ["0", "-1", "1e99", "96000"] {
        let mut peer = Peer::open(&server, PATH, &key(&server)).await;
        peer.text(&format!(r#"{{"config":{{"sample_rate":{rate}}}}}"#)).await;
        peer.audio(&[0; 100]).await;
        let Said::Close(code, reason) = peer.next().await else { panic!("{rate} Hz is accepted") };
        assert_eq!(code, 1003, "{reason}");
    }
    server.stop().await;
}

/// Starts a gateway with a listener for clients without a token, who use this project from this network.
async fn open_server(project: &str, network: &str) -> Server {
    let open = OpenAccess { project: project.to_owned(), networks: vec![network.parse().unwrap()] };
    let options = Options { open: Some(open), ..Options::default() };
    let setup = Setup { options, open_vosk: true, ..Setup::default() };
    Server::with(Arc::new(DigestRecognizer::new(SEGMENT)), setup).await
}

#[tokio::test]
async fn clients_without_a_token_use_the_open_project() {
    let server = open_server("test", "127.0.0.0/8").await;
    let address = server.open_vosk.unwrap();
    let pcm = noise(2 * SEGMENT);
    // Any path will do, and a token of another kind is ignored.
    for (path, more) in [("/", &[][..]), ("/any/path", &[("authorization", "Bearer dummy")][..])] {
        let mut peer = Peer::ask_at(address, path, more).await.unwrap();
        peer.text(r#"{"config":{"sample_rate":16000}}"#).await;
        lock_step(&mut peer, &pcm).await;
        peer.text(r#"{"eof":1}"#).await;
        let (_, close) = peer.rest().await;
        assert_eq!(close, Said::Close(1000, String::new()));
    }
    let authority = server.gateway.authority();
    let usage = authority.usage(Some("test")).unwrap();
    let open = usage.iter().find(|entry| entry.id.starts_with("open_")).unwrap();
    assert_eq!(open.total.audio_ms, 2_000);

    // The end of the project ends the streams of these clients, and admits no more.
    let mut peer = Peer::ask_at(address, "/", &[]).await.unwrap();
    peer.text(r#"{"config":{"sample_rate":16000}}"#).await;
    lock_step(&mut peer, &pcm).await;
    authority.revoke_project("test").unwrap();
    let (_, close) = peer.rest().await;
    assert!(matches!(close, Said::Close(1008, _)), "{close:?}");
    assert_eq!(Peer::ask_at(address, "/", &[]).await.err().unwrap().status, 500);
    server.stop().await;
}

#[tokio::test]
async fn clients_from_elsewhere_and_pages_need_a_token() {
    let server = open_server("test", "10.0.0.0/8").await;
    assert_eq!(Peer::ask_at(server.open_vosk.unwrap(), "/", &[]).await.err().unwrap().status, 403);
    server.stop().await;
    let server = open_server("test", "127.0.0.0/8").await;
    let address = server.open_vosk.unwrap();
    // By DNS rebinding, a page may have the origin that it connects to.
    let origin = format!("http://{address}");
    assert_eq!(Peer::ask_at(address, "/", &[("origin", &origin)]).await.err().unwrap().status, 403);
    server.stop().await;
}
