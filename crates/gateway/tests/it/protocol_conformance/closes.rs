//! The table of closes: each code that this gateway sends is provoked once by the test of its number; the
//! other codes are named, with the reason.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;

/// Codes that no client can provoke here.
const NOT_SENT: [(&str, &str); 7] = [
    ("1012", "a gateway doesn't know that it will be started again: it says 1001"),
    ("none", "a connection that is lost has no code; the tests of kills and of a network cut them"),
    ("1008", "other servers and proxies say it; a refused token is 4401 here"),
    ("1002", "other servers and proxies say it; a broken frame is 4400 here"),
    ("1003", "other servers and proxies say it; audio and text are both taken"),
    ("1007", "other servers and proxies say it; text that is no UTF-8 is 4400 here"),
    ("1010", "for clients to say, which ask for no extension"),
];

#[test]
fn each_close_of_the_document_is_provoked_or_named() {
    let (_, table) = rules::DOCUMENT.split_once("\n## Closes\n").expect("the document has the table");
    let codes = table.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let codes = codes.flat_map(|(codes, _)| codes.split(", ")).filter(|code| *code != "code");
    let listed: BTreeSet<&str> = codes.collect();
    let tests = include_str!("closes.rs").split("\nasync fn close_").skip(1);
    let provoked: BTreeSet<&str> = tests.map(|name| name.split('_').next().unwrap()).collect();
    let named: BTreeSet<&str> = NOT_SENT.iter().map(|(code, _)| *code).collect();
    assert!(provoked.is_disjoint(&named), "{provoked:?} and {named:?}");
    assert_eq!(provoked.union(&named).copied().collect::<BTreeSet<_>>(), listed);
}

/// A recogniser that fails at the first audio.
struct Failing;

impl Recognizer for Failing {
    fn name(&self) -> &str {
        "failing"
    }

    fn start(&self, _: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        Ok(Box::new(Failing))
    }
}

impl RecognizerStream for Failing {
    fn push(&mut self, _: &[i16]) -> Result<Vec<engine::Segment>, EngineError> {
        Err(EngineError::inference("failing", "always"))
    }

    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        Ok(PartialResult::Nothing)
    }

    fn flush(&mut self) -> Result<Vec<engine::Segment>, EngineError> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn close_1000_where_all_is_done() {
    let gateway = gateway().await;
    let mut client = gateway.started().await;
    client.say(json!({ "type": "finish", "through": 100 })).await;
    client.hear("done").await;
    client.close(1000).await;
    assert_eq!(client.closed().await, (1000, None));
    gateway.server.stop().await;
}

#[tokio::test]
async fn close_1001_where_the_gateway_stops() {
    let options = Options { drain: Duration::ZERO, ..Options::default() };
    let gateway = with(Setup { options, ..Setup::default() }).await;
    let mut client = gateway.started().await;
    gateway.server.begin_stop();
    assert_eq!(client.closed().await, (1001, Some(1001)));
    gateway.server.stop().await;
}

#[tokio::test]
async fn close_1009_where_a_message_is_too_big() {
    let gateway = gateway().await;
    let mut client = gateway.started().await;
    client.binary(&vec![0; 1 << 20]).await;
    assert_eq!(client.closed().await, (1009, Some(1009)));
    gateway.server.stop().await;
}

#[tokio::test]
async fn close_1011_where_the_recogniser_fails() {
    let server = Server::with(Arc::new(Failing), Setup::default()).await;
    let token = minted(&server, "test");
    let (mut client, _) = Client::start(server.address, &token, json!({})).await;
    client.audio(0, &samples(0, 100)).await;
    assert_eq!(client.closed().await, (1011, Some(1011)));
    server.stop().await;
}

/// A socket is admitted for an existing session, and then starts another one.
#[tokio::test]
async fn close_1013_where_there_is_no_room() {
    let options = Options { max_sessions: 1, ..Options::default() };
    let gateway = with(Setup { options, ..Setup::default() }).await;
    let mut first = gateway.started().await;
    let path = format!("{PATH}?session=another");
    let mut client = Client::dial_at(gateway.server.address, &path, &gateway.token).await;
    client.say(json!({ "type": "start", "sample_rate": 16_000 })).await;
    assert_eq!(client.closed().await, (1013, Some(1013)));
    first.close(1000).await;
    gateway.server.stop().await;
}

#[tokio::test]
async fn close_4400_where_a_frame_is_no_message() {
    let gateway = gateway().await;
    let mut client = gateway.dial().await;
    client.say_no_text().await;
    assert_eq!(client.closed().await, (4400, Some(4400)), "at first");
    let mut client = gateway.started().await;
    client.say_no_text().await;
    assert_eq!(client.closed().await, (4400, Some(4400)), "in a session");
    gateway.server.stop().await;
}

#[tokio::test]
async fn close_4401_where_a_token_is_bad() {
    let gateway = gateway().await;
    let mut client = gateway.started().await;
    client.say(json!({ "type": "auth", "access_token": "wrong" })).await;
    assert_eq!(client.closed().await, (4401, Some(4048)));
    gateway.server.stop().await;
}

#[tokio::test]
async fn close_4403_where_a_token_may_not_stream() {
    let gateway = gateway().await;
    let other = gateway.granted(Terms { scopes: [Scope::Tts].into_iter().collect(), ..Terms::default() });
    let mut client = gateway.started().await;
    client.say(json!({ "type": "auth", "access_token": other })).await;
    assert_eq!(client.closed().await, (4403, Some(4403)));
    gateway.server.stop().await;
}

#[tokio::test]
async fn close_4404_where_a_session_is_unknown() {
    let gateway = gateway().await;
    let unknown = json!({ "session": "unknown", "resume_key": "unknown" });
    let mut client = Client::resume(gateway.server.address, &gateway.token, &unknown, 0).await;
    assert_eq!(client.closed().await, (4404, Some(4404)));
    gateway.server.stop().await;
}

#[tokio::test]
async fn close_4409_where_another_socket_has_the_session() {
    let gateway = gateway().await;
    let (mut old, ready) = gateway.start(json!({})).await;
    let mut new = Client::resume(gateway.server.address, &gateway.token, &ready, 0).await;
    new.hear("ready").await;
    assert_eq!(old.closed().await, (4409, None));
    new.close(1000).await;
    gateway.server.stop().await;
}

#[tokio::test]
async fn close_4415_where_a_rate_is_not_there() {
    let gateway = gateway().await;
    let mut client = gateway.dial().await;
    client.say_anything(r#"{"type":"start","sample_rate":7999}"#).await;
    assert_eq!(client.closed().await, (4415, Some(4415)));
    gateway.server.stop().await;
}

#[tokio::test]
async fn close_4429_where_a_token_has_all_its_sessions() {
    let gateway = gateway().await;
    let token = gateway.granted(Terms { max_sessions: Some(1), ..Terms::default() });
    let (mut first, _) = Client::start(gateway.server.address, &token, json!({})).await;
    let mut client = Client::dial(gateway.server.address, &token).await;
    client.say(json!({ "type": "start", "sample_rate": 16_000 })).await;
    assert_eq!(client.closed().await, (4429, Some(4429)));
    first.close(1000).await;
    gateway.server.stop().await;
}
