//! The token endpoint, in the variations that public clients send.

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use voxline_gateway::Options;

use super::{CLIENTS, ask, post, server};

const PATH: &str = "/auth/oauth/v1/token";

/// Returns `refresh_token` and `access_token` of an answer, which must have the documented shape.
fn granted(answer: &super::Answer) -> [String; 2] {
    let answer = answer.ok();
    let fields: Vec<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["access_token", "expired_in", "refresh_token", "scope"]);
    assert_eq!(answer["expired_in"].as_str().unwrap().parse(), Ok(3_600));
    let flags = answer["scope"].as_object().unwrap();
    assert!(flags.values().all(|flag| flag.as_i64() == Some(1)), "{answer}");
    ["refresh_token", "access_token"].map(|name| answer[name].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn json_and_forms_are_read_whatever_their_type() {
    let server = server(Options::default()).await;
    let (id, secret) = (&server.credentials.client_id, server.credentials.client_secret.expose_secret());
    let credentials =
        json!({ "client_id": id, "client_secret": secret, "grant_type": "client_credentials", "more": 1 });
    let form = format!("client_secret={secret}&client_id={id}&grant_type=client_credentials");
    for client in CLIENTS {
        let mut refresh_token = String::new();
        for (content_type, body) in [
            ("application/json", credentials.to_string()),
            ("application/json; charset=utf-8", credentials.to_string()),
            ("application/x-www-form-urlencoded", credentials.to_string()),
            ("application/x-www-form-urlencoded", form.clone()),
            ("application/x-www-form-urlencoded; boundary=----x", form.clone()),
            ("", form.clone()),
        ] {
            let answer = ask(client, &server, &post(PATH, body).typed(content_type));
            [refresh_token, _] = granted(&answer);
        }
        let refresh =
            json!({ "client_id": id, "refresh_token": refresh_token, "grant_type": "refresh_token" });
        let form = format!("client_id={id}&refresh_token={refresh_token}&grant_type=refresh_token");
        let [json, form] =
            [refresh.to_string(), form].map(|body| granted(&ask(client, &server, &post(PATH, body))));
        assert_eq!([&json[0], &form[0]], [&refresh_token; 2]);
        assert_ne!(json[1], form[1]);

        // A Go client refreshes in this way: it sends its secret too, and is granted tokens. Without a
        // secret the answer is 400, which clients take for an order to start over.
        let mut mistaken = credentials.clone();
        mistaken["refresh_token"] = json!(refresh_token);
        granted(&ask(client, &server, &post(PATH, mistaken.to_string())));
        mistaken.as_object_mut().unwrap().remove("client_secret");
        let refused = ask(client, &server, &post(PATH, mistaken.to_string()));
        assert_eq!((refused.status, error(&refused)), (400, "invalid_request".to_owned()));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_26th_token_of_a_project_is_refused() {
    let server = server(Options::default()).await;
    let (id, secret) = (&server.credentials.client_id, server.credentials.client_secret.expose_secret());
    let body = json!({ "client_id": id, "client_secret": secret, "grant_type": "client_credentials" });
    let answers: Vec<_> =
        (0..26).map(|n| ask(CLIENTS[n % 2], &server, &post(PATH, body.to_string()))).collect();
    let (last, others) = answers.split_last().unwrap();
    others.iter().for_each(|answer| drop(granted(answer)));
    assert_eq!((last.status, error(last)), (403, "limit_exceeded".to_owned()));
    server.stop().await;
}

fn error(answer: &super::Answer) -> String {
    let body: Value = answer.json();
    assert!(body["error_description"].is_string(), "{body}");
    body["error"].as_str().unwrap().to_owned()
}
