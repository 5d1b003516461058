//! Handshake: who is let in, and how the others are told (S1 to S4).

use serde_json::json;

use super::*;

#[tokio::test]
async fn s1_refusals_come_before_the_upgrade() {
    let gateway = gateway().await;
    let Gateway { server, token } = &gateway;
    for headers in [vec![protocol()], vec![protocol(), bearer("wrong")]] {
        let (status, text) = gateway.refusal(PATH, &headers).await;
        assert!(status == 401 && text.contains("4048"), "{text}");
    }
    let other = gateway.granted(Terms { scopes: [Scope::Tts].into_iter().collect(), ..Terms::default() });
    let (status, text) = gateway.refusal(PATH, &[protocol(), bearer(&other)]).await;
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
async fn s1_a_token_is_refused_elsewhere_than_in_its_networks() {
    let gateway = gateway().await;
    for (network, status) in [("10.0.0.0/8", 403), ("127.0.0.0/8", 101)] {
        let token = gateway.granted(Terms { networks: vec![network.parse().unwrap()], ..Terms::default() });
        assert_eq!(gateway.refusal(PATH, &[protocol(), bearer(&token)]).await.0, status, "{network}");
    }
    gateway.server.stop().await;
}

#[tokio::test]
async fn s1_a_budget_used_up_is_429_for_today_and_403_for_good() {
    let gateway = gateway().await;
    let today = Budget { per_day: Some(1), total: None };
    let for_good = Budget { per_day: None, total: Some(1) };
    for (audio, code, error, status) in [(today, 4429, 4429, 429), (for_good, 4403, 403, 403)] {
        let token = gateway.granted(Terms { audio, ..Terms::default() });
        let (mut client, _) = Client::start(gateway.server.address, &token, json!({})).await;
        // One second, and audio beyond the budget.
        client.audio(0, &samples(0, 16_000)).await;
        client.audio(16_000, &samples(16_000, 17_000)).await;
        assert_eq!(client.closed().await, (code, Some(error)));
        let (refused, text) = gateway.refusal(PATH, &[protocol(), bearer(&token)]).await;
        assert_eq!((refused, text.contains("retry-after: ")), (status, status == 429), "{text}");
    }
    gateway.server.stop().await;
}

#[tokio::test]
async fn s1_a_gateway_without_a_recogniser_answers_501() {
    let server = Server::without_recognizer().await;
    let token = minted(&server, "test");
    let gateway = Gateway { server, token };
    let (status, text) = gateway.refusal(PATH, &[protocol(), bearer(&gateway.token)]).await;
    assert_eq!(status, 501, "{text}");
    gateway.server.stop().await;
}

#[tokio::test]
async fn s1_a_gateway_that_stops_answers_503() {
    let gateway = gateway().await;
    let mut client = gateway.started().await;
    gateway.server.begin_stop();
    client.hear("goaway").await;
    let (status, text) = gateway.refusal(PATH, &[protocol(), bearer(&gateway.token)]).await;
    assert!(status == 503 && text.contains("retry-after: "), "{text}");
    client.close(1000).await;
    gateway.server.stop().await;
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
