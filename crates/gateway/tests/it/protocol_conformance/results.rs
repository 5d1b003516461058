//! Results: finals, partials, and what becomes of a session (S26 to S31).

use serde_json::json;
use voxline::audio::FramePos;

use super::*;

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

/// A recogniser whose text is the context that it began with, and which has a new context at each flush: a
/// short one, one that is too long, none, a short one.
struct Remembering {
    said: String,
    contexts: std::vec::IntoIter<Option<String>>,
    heard: std::ops::Range<u64>,
}

impl Recognizer for Remembering {
    fn name(&self) -> &str {
        "remembering"
    }

    fn start(&self, request: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        let contexts = [Some("a".to_owned()), Some("x".repeat(4_097)), None, Some("b".to_owned())];
        let said = request.context.clone().unwrap_or_default();
        Ok(Box::new(Remembering { said, contexts: Vec::from(contexts).into_iter(), heard: 0..0 }))
    }
}

impl RecognizerStream for Remembering {
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<engine::Segment>, EngineError> {
        self.heard.end += pcm.len() as u64;
        Ok(Vec::new())
    }

    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        Ok(PartialResult::Nothing)
    }

    fn flush(&mut self) -> Result<Vec<engine::Segment>, EngineError> {
        let range = FramePos(self.heard.start).to(FramePos(self.heard.end));
        self.heard.start = self.heard.end;
        let context = self.contexts.next().flatten();
        Ok(vec![engine::Segment { text: self.said.clone(), context, ..engine::Segment::silence(range) }])
    }
}

#[tokio::test]
async fn s29_a_context_comes_with_its_final_where_it_is_new_and_short_enough() {
    let recognizer = Remembering { said: String::new(), contexts: Vec::new().into_iter(), heard: 0..0 };
    let server = Server::with(Arc::new(recognizer), Setup::default()).await;
    let token = minted(&server, "test");
    let (mut client, _) = Client::start(server.address, &token, json!({ "context": "handed back" })).await;
    let mut contexts = Vec::new();
    for end in [1_000, 2_000, 3_000, 4_000] {
        client.audio(end - 1_000, &samples(end - 1_000, end)).await;
        client.say(json!({ "type": "flush", "at": end })).await;
        let segment = client.hear("final").await;
        assert_eq!((number(&segment, "end"), &segment["text"]), (end, &json!("handed back")));
        contexts.push(segment["context"].as_str().map(str::to_owned));
    }
    // A context that is too long counts as an empty one, because the one before would be wrong.
    assert_eq!(contexts, [Some("a"), Some(""), None, Some("b")].map(|context| context.map(str::to_owned)));
    client.close(1000).await;
    server.stop().await;
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
