//! The client's tokens: fetched once, kept on disk, renewed in time.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use secrecy::ExposeSecret;
use voxline::auth::{
    AccessToken, AuthError, OAuthClient, PlantedTokenBug, Refusal, TokenProvider, Vault, VaultError,
};
use voxline::gateway::authority::MAX_TOKENS;
use voxline::net::http_client;
use voxline::testing::{DigestRecognizer, ManualClock};

use crate::random::{self, Random};
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
async fn a_token_newer_than_a_refused_one_lives() {
    let (server, clock) = setup().await;
    let tokens = provider(&server, &clock);
    let refused = tokens.token().await.unwrap();
    let second = tokens.newer_than(refused.generation()).await.unwrap();
    assert_eq!(second.life(), Some(Duration::from_secs(3_600)));
    // Whoever was told of the refusal may take an hour to ask again.
    clock.advance(Duration::from_secs(3_600));
    let third = tokens.newer_than(refused.generation()).await.unwrap();
    assert!(third.generation() > second.generation(), "an expired token was handed out");
    server.stop().await;
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

/// What befalls the tokens of one client: calls, refusals, time, a disk that fails, a process that dies.
struct Fate<'a> {
    server: &'a Server,
    clock: &'a ManualClock,
    bug: Option<PlantedTokenBug>,
    tokens: TokenProvider,
    /// What was handed out last.
    last: Option<AccessToken>,
    disk_fails: bool,
}

impl Fate<'_> {
    fn provider(&self) -> TokenProvider {
        let tokens = provider(self.server, self.clock);
        match self.bug {
            Some(bug) => tokens.planted(bug),
            None => tokens,
        }
    }

    /// The directory of the vault, and where it is while the disk fails.
    fn directories(&self) -> [std::path::PathBuf; 2] {
        ["tokens", "away"].map(|name| self.server.vault.path().join(name))
    }

    async fn go_on(&mut self, random: &mut Random) {
        let [vault, away] = self.directories();
        match random.below(6) {
            0 | 1 => self.take(self.tokens.token().await),
            2 if self.last.is_some() => {
                let generation = self.last.as_ref().unwrap().generation();
                self.take(self.tokens.newer_than(generation).await);
            }
            3 => self.clock.advance(Duration::from_secs(random.below(4_000) as u64)),
            4 if !self.disk_fails && vault.exists() => {
                std::fs::rename(&vault, &away).unwrap();
                std::fs::write(&vault, "").unwrap();
                self.disk_fails = true;
            }
            4 if self.disk_fails => self.heal(),
            // The process dies, and another takes over.
            5 if !self.disk_fails => {
                self.tokens = self.provider();
                self.last = None;
            }
            _ => {}
        }
    }

    fn take(&mut self, token: Result<AccessToken, AuthError>) {
        if let Ok(token) = token {
            self.last = Some(token);
        }
    }

    fn heal(&mut self) {
        let [vault, away] = self.directories();
        if std::mem::take(&mut self.disk_fails) {
            std::fs::remove_file(&vault).unwrap();
            std::fs::rename(&away, &vault).unwrap();
        }
    }

    /// Whether what was handed out last would be there after a crash.
    fn is_safe(&self) -> bool {
        let saved = vault(self.server).load().unwrap();
        self.last
            .as_ref()
            .is_none_or(|last| saved.is_some_and(|saved| saved.access.expose_secret() == last.expose()))
    }
}

/// Plays the schedule of this seed: whether every token handed out was on the disk by then.
async fn play(seed: u64, bug: Option<PlantedTokenBug>) -> bool {
    let (server, clock) = setup().await;
    let mut random = Random::seeded(seed);
    let tokens = provider(&server, &clock);
    let mut fate = Fate { server: &server, clock: &clock, bug, tokens, last: None, disk_fails: false };
    fate.tokens = fate.provider();
    let mut safe = true;
    for _ in 0..30 {
        fate.go_on(&mut random).await;
        if !fate.disk_fails {
            safe &= fate.is_safe();
        }
    }
    fate.heal();
    safe &= fate.is_safe();
    server.stop().await;
    safe
}

#[tokio::test]
async fn no_token_is_handed_out_before_it_is_on_the_disk() {
    const TEST: &str = "tokens::no_token_is_handed_out_before_it_is_on_the_disk";
    let first = random::seed();
    for seed in first..first + 100 {
        assert!(play(seed, None).await, "{}", random::replay(TEST, seed));
    }
    let mut seeds = first..first + 100;
    let bug = Some(PlantedTokenBug::PublishedBeforeSaved);
    let caught = loop {
        match seeds.next() {
            Some(seed) if !play(seed, bug).await => break true,
            Some(_) => {}
            None => break false,
        }
    };
    assert!(caught, "a token published before it was saved was not caught within 100 schedules");
}
