//! Opening: `start`, `resume` and what `ready` says (S8 to S17, S36 to S38).

use serde_json::json;

use super::*;

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
    // None of these attempts has touched the session.
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
    // Audio from the old socket is ignored, whatever it is.
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

/// A recogniser that takes every request, and hears as that of the other tests.
struct Obliging(DigestRecognizer);

impl Recognizer for Obliging {
    fn name(&self) -> &str {
        "obliging"
    }

    fn capabilities(&self) -> engine::Capabilities {
        let mut all = engine::Capabilities::default();
        all.tasks = vec![engine::Task::Transcribe, engine::Task::Translate];
        all.accuracy = vec![engine::Accuracy::Fast, engine::Accuracy::Balanced, engine::Accuracy::Best];
        (all.prompt, all.keywords) = (true, true);
        all
    }

    fn longest_pending(&self, request: &RecognitionRequest) -> Option<u64> {
        self.0.longest_pending(request)
    }

    fn start(&self, _: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        self.0.start(&RecognitionRequest::new())
    }
}

async fn obliging() -> Gateway {
    let server = Server::with(Arc::new(Obliging(DigestRecognizer::new(8_000))), Setup::default()).await;
    let token = minted(&server, "test");
    Gateway { server, token }
}

impl Gateway {
    /// Returns the codes with which a `start` with these fields is refused.
    async fn refused_start(&self, more: Value) -> (u16, Option<u64>) {
        let mut client = self.dial().await;
        let mut start = json!({ "type": "start", "sample_rate": 16_000 });
        start.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        client.say_anything(&start.to_string()).await;
        client.closed().await
    }
}

#[tokio::test]
async fn s36_the_task_is_performed_and_said_or_refused() {
    let gateway = obliging().await;
    for (asked, performed) in [
        (json!({}), "transcribe"),
        (json!({ "task": "transcribe" }), "transcribe"),
        (json!({ "task": null }), "transcribe"),
        (json!({ "task": "translate" }), "translate"),
    ] {
        let (mut client, ready) = gateway.start(asked).await;
        assert_eq!(ready["task"].as_str().unwrap_or("transcribe"), performed, "{ready}");
        client.close(1000).await;
    }
    assert_eq!(gateway.refused_start(json!({ "task": "rhyme" })).await, (4415, Some(4415)));
    assert_eq!(gateway.refused_start(json!({ "task": 1 })).await, (4400, Some(4400)));
    gateway.server.stop().await;
    let gateway = super::gateway().await;
    assert_eq!(gateway.refused_start(json!({ "task": "translate" })).await, (4415, Some(4415)));
    gateway.server.stop().await;
}

#[tokio::test]
async fn s37_prompt_and_keywords_have_bounds_and_need_a_recogniser_that_takes_them() {
    let gateway = obliging().await;
    let fitting = json!({ "prompt": "p".repeat(4096), "keywords": vec!["k".repeat(100); 100] });
    let (mut client, _) = gateway.start(fitting).await;
    client.close(1000).await;
    // 51 Russian letters are 102 bytes.
    let too_long = [
        json!({ "prompt": "p".repeat(4097) }),
        json!({ "keywords": vec!["k"; 101] }),
        json!({ "keywords": ["ю".repeat(51)] }),
        json!({ "keywords": [null] }),
    ];
    for hints in too_long {
        assert_eq!(gateway.refused_start(hints.clone()).await, (4400, Some(4400)), "{hints}");
    }
    gateway.server.stop().await;
    let gateway = super::gateway().await;
    for hints in [json!({ "prompt": "p" }), json!({ "keywords": ["k"] })] {
        assert_eq!(gateway.refused_start(hints.clone()).await, (4415, Some(4415)), "{hints}");
    }
    let (mut client, _) = gateway.start(json!({ "prompt": null, "keywords": [] })).await;
    client.close(1000).await;
    gateway.server.stop().await;
}

#[tokio::test]
async fn s38_the_accuracy_is_one_of_the_recognisers() {
    let gateway = obliging().await;
    for level in ["fast", "balanced", "best"] {
        let (mut client, _) = gateway.start(json!({ "accuracy": level })).await;
        client.close(1000).await;
    }
    // A level of a later version is read as the default.
    let mut client = gateway.dial().await;
    let later = json!({ "type": "start", "sample_rate": 16_000, "accuracy": "finest" });
    client.say_anything(&later.to_string()).await;
    client.hear("ready").await;
    client.close(1000).await;
    gateway.server.stop().await;
    let gateway = super::gateway().await;
    assert_eq!(gateway.refused_start(json!({ "accuracy": "best" })).await, (4415, Some(4415)));
    gateway.server.stop().await;
}
