//! Opening: `start`, `resume` and what `ready` says (S8 to S17).

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
