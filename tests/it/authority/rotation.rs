//! Refresh tokens that are replaced when they are used, where answers get lost.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use voxline::gateway::authority::{Authority, AuthorityError, Policy, Refreshing};

use super::{HOUR, authority, clock, is_good};

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
    // The answer is lost, and lost again. However often it is asked for, there is one successor.
    let lost = refresh(&first.refresh_token).unwrap();
    let second = refresh(&first.refresh_token).unwrap();
    assert_ne!(text(&second.refresh_token), text(&first.refresh_token));
    assert_eq!(text(&second.refresh_token), text(&lost.refresh_token));
    assert!(is_good(&authority, &lost.access_token));

    let third = refresh(&second.refresh_token).unwrap();
    assert!(matches!(refresh(&first.refresh_token), Err(AuthorityError::Replaced)));
    // That was no reason to end what is in use.
    let again = refresh(&second.refresh_token).unwrap();
    assert_eq!(text(&again.refresh_token), text(&third.refresh_token));
    refresh(&third.refresh_token).unwrap();
    assert!(matches!(refresh(&second.refresh_token), Err(AuthorityError::Replaced)));
    // Of those before the last nothing is kept.
    assert!(matches!(refresh(&first.refresh_token), Err(AuthorityError::RefreshToken)));
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
    // Back to tokens that stay: whichever is shown is the one in force.
    let authority = open().with_policy(Policy::default());
    let kept = authority.refresh(&client.client_id, old).unwrap();
    assert_ne!(text(&kept.refresh_token), text(&token));
    let kept = authority.refresh(&client.client_id, token.clone()).unwrap();
    assert_eq!(text(&kept.refresh_token), text(&token));
    assert!(authority.revoke_shown(&client.client_id, &token).unwrap());
    assert_eq!(authority.tokens(None).unwrap(), []);
}
