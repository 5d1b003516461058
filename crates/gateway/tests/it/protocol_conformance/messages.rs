//! Messages: what every receiver ignores, and what it refuses (S5 to S7).

use serde_json::json;

use super::*;

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
