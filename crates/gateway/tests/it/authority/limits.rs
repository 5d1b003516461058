//! The limits of twenty-five refresh tokens a project and twenty-five live access tokens for each of them,
//! for any client and with many requests at once.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use futures::future::join_all;
use redb::{ReadableDatabase, ReadableTableMetadata};
use reqwest::{Client, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use voxline_gateway::authority::{AtLimit, Authority, AuthorityError, MAX_TOKENS, Policy, Terms};
use voxline_testing::FailingDisk;

use voxline_fixtures::gateway::authority::{HOUR, authority, clock, is_good, serving};
use voxline_fixtures::gateway::http::{ask_token, by_credentials, http_client};
use voxline_fixtures::gateway::server::{Server, Setup};

/// Number of concurrent requests.
const MINTERS: usize = 64;

/// Sends many requests at once. Returns the grants, and checks that all other requests were refused for the
/// limit.
async fn mint(server: &Server, http: &Client, body: &Value) -> Vec<Value> {
    let answers = join_all((0..MINTERS).map(|_| ask_token(server, http, body))).await;
    let mut granted = Vec::new();
    for answer in answers {
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        match status {
            StatusCode::OK => granted.push(body),
            StatusCode::FORBIDDEN => assert_eq!(body["error"], "limit_exceeded"),
            status => panic!("{status}: {body}"),
        }
    }
    granted
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_get_no_more_than_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let setup = || Setup { state: Some(directory.path().join("state")), ..Setup::default() };
    let http = http_client().unwrap();
    let first = serving(setup()).await;
    let granted = mint(&first, &http, &by_credentials(&first)).await;
    assert_eq!(granted.len(), MAX_TOKENS);
    let refresh = json!({
        "client_id": first.credentials.client_id,
        "refresh_token": granted[0]["refresh_token"],
        "grant_type": "refresh_token",
    });
    // One access token was granted together with the refresh token.
    assert_eq!(mint(&first, &http, &refresh).await.len(), MAX_TOKENS - 1);
    first.stop().await;

    // Another gateway on the same state continues the count, for other clients of the project too.
    let second = serving(setup()).await;
    assert_eq!(mint(&second, &http, &by_credentials(&second)).await.len(), 0);
    assert_eq!(mint(&second, &http, &refresh).await.len(), 0);
    let authority = second.gateway.authority();
    assert_eq!(authority.projects().unwrap()[0].refresh_tokens, MAX_TOKENS);
    for granted in &granted {
        assert!(authority.check(granted["access_token"].as_str().unwrap()).is_ok());
    }
    second.stop().await;
}

#[test]
fn access_tokens_make_room_when_they_expire_and_refresh_tokens_do_not() {
    let clock = clock();
    let (authority, client) = authority(&clock);
    let mint = || authority.client_credentials(&client.client_id, &client.client_secret);
    let granted: Vec<_> = (0..MAX_TOKENS).map(|_| mint().unwrap()).collect();
    assert!(matches!(mint(), Err(AuthorityError::Limit("refresh tokens"))));

    let refresh = || authority.refresh(&client.client_id, granted[0].refresh_token.clone());
    for _ in 1..MAX_TOKENS {
        refresh().unwrap();
    }
    assert!(matches!(refresh(), Err(AuthorityError::Limit("access tokens"))));
    let check = || authority.check(granted[1].access_token.expose_secret());
    assert_eq!(check().unwrap().expires_in, Some(HOUR));
    clock.advance(HOUR - Duration::from_millis(1));
    assert_eq!(check().unwrap().expires_in, Some(Duration::from_millis(1)));
    assert!(matches!(refresh(), Err(AuthorityError::Limit("access tokens"))));
    clock.advance(Duration::from_millis(1));
    assert!(matches!(check(), Err(AuthorityError::Token)));
    refresh().unwrap();
    assert!(matches!(mint(), Err(AuthorityError::Limit("refresh tokens"))));
}

#[test]
fn the_oldest_makes_room_where_that_is_the_policy() {
    let (authority, client) = authority(&clock());
    let authority = authority.with_policy(Policy { at_limit: AtLimit::Evict, ..Policy::default() });
    let mint = || authority.client_credentials(&client.client_id, &client.client_secret).unwrap();
    // The clock stands still: the tokens are ordered by their creation.
    let granted: Vec<_> = (0..MAX_TOKENS).map(|_| mint()).collect();
    for (number, oldest) in granted.iter().enumerate() {
        assert!(is_good(&authority, &oldest.access_token));
        mint();
        assert!(!is_good(&authority, &oldest.access_token), "{number}");
        let refused = authority.refresh(&client.client_id, oldest.refresh_token.clone());
        assert!(matches!(refused, Err(AuthorityError::RefreshToken)));
        let left = granted.iter().filter(|granted| is_good(&authority, &granted.access_token)).count();
        assert_eq!(left, MAX_TOKENS - 1 - number);
    }

    let slot = mint();
    let access: Vec<SecretString> = (1..=MAX_TOKENS)
        .map(|_| authority.refresh(&client.client_id, slot.refresh_token.clone()).unwrap().access_token)
        .collect();
    assert!(!is_good(&authority, &slot.access_token), "the oldest of 26 is good");
    assert!(access.iter().all(|token| is_good(&authority, token)));
    let tokens = authority.tokens(None).unwrap();
    let slots = tokens.iter().filter(|token| token.refresh_token.is_none()).count();
    assert_eq!((slots, tokens.len()), (MAX_TOKENS, MAX_TOKENS + MAX_TOKENS + MAX_TOKENS - 1));
}

#[test]
fn threads_that_ask_in_one_moment_get_no_more_than_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path(), HOUR, Arc::new(clock())).unwrap();
    let client = authority.create_project("a").unwrap();
    let at_once = |ask: &(dyn Fn() -> bool + Sync)| {
        // While the first thread waits for the disk, all others have already found room.
        let (start, granted) = (Barrier::new(MINTERS), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..MINTERS {
                scope.spawn(|| {
                    start.wait();
                    granted.fetch_add(usize::from(ask()), Ordering::Relaxed);
                });
            }
        });
        granted.into_inner()
    };
    let (id, secret) = (client.client_id.as_str(), &client.client_secret);
    let slot = authority.client_credentials(id, secret).unwrap().refresh_token;
    assert_eq!(at_once(&|| authority.client_credentials(id, secret).is_ok()), MAX_TOKENS - 1);
    assert_eq!(at_once(&|| authority.refresh(id, slot.clone()).is_ok()), MAX_TOKENS - 1);
}

#[test]
fn the_oldest_makes_room_for_many_at_once() {
    let (authority, client) = authority(&clock());
    let authority = authority.with_policy(Policy { at_limit: AtLimit::Evict, ..Policy::default() });
    std::thread::scope(|scope| {
        for _ in 0..MINTERS {
            scope.spawn(|| authority.client_credentials(&client.client_id, &client.client_secret).unwrap());
        }
    });
    assert_eq!(authority.projects().unwrap()[0].refresh_tokens, MAX_TOKENS);
}

#[test]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the figures that it prints")]
fn a_wrong_secret_takes_as_long_as_an_unknown_client() {
    const TRIES: usize = 5_000;
    let (authority, client) = authority(&clock());
    let (wrong, unknown) = (SecretString::from("vxc_wrong"), client.client_id.replace("mcs", "mct"));
    let time = |client_id: &str| {
        let began = std::time::Instant::now();
        assert!(matches!(authority.client_credentials(client_id, &wrong), Err(AuthorityError::Client)));
        began.elapsed()
    };
    // The two kinds alternate, so that other load on the machine affects both.
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..TRIES {
        times[0].push(time(&client.client_id));
        times[1].push(time(&unknown));
    }
    let [known, unknown] = times.map(|mut times| {
        times.sort();
        times[TRIES / 2]
    });
    println!("a wrong secret takes {known:?}, an unknown client {unknown:?}");
    let ratio = known.as_secs_f64() / unknown.as_secs_f64();
    assert!((0.75..=1.33).contains(&ratio), "{known:?} and {unknown:?}");
}

#[test]
fn a_refusal_writes_nothing() {
    let disk = FailingDisk::new();
    let authority = Authority::on_disk(disk.clone(), HOUR, Arc::new(clock())).unwrap();
    let client = authority.create_project("a").unwrap();
    let (id, secret) = (client.client_id.as_str(), &client.client_secret);
    let granted: Vec<_> =
        (0..MAX_TOKENS).map(|_| authority.client_credentials(id, secret).unwrap()).collect();
    let refresh = |token: &SecretString| authority.refresh(id, token.clone());
    for _ in 1..MAX_TOKENS {
        refresh(&granted[0].refresh_token).unwrap();
    }
    let service = authority.create_service_token("a", Terms::default()).unwrap().token;

    let steps = disk.steps();
    let wrong = SecretString::from("wrong");
    assert!(matches!(authority.client_credentials(id, &wrong), Err(AuthorityError::Client)));
    assert!(matches!(authority.client_credentials("nobody", secret), Err(AuthorityError::Client)));
    assert!(matches!(authority.client_credentials(id, secret), Err(AuthorityError::Limit(_))));
    assert!(matches!(refresh(&granted[0].refresh_token), Err(AuthorityError::Limit(_))));
    for no_refresh_token in [&wrong, &service, &granted[0].access_token] {
        assert!(matches!(refresh(no_refresh_token), Err(AuthorityError::RefreshToken)));
    }
    for no_bearer in [&wrong, &granted[0].refresh_token, secret] {
        assert!(!is_good(&authority, no_bearer));
    }
    assert!(!authority.revoke_shown(id, &wrong).unwrap());
    assert!(!authority.revoke_shown("nobody", &granted[0].access_token).unwrap());
    assert_eq!(disk.steps(), steps);
}

#[test]
fn the_authority_remembers() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(clock());
    let open = || Authority::open(directory.path(), Duration::from_secs(60), clock.clone());
    let authority = open().unwrap();
    let client = authority.create_project("a").unwrap();
    assert!(matches!(authority.create_project("a"), Err(AuthorityError::ProjectExists(_))));
    let missing = authority.create_service_token("b", Terms::default());
    assert!(matches!(missing, Err(AuthorityError::NoProject(_))));
    let granted = authority.client_credentials(&client.client_id, &client.client_secret).unwrap();
    let service = authority.create_service_token("a", Terms::default()).unwrap().token;
    // A second gateway on the same state would exceed the limits of the first.
    let message = open().err().unwrap().to_string();
    assert!(message.contains("in use by a gateway"), "{message}");
    drop(authority);

    let authority = open().unwrap();
    assert!(is_good(&authority, &granted.access_token));
    assert_eq!(authority.check(service.expose_secret()).unwrap().expires_in, None);
    authority.refresh(&client.client_id, granted.refresh_token.clone()).unwrap();
    let file = std::fs::read(directory.path().join("authority.redb")).unwrap();
    for secret in [&client.client_secret, &granted.refresh_token, &granted.access_token, &service] {
        let secret = secret.expose_secret().as_bytes();
        assert!(!file.windows(secret.len()).any(|bytes| bytes == secret), "a secret is on the disk in clear");
    }
    for prefix in ["vxc_", "vxr_", "vxa_", "vxs_"] {
        assert!(!file.windows(4).any(|bytes| bytes == prefix.as_bytes()), "{prefix} is on the disk");
    }
}

/// Returns the number of records in a table of the store.
fn records(directory: &Path, count: impl FnOnce(&redb::ReadTransaction) -> u64) -> u64 {
    let store = redb::Database::open(directory.join("authority.redb")).unwrap();
    count(&store.begin_read().unwrap())
}

#[test]
fn what_has_expired_is_removed() {
    let (clock, directory) = (clock(), tempfile::tempdir().unwrap());
    let authority = Authority::open(directory.path(), HOUR, Arc::new(clock.clone())).unwrap();
    let client = authority.create_project("a").unwrap();
    let granted = authority.client_credentials(&client.client_id, &client.client_secret).unwrap();
    for _ in 0..10 {
        for _ in 0..5 {
            authority.refresh(&client.client_id, granted.refresh_token.clone()).unwrap();
        }
        clock.advance(HOUR);
    }
    authority.refresh(&client.client_id, granted.refresh_token.clone()).unwrap();
    drop(authority);
    let access = |tx: &redb::ReadTransaction| {
        let table = redb::TableDefinition::<&str, &[u8]>::new("access_tokens");
        tx.open_table(table).unwrap().len().unwrap()
    };
    let hashes = |tx: &redb::ReadTransaction| {
        let table = redb::TableDefinition::<&[u8; 32], &str>::new("tokens");
        tx.open_table(table).unwrap().len().unwrap()
    };
    // Of 52 access tokens one is live. The hashes are those of that token and of the refresh token.
    assert_eq!((records(directory.path(), access), records(directory.path(), hashes)), (1, 2));
}
