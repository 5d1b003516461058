//! Revocation of tokens, by their clients and by the operator, while sessions use them.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::time::timeout;
use voxline_gateway::authority::{Granted, MAX_TOKENS, Terms};

use voxline_fixtures::gateway::authority::{authority, clock, is_good, server, service_token};
use voxline_fixtures::gateway::http::{http_client, url};
use voxline_fixtures::gateway::server::Server;
use voxline_fixtures::gateway::socket::Socket;
use voxline_fixtures::gateway::tokens::bearer;

fn granted(server: &Server) -> Granted {
    let credentials = &server.credentials;
    let authority = server.gateway.authority();
    authority.client_credentials(&credentials.client_id, &credentials.client_secret).unwrap()
}

async fn revoke(server: &Server, http: &Client, body: &Value) -> Response {
    http.post(url(server, "/auth/oauth/v1/revoke")).json(body).send().await.unwrap()
}

async fn assert_answered(answer: Response) {
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(answer.text().await.unwrap(), "{}");
}

#[tokio::test]
async fn a_client_gives_its_tokens_back() {
    let (server, http) = (server(&clock()).await, http_client().unwrap());
    let authority = server.gateway.authority();
    let client_id = server.credentials.client_id.as_str();
    let slots: Vec<_> = (0..MAX_TOKENS).map(|_| granted(&server)).collect();
    let token = |token: &SecretString| json!({ "client_id": client_id, "token": token.expose_secret() });

    let more = authority.refresh(client_id, slots[0].refresh_token.clone()).unwrap();
    assert_answered(revoke(&server, &http, &token(&more.access_token)).await).await;
    assert!(!is_good(authority, &more.access_token));
    assert!(is_good(authority, &slots[0].access_token), "an access token takes nothing along");

    let refresh_token = slots[0].refresh_token.expose_secret();
    let form = http
        .post(url(&server, "/auth/oauth/v1/revoke"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("client_id={client_id}&token={refresh_token}"));
    assert_answered(form.send().await.unwrap()).await;
    assert!(!is_good(authority, &slots[0].access_token));
    assert!(authority.refresh(client_id, slots[0].refresh_token.clone()).is_err());
    // Exactly one slot becomes free.
    granted(&server);
    let credentials = &server.credentials;
    assert!(authority.client_credentials(client_id, &credentials.client_secret).is_err());

    // Tokens that are unknown, already revoked, another client's or of no client get the same answer, and
    // stay as they are.
    let other = authority.create_client("test").unwrap();
    let service = service_token(&server, Terms::default()).token;
    let anothers = json!({ "client_id": other.client_id, "token": slots[1].access_token.expose_secret() });
    let unknown = json!({ "client_id": "nobody", "token": "nothing", "token_type_hint": "refresh_token" });
    for body in [token(&slots[0].refresh_token), token(&service), anothers, unknown] {
        assert_answered(revoke(&server, &http, &body).await).await;
    }
    assert!(is_good(authority, &slots[1].access_token) && is_good(authority, &service));

    for malformed in [json!({ "client_id": "a" }), json!({ "token": "a" }), json!({ "token": 1 }), json!([])]
    {
        let answer = revoke(&server, &http, &malformed).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{malformed}");
        assert_eq!(answer.json::<Value>().await.unwrap()["error"], "invalid_request");
    }
    server.stop().await;
}

/// Checks that the socket closes within a second of real time, with the token as the reason.
async fn assert_closes(socket: &mut Socket) {
    let closed = timeout(Duration::from_secs(1), socket.closed()).await.expect("it closes within a second");
    let (code, reason, error) = closed;
    assert_eq!((code, error.unwrap()["code"].as_u64()), (4401, Some(4048)), "{reason}");
}

#[tokio::test]
async fn a_session_is_closed_when_its_token_is_revoked() {
    let server = server(&clock()).await;
    let authority = server.gateway.authority();
    let client_id = server.credentials.client_id.as_str();
    let keeper = service_token(&server, Terms::default()).token;
    let other_project = authority.create_project("other").unwrap();
    let (mut bystander, _) = Socket::start(&server, &bearer(&keeper)).await;

    let at = |granted: &Granted| authority.check(granted.access_token.expose_secret()).unwrap().token;
    let by_access_id = granted(&server);
    let by_refresh = granted(&server);
    let by_client = granted(&server);
    let service = service_token(&server, Terms::default());
    type Revoking<'a> = Box<dyn Fn() + 'a>;
    let cases: [(&SecretString, Revoking); 4] = [
        (&service.token, Box::new(|| authority.revoke_token(&service.id).unwrap())),
        (&by_access_id.access_token, Box::new(|| authority.revoke_token(&at(&by_access_id)).unwrap())),
        (
            &by_refresh.access_token,
            Box::new(|| assert!(authority.revoke_shown(client_id, &by_refresh.refresh_token).unwrap())),
        ),
        (&by_client.access_token, Box::new(|| authority.revoke_client(client_id).unwrap())),
    ];
    for (token, revoke) in cases {
        let (mut socket, ready) = Socket::start(&server, &bearer(token)).await;
        socket.frame(0, &[1; 1_600]);
        socket.acknowledged(1_600).await;
        // Changes to another project have no effect.
        authority.set_active("other", false).unwrap();
        socket.frame(1_600, &[1; 1_600]);
        socket.acknowledged(3_200).await;
        revoke();
        assert_closes(&mut socket).await;
        // The session can be resumed with another token of its project.
        let (socket, resumed) = Socket::resume(&server, &bearer(&keeper), &ready, 0).await;
        assert_eq!(resumed["received"], 3_200);
        socket.end(3_200).await;
        authority.set_active("other", true).unwrap();
    }
    let foreign =
        authority.client_credentials(&other_project.client_id, &other_project.client_secret).unwrap();
    let (mut theirs, _) = Socket::start(&server, &bearer(&foreign.access_token)).await;
    authority.revoke_project("other").unwrap();
    assert_closes(&mut theirs).await;
    authority.set_active("test", false).unwrap();
    assert_closes(&mut bystander).await;
    server.stop().await;
}

#[tokio::test]
async fn a_token_that_took_over_counts_and_the_one_before_does_not() {
    let server = server(&clock()).await;
    let authority = server.gateway.authority();
    let (first, second) =
        (service_token(&server, Terms::default()), service_token(&server, Terms::default()));
    let (mut socket, _) = Socket::start(&server, &bearer(&first.token)).await;
    socket.auth(second.token.expose_secret());
    socket.hear("auth_ok").await;
    authority.revoke_token(&first.id).unwrap();
    socket.frame(0, &[1; 1_600]);
    socket.acknowledged(1_600).await;
    authority.revoke_token(&second.id).unwrap();
    assert_closes(&mut socket).await;
    server.stop().await;
}

#[test]
fn what_is_revoked_takes_along_what_is_its_own() {
    let (authority, client) = authority(&clock());
    let other = authority.create_client("a").unwrap();
    let neighbour = authority.create_project("b").unwrap();
    let mint = |client: &voxline_gateway::authority::NewClient| {
        authority.client_credentials(&client.client_id, &client.client_secret)
    };
    let (of_client, of_other, of_neighbour) =
        (mint(&client).unwrap(), mint(&other).unwrap(), mint(&neighbour).unwrap());
    let service = authority.create_service_token("a", Terms::default()).unwrap().token;
    let good = || {
        [&of_client.access_token, &of_other.access_token, &service, &of_neighbour.access_token]
            .map(|token| is_good(&authority, token))
    };
    assert_eq!(good(), [true; 4]);
    authority.revoke_client(&client.client_id).unwrap();
    assert_eq!(good(), [false, true, true, true]);
    assert!(mint(&client).is_err());
    assert!(authority.revoke_client(&client.client_id).is_err());
    authority.revoke_project("a").unwrap();
    assert_eq!(good(), [false, false, false, true]);
    assert!(mint(&other).is_err() && authority.revoke_project("a").is_err());
    // The name is free again, and none of the old tokens becomes valid with it.
    authority.create_project("a").unwrap();
    assert_eq!(good(), [false, false, false, true]);
    assert_eq!(authority.clients(Some("a")).unwrap().len(), 1);
}
