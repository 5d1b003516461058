//! The client's tokens: obtained once, stored on disk, renewed in time.

mod history;
mod processes;
mod slots;
mod vault;

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use secrecy::ExposeSecret;
use voxline::auth::{
    AccessToken, AuthError, Credentials, OAuthClient, Refusal, SlotState, SlotsError, TokenProvider, Vault,
};
use voxline::net::HttpClient;
use voxline_gateway::Options;
use voxline_gateway::authority::MAX_TOKENS;
use voxline_testing::{
    DigestRecognizer, FailingVaultDisk, ManualClock, PlantedTokenBug, PlantedVaultDisk, VaultStep,
};

use self::slots::Client;
use voxline_fixtures::deadline::within;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::random::{self, Random};

/// Longest time that anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Returns a gateway, and the clock that it shares with its clients.
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
    OAuthClient::new(HttpClient::new().unwrap(), server.endpoint(), server.credentials.clone(), clock)
}

fn provider(server: &Server, clock: &ManualClock) -> TokenProvider {
    TokenProvider::oauth(client(server, clock), vault(server))
}

#[tokio::test]
async fn many_callers_get_one_token_and_a_later_run_finds_it() {
    let (server, clock) = setup().await;
    let tokens = provider(&server, &clock);
    let all = join_all((0..1_000).map(|_| tokens.token())).await;
    let first = all[0].as_ref().unwrap().bearer();
    assert!(all.iter().all(|token| token.as_ref().unwrap().bearer() == first));
    // The callers took one of the project's slots. All other slots are free, and no more than those.
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
    // A renewal is due in the last five minutes at the earliest, and two and a half minutes before the
    // expiry at the latest.
    clock.advance(Duration::from_secs(3600 - 301));
    assert_eq!(tokens.token().await.unwrap().bearer(), first.bearer());
    clock.advance(Duration::from_secs(151));
    // No caller waits for the new token while the old one is valid.
    assert_eq!(tokens.token().await.unwrap().bearer(), first.bearer());
    let second = tokens.newer_than(first.generation()).await.unwrap();
    assert_eq!(second.generation().0, first.generation().0 + 1);

    // A thousand sessions that were refused together cause one refresh. A refusal of the first token
    // causes none.
    clock.advance(Duration::from_secs(1000));
    let all = join_all((0..1_000).map(|_| tokens.newer_than(second.generation()))).await;
    let third = all[0].as_ref().unwrap();
    assert!(all.iter().all(|token| token.as_ref().unwrap().bearer() == third.bearer()));
    assert_eq!(third.generation().0, second.generation().0 + 1);
    assert_eq!(tokens.newer_than(first.generation()).await.unwrap().bearer(), third.bearer());

    // A token that is refused as soon as it arrives was not refused for its age.
    let refused = tokens.newer_than(third.generation()).await.unwrap_err();
    assert!(matches!(refused, AuthError::Rejected { .. }), "{refused}");
    clock.advance(Duration::from_secs(60));
    let fourth = tokens.newer_than(third.generation()).await.unwrap();
    assert_eq!(fourth.generation().0, third.generation().0 + 1);
    server.stop().await;
}

/// The caller leaves while the service processes the request. The response is stored all the same.
#[tokio::test]
async fn callers_who_leave_take_no_renewal_with_them() {
    let client = Client::new();
    let (answer, held) = std::sync::mpsc::channel();
    let asked = client.endpoint.hold(held);
    let tokens = client.tokens();
    tokio::select! {
        token = tokens.token() => panic!("a token before the service has answered: {token:?}"),
        () = within(SOON, "the request for a token", asked.notified()) => {}
    }
    answer.send(()).unwrap();
    let token = within(SOON, "the token that its caller has left", tokens.token()).await.unwrap();
    assert_eq!((token.expose(), client.endpoint.service().granted), ("access-1", 1));
}

#[tokio::test]
async fn a_failure_is_told_to_all_and_asked_about_once() {
    let clock = ManualClock::new(Duration::from_secs(1_700_000_000));
    // A second wrong secret would get another response.
    let options = Options { max_failures: 1, ..Options::default() };
    let setup = Setup { clock: Arc::new(clock.clone()), options, ..Setup::default() };
    let server = Server::with(Arc::new(DigestRecognizer::new(16_000)), setup).await;
    let credentials = Credentials { client_secret: "wrong".to_owned().into(), ..server.credentials.clone() };
    let clock = Arc::new(clock);
    let client = OAuthClient::new(HttpClient::new().unwrap(), server.endpoint(), credentials, clock);
    let tokens = TokenProvider::oauth(client, vault(&server));
    for refused in join_all((0..100).map(|_| tokens.token())).await {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, AuthError::Refused { reason: Refusal::Client, .. }), "{refused}");
    }
    // A later caller gets the error without a request, because the clock stands still.
    let refused = tokens.token().await.unwrap_err();
    assert!(matches!(refused, AuthError::Waiting { .. }), "{refused}");
    assert!(matches!(refused.cause(), AuthError::Refused { reason: Refusal::Client, .. }), "{refused}");
    // A refused request took no slot, and is not recorded as if it had.
    assert_eq!(vault(&server).load().unwrap().slots.taken(), 0);
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_asked_for_that_could_not_be_kept() {
    let (server, clock) = setup().await;
    let disk = Disk::default();
    let tokens = TokenProvider::oauth(client(&server, &clock), disk.under(vault(&server), None));
    let first = tokens.token().await.unwrap();
    let granted = || server.gateway.authority().tokens(None).unwrap().len();
    assert_eq!(granted(), 2);
    disk.fails.store(true, Ordering::Relaxed);
    let refused = tokens.newer_than(first.generation()).await.unwrap_err();
    assert!(matches!(refused, AuthError::Vault(_)), "{refused}");
    assert_eq!(granted(), 2);
    disk.fails.store(false, Ordering::Relaxed);
    clock.advance(Duration::from_secs(60));
    tokens.newer_than(first.generation()).await.unwrap();
    assert_eq!(granted(), 3);
    tokens.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_dead_refresh_token_is_replaced_once_and_its_slot_is_free() {
    let (server, clock) = setup().await;
    let tokens = provider(&server, &clock);
    let first = tokens.token().await.unwrap();
    let dead = vault(&server).load().unwrap().tokens.unwrap().refresh.unwrap();
    assert!(client(&server, &clock).revoke(&dead).await.unwrap());
    let second = tokens.newer_than(first.generation()).await.unwrap();
    let slots =
        |state| vault(&server).load().unwrap().slots.iter().filter(|slot| slot.state == state).count();
    assert_eq!((slots(SlotState::Free), slots(SlotState::Held)), (1, 1));

    // A service that invalidates its tokens again and again is asked for no more of them.
    let dead = vault(&server).load().unwrap().tokens.unwrap().refresh.unwrap();
    assert!(client(&server, &clock).revoke(&dead).await.unwrap());
    clock.advance(Duration::from_secs(3_600));
    let third = tokens.newer_than(second.generation()).await.unwrap();
    let dead = vault(&server).load().unwrap().tokens.unwrap().refresh.unwrap();
    assert!(client(&server, &clock).revoke(&dead).await.unwrap());
    clock.advance(Duration::from_secs(5));
    let refused = tokens.newer_than(third.generation()).await.unwrap_err();
    assert!(matches!(refused.cause(), AuthError::Slots(SlotsError::TooSoon { .. })), "{refused}");
    server.stop().await;
}

/// A runtime that ends cancels its tasks, including the provider's.
#[test]
fn a_provider_outlives_the_runtime_it_was_first_used_in() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let serving = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (server, clock) = serving.block_on(setup());
    let tokens = provider(&server, &clock);
    let first = runtime().block_on(tokens.token()).unwrap();
    clock.advance(Duration::from_secs(3600));
    let second = runtime().block_on(tokens.token()).unwrap();
    assert_ne!(first.bearer(), second.bearer());
    serving.block_on(server.stop());
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
    assert_eq!(second.lifetime(), Some(Duration::from_secs(3_600)));
    // A caller that knows of the refusal may take an hour to ask again.
    clock.advance(Duration::from_secs(3_600));
    let third = tokens.newer_than(refused.generation()).await.unwrap();
    assert!(third.generation() > second.generation(), "an expired token was handed out");
    server.stop().await;
}

/// The disk under a vault. The disk may fail, and remembers the access tokens that reached it.
#[derive(Clone, Default)]
struct Disk {
    fails: Arc<AtomicBool>,
    saved: Arc<Mutex<HashSet<String>>>,
}

impl Disk {
    /// Puts the disk under `vault`, with a bug between the two, if any.
    fn under(&self, vault: Vault, bug: Option<PlantedTokenBug>) -> Vault {
        let (disk, seen) = (self.clone(), vault.clone());
        let failing = FailingVaultDisk::new(move |step| {
            if step == VaultStep::Renamed
                && let Some(tokens) = seen.load().unwrap().tokens
            {
                disk.saved.lock().unwrap().insert(tokens.access.expose_secret().to_owned());
            }
            if disk.fails.load(Ordering::Relaxed) { Err(io::Error::other("the disk fails")) } else { Ok(()) }
        });
        vault.with_disk(PlantedVaultDisk::new(failing, bug))
    }
}

/// A random history of one client's tokens: calls, refusals, time, a disk that fails, a process that
/// dies.
struct Fate<'a> {
    server: &'a Server,
    clock: &'a ManualClock,
    bug: Option<PlantedTokenBug>,
    disk: Disk,
    tokens: TokenProvider,
    /// Last token that was handed out.
    last: Option<AccessToken>,
}

impl<'a> Fate<'a> {
    fn new(server: &'a Server, clock: &'a ManualClock, bug: Option<PlantedTokenBug>) -> Fate<'a> {
        let disk = Disk::default();
        let tokens = Fate::provider(server, clock, &disk, bug);
        Fate { server, clock, bug, disk, tokens, last: None }
    }

    fn provider(
        server: &Server,
        clock: &ManualClock,
        disk: &Disk,
        bug: Option<PlantedTokenBug>,
    ) -> TokenProvider {
        TokenProvider::oauth(client(server, clock), disk.under(vault(server), bug))
    }

    async fn go_on(&mut self, random: &mut Random) {
        match random.below(6) {
            0 | 1 => self.take(self.tokens.token().await),
            2 if self.last.is_some() => {
                let generation = self.last.as_ref().unwrap().generation();
                self.take(self.tokens.newer_than(generation).await);
            }
            3 => self.clock.advance(Duration::from_secs(random.below(4_000) as u64)),
            4 => drop(self.disk.fails.fetch_xor(true, Ordering::Relaxed)),
            // The process dies, and another takes over.
            5 => {
                self.tokens = Fate::provider(self.server, self.clock, &self.disk, self.bug);
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

    /// Returns whether the last token that was handed out would survive a crash.
    fn is_safe(&self) -> bool {
        let saved = self.disk.saved.lock().unwrap();
        self.last.as_ref().is_none_or(|last| saved.contains(last.expose()))
    }
}

/// Plays the schedule of this seed. Returns whether every token was on the disk when it was handed out.
async fn play(seed: u64, bug: Option<PlantedTokenBug>) -> bool {
    let (server, clock) = setup().await;
    let mut random = Random::seeded(seed);
    let mut fate = Fate::new(&server, &clock, bug);
    let mut safe = true;
    for _ in 0..30 {
        fate.go_on(&mut random).await;
        safe &= fate.is_safe();
    }
    drop(fate);
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
