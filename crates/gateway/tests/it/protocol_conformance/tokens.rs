//! Tokens, handovers and restarts (S32, S33 and the server's part of C14).

use serde_json::json;

use super::*;

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
async fn s33_a_token_that_is_revoked_costs_its_socket_and_not_the_session() {
    let gateway = gateway().await;
    let authority = gateway.server.gateway.authority();
    let granted = authority.create_service_token("test", Terms::default()).unwrap();
    let token = granted.token.expose_secret();
    let (mut client, ready) = Client::start(gateway.server.address, token, json!({})).await;
    authority.revoke_token(&granted.id).unwrap();
    assert_eq!(client.closed().await, (4401, Some(4048)));
    let mut again = Client::resume(gateway.server.address, &gateway.token, &ready, 0).await;
    again.hear("ready").await;
    again.close(1000).await;
    gateway.server.stop().await;
}

#[tokio::test]
async fn c14_a_gateway_that_stops_sends_its_sessions_where_it_was_told_to() {
    let there = "http://127.0.0.1:1/b".to_owned();
    for successors in [vec![there.clone()], vec![]] {
        let named = successors.iter().map(|there| there.parse().unwrap()).collect();
        let options = Options { successors: named, ..Options::default() };
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
