//! The client's tokens: fetched once, kept on disk, renewed in time.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use voxline::auth::{AuthError, OAuthClient, Refusal, TokenProvider, Vault, VaultError};
use voxline::gateway::authority::MAX_TOKENS;
use voxline::net::http_client;
use voxline::testing::{DigestRecognizer, ManualClock};

use crate::support::server::{Server, Setup};

/// A gateway and clients that share a clock.
async fn setup() -> (Server, ManualClock) {
    let clock = ManualClock::new(Duration::from_secs(1_700_000_000));
    let setup = Setup { clock: Arc::new(clock.clone()), ..Setup::default() };
    (Server::with(Arc::new(DigestRecognizer::new(16_000)), setup).await, clock)
}

fn vault(server: &Server) -> Vault {
    Vault::new(&server.vault.path().join("tokens"), &server.endpoint(), &server.credentials.client_id)
}

fn client(server: &Server, clock: &ManualClock) -> OAuthClient {
    let clock = Arc::new(clock.clone());
    OAuthClient::new(http_client().unwrap(), server.endpoint(), server.credentials.clone(), clock)
}

fn provider(server: &Server, clock: &ManualClock) -> TokenProvider {
    TokenProvider::oauth(client(server, clock), vault(server))
}

#[tokio::test]
async fn many_callers_get_one_token_and_a_later_run_finds_it() {
    let (server, clock) = setup().await;
    let tokens = provider(&server, &clock);
    let all = join_all((0..100).map(|_| tokens.token())).await;
    let first = all[0].as_ref().unwrap().bearer();
    assert!(all.iter().all(|token| token.as_ref().unwrap().bearer() == first));
    // They took one of the project's slots: all others are still there, and not one more.
    let client = client(&server, &clock);
    for _ in 1..MAX_TOKENS {
        client.client_credentials().await.unwrap();
    }
    let refused = client.client_credentials().await.unwrap_err();
    assert!(matches!(refused, AuthError::Refused { reason: Refusal::Limit, .. }), "{refused}");

    let path = vault(&server).path().to_owned();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(provider(&server, &clock).token().await.unwrap().bearer(), first);
    server.stop().await;
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires_and_after_a_refusal() {
    let (server, clock) = setup().await;
    let tokens = provider(&server, &clock);
    let first = tokens.token().await.unwrap();
    // Due five minutes before its end.
    clock.advance(Duration::from_secs(3600 - 301));
    assert_eq!(tokens.token().await.unwrap().bearer(), first.bearer());
    clock.advance(Duration::from_secs(2));
    let second = tokens.token().await.unwrap();
    assert_ne!(second.bearer(), first.bearer());

    // A hundred sessions that were refused together cause one refresh, and a refusal of the first token causes none.
    let all = join_all((0..100).map(|_| tokens.newer_than(second.generation()))).await;
    let third = all[0].as_ref().unwrap().bearer();
    assert!(all.iter().all(|token| token.as_ref().unwrap().bearer() == third));
    assert_eq!(tokens.newer_than(first.generation()).await.unwrap().bearer(), third);
    server.stop().await;
}

#[tokio::test]
async fn an_old_token_serves_while_the_endpoint_is_down() {
    let (server, clock) = setup().await;
    let tokens = provider(&server, &clock);
    let first = tokens.token().await.unwrap();
    server.stop().await;
    clock.advance(Duration::from_secs(3500));
    assert_eq!(tokens.token().await.unwrap().bearer(), first.bearer());
    clock.advance(Duration::from_secs(100));
    assert!(tokens.token().await.is_err());
}

#[tokio::test]
async fn a_vault_that_others_can_reach_is_refused() {
    let (server, clock) = setup().await;
    provider(&server, &clock).token().await.unwrap();
    let (vault, path) = (vault(&server), vault(&server).path().to_owned());

    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    let error = vault.load().unwrap_err();
    assert!(matches!(error, VaultError::Exposed { .. }));
    assert!(error.to_string().contains("chmod 600"), "{error}");

    let moved = path.with_extension("moved");
    std::fs::rename(&path, &moved).unwrap();
    symlink(&moved, &path).unwrap();
    assert!(matches!(vault.load(), Err(VaultError::NotAFile { .. })));

    std::fs::remove_file(&path).unwrap();
    assert!(vault.load().unwrap().is_none());
    let absurd = r#"{"version":1,"access_token":"a","refresh_token":null,"granted_at":1,"lifetime":18446744073709551615}"#;
    std::fs::write(&path, absurd).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let absurd = vault.load().unwrap().unwrap();
    assert!(!absurd.is_due(Duration::from_secs(1_700_000_000)));
    std::fs::write(&path, "{").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    assert!(matches!(vault.load(), Err(VaultError::Damaged { .. })));
    server.stop().await;
}
