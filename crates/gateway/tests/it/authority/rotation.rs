//! Rotation of refresh tokens when answers get lost.

use std::sync::Arc;

use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use voxline_gateway::authority::{Authority, AuthorityError, NewClient, Policy, Refreshing};
use voxline_testing::FailingDisk;

use voxline_fixtures::gateway::authority::{HOUR, authority, clock, is_good, serving};
use voxline_fixtures::gateway::http::{ask_token, http_client};
use voxline_fixtures::gateway::server::Setup;
use voxline_fixtures::gateway::socket::Socket;
use voxline_fixtures::gateway::tokens::bearer;

fn rotating(authority: Authority) -> Authority {
    authority.with_policy(Policy { refreshing: Refreshing::Rotate, ..Policy::default() })
}

fn text(token: &SecretString) -> &str {
    token.expose_secret()
}

#[test]
fn a_refresh_token_stays_the_same_unless_told_otherwise() {
    let (authority, client) = authority(&clock());
    let granted = authority.client_credentials(&client.client_id, &client.client_secret).unwrap();
    let refreshed = authority.refresh(&client.client_id, granted.refresh_token.clone()).unwrap();
    assert_eq!(text(&refreshed.refresh_token), text(&granted.refresh_token));
}

#[test]
fn the_old_token_is_good_until_the_new_one_is_used() {
    let (authority, client) = authority(&clock());
    let authority = rotating(authority);
    let refresh = |token: &SecretString| authority.refresh(&client.client_id, token.clone());
    let first = authority.client_credentials(&client.client_id, &client.client_secret).unwrap();
    // The answer is lost, and the request is repeated. However often it is repeated, the successor is the
    // same.
    let lost = refresh(&first.refresh_token).unwrap();
    let second = refresh(&first.refresh_token).unwrap();
    assert_ne!(text(&second.refresh_token), text(&first.refresh_token));
    assert_eq!(text(&second.refresh_token), text(&lost.refresh_token));
    assert!(is_good(&authority, &lost.access_token));

    // All of this happens in one slot, and a client that loses answers loses nothing.
    let third = refresh(&second.refresh_token).unwrap();
    let again = refresh(&second.refresh_token).unwrap();
    assert_eq!(text(&again.refresh_token), text(&third.refresh_token));
    refresh(&third.refresh_token).unwrap();
    for granted in [first, lost, second, third, again] {
        assert!(is_good(&authority, &granted.access_token));
    }
}

/// Requests a grant and refreshes it `times` times. Returns the refresh tokens in their order, and the
/// access tokens.
fn refreshed(
    authority: &Authority,
    client: &NewClient,
    times: usize,
) -> (Vec<SecretString>, Vec<SecretString>) {
    let granted = authority.client_credentials(&client.client_id, &client.client_secret).unwrap();
    let (mut refresh, mut access) = (vec![granted.refresh_token], vec![granted.access_token]);
    for number in 0..times {
        let granted = authority.refresh(&client.client_id, refresh[number].clone()).unwrap();
        refresh.push(granted.refresh_token);
        access.push(granted.access_token);
    }
    (refresh, access)
}

#[test]
fn a_dead_token_that_is_shown_again_ends_all_that_came_of_its_grant() {
    let (authority, client) = authority(&clock());
    let authority = rotating(authority);
    let id = client.client_id.as_str();
    let bystander = authority.create_client("a").unwrap();
    let (_, others) = refreshed(&authority, &bystander, 3);
    let (_, own) = refreshed(&authority, &client, 3);
    // The last token but one is still valid, because its successor was not used.
    for dead in 0..5 {
        let (refresh, access) = refreshed(&authority, &client, 6);
        // Another client can't use the token, and its attempt changes nothing.
        let foreign = authority.refresh(&bystander.client_id, refresh[dead].clone());
        assert!(matches!(foreign, Err(AuthorityError::RefreshToken)));
        assert!(access.iter().all(|token| is_good(&authority, token)));
        assert_eq!(authority.projects().unwrap()[0].refresh_tokens, 3);

        let reused = authority.refresh(id, refresh[dead].clone());
        assert!(matches!(reused, Err(AuthorityError::Replaced)), "number {dead}: {reused:?}");
        assert!(!access.iter().any(|token| is_good(&authority, token)), "number {dead}");
        for token in &refresh {
            let refused = authority.refresh(id, token.clone());
            assert!(matches!(refused, Err(AuthorityError::RefreshToken)), "{refused:?}");
        }
        // The slot is free, and no other token was revoked.
        assert_eq!(authority.projects().unwrap()[0].refresh_tokens, 2);
        assert!(others.iter().chain(&own).all(|token| is_good(&authority, token)));
    }
}

#[test]
fn a_crash_during_the_revocation_leaves_all_or_nothing_and_the_next_reuse_ends_it() {
    let open = |disk: FailingDisk| rotating(Authority::on_disk(disk, HOUR, Arc::new(clock())).unwrap());
    for step in 0.. {
        let disk = FailingDisk::new();
        let authority = open(disk.clone());
        let client = authority.create_project("a").unwrap();
        let (refresh, access) = refreshed(&authority, &client, 3);
        disk.fail_after(step);
        let reused = authority.refresh(&client.client_id, refresh[0].clone()).unwrap_err();
        let survivors: [&dyn Fn(usize) -> bool; 3] = [&|_| false, &|_| true, &|step| step % 2 == 0];
        for survives in survivors {
            let after = open(disk.after_a_crash(survives));
            let good = access.iter().filter(|token| is_good(&after, token)).count();
            if matches!(reused, AuthorityError::Replaced) {
                assert_eq!(good, 0, "answered, and forgotten in a crash at step {step}");
            }
            assert!(good == 0 || good == access.len(), "{good} of {} at step {step}", access.len());
            after.refresh(&client.client_id, refresh[0].clone()).unwrap_err();
            assert!(!access.iter().any(|token| is_good(&after, token)), "step {step}");
            let last = after.refresh(&client.client_id, refresh[3].clone());
            assert!(matches!(last, Err(AuthorityError::RefreshToken)), "step {step}");
        }
        if matches!(reused, AuthorityError::Replaced) {
            assert!(step > 1, "the disk never failed");
            return;
        }
        // The answer says that the revocation failed, not that it was made.
        assert!(matches!(reused, AuthorityError::Unavailable { .. }), "{reused}");
    }
}

#[tokio::test]
async fn the_sockets_of_a_grant_close_when_a_dead_token_of_it_is_shown() {
    let policy = Policy { refreshing: Refreshing::Rotate, ..Policy::default() };
    let server = serving(Setup { policy, ..Setup::default() }).await;
    let authority = server.gateway.authority();
    let client = NewClient {
        client_id: server.credentials.client_id.clone(),
        client_secret: server.credentials.client_secret.clone(),
    };
    let (refresh, access) = refreshed(authority, &client, 3);
    let (_, other) = refreshed(authority, &client, 0);
    let (mut bystander, _) = Socket::start(&server, &bearer(&other[0])).await;
    let mut sockets = Vec::new();
    for token in &access {
        sockets.push(Socket::start(&server, &bearer(token)).await.0);
    }
    let http = http_client().unwrap();
    let reuse = json!({
        "client_id": client.client_id,
        "refresh_token": text(&refresh[1]),
        "grant_type": "refresh_token",
    });
    let answer = ask_token(&server, &http, &reuse).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert_eq!(answer.json::<Value>().await.unwrap()["error"], "invalid_grant");
    for mut socket in sockets {
        assert_eq!(socket.closed().await.0, 4401);
    }
    bystander.frame(0, &[1; 160]);
    bystander.acknowledged(160).await;
    bystander.end(160).await;
    server.stop().await;
}

#[test]
fn all_that_follow_each_other_are_one_slot() {
    let clock = clock();
    let directory = tempfile::tempdir().unwrap();
    let open = || rotating(Authority::open(directory.path(), HOUR, Arc::new(clock.clone())).unwrap());
    let authority = open();
    let client = authority.create_project("a").unwrap();
    let mut token =
        authority.client_credentials(&client.client_id, &client.client_secret).unwrap().refresh_token;
    drop(authority);
    let (mut old, mut seen) = (token.clone(), std::collections::HashSet::new());
    for _ in 0..30 {
        // A restart at any point changes nothing.
        let authority = open();
        clock.advance(HOUR);
        assert!(seen.insert(text(&token).to_owned()), "a token came back");
        let granted = authority.refresh(&client.client_id, token.clone()).unwrap();
        old = std::mem::replace(&mut token, granted.refresh_token);
        assert_eq!(authority.projects().unwrap()[0].refresh_tokens, 1);
    }
    // Without rotation, the token that is shown is the one in force.
    let authority = open().with_policy(Policy::default());
    let kept = authority.refresh(&client.client_id, old).unwrap();
    assert_ne!(text(&kept.refresh_token), text(&token));
    let kept = authority.refresh(&client.client_id, token.clone()).unwrap();
    assert_eq!(text(&kept.refresh_token), text(&token));
    assert!(authority.revoke_shown(&client.client_id, &token).unwrap());
    assert_eq!(authority.tokens(None).unwrap(), []);
}
