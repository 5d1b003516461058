//! Durability: after a crash at any step of the disk, every answered change holds and nothing else has
//! happened.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use voxline::clock::SystemClock;
use voxline_gateway::admin::{Answer, Command, administer};
use voxline_gateway::authority::{
    Authority, AuthorityError, Granted, MAX_TOKENS, NewClient, Policy, Refreshing, Terms,
};
use voxline_testing::FailingDisk;

use voxline_fixtures::gateway::authority::{HOUR, clock, is_good};
use voxline_fixtures::gateway::http::http_client;
use voxline_fixtures::gateway::process::{GatewayProcess, kills};
use voxline_fixtures::random::Random;

/// Number of changes that are made.
const CHANGES: usize = 24;

fn open(disk: FailingDisk) -> Authority {
    let policy = Policy { refreshing: Refreshing::Rotate, ..Policy::default() };
    Authority::on_disk(disk, HOUR, Arc::new(clock())).unwrap().with_policy(policy)
}

/// The changes that were answered until the disk failed.
struct Life {
    client: NewClient,
    good: Vec<SecretString>,
    dead: Vec<SecretString>,
    /// Grant of each slot, and the access tokens obtained by refreshing since.
    slots: Vec<(Granted, Vec<SecretString>)>,
    /// IDs of all tokens after the last answered change.
    ids: BTreeSet<String>,
    /// Number of IDs that the unanswered change adds, and number that it removes.
    pending: (usize, usize),
}

fn ids(authority: &Authority) -> BTreeSet<String> {
    let tokens = authority.tokens(None).unwrap().into_iter().map(|token| token.id);
    tokens.chain(authority.service_tokens(None).unwrap().into_iter().map(|token| token.id)).collect()
}

impl Life {
    fn new(authority: &Authority) -> Life {
        let client = authority.create_project("a").unwrap();
        let (good, dead, slots) = (Vec::new(), Vec::new(), Vec::new());
        Life { client, good, dead, slots, ids: BTreeSet::new(), pending: (0, 0) }
    }

    /// Removes a token from the valid ones. Until its revocation is answered, the token may be valid or
    /// revoked.
    fn forget(&mut self, token: &SecretString) {
        self.good.retain(|good| good.expose_secret() != token.expose_secret());
    }

    /// Makes the next change.
    fn go_on(&mut self, authority: &Authority, number: usize) -> Result<(), AuthorityError> {
        let id = self.client.client_id.clone();
        let id = id.as_str();
        match number % 6 {
            0 | 1 => {
                self.pending = (2, 0);
                let granted = authority.client_credentials(id, &self.client.client_secret)?;
                self.good.push(granted.access_token.clone());
                self.slots.push((granted, Vec::new()));
            }
            2 => {
                self.pending = (1, 0);
                let (slot, bought) = self.slots.last_mut().unwrap();
                let granted = authority.refresh(id, slot.refresh_token.clone())?;
                self.good.push(granted.access_token.clone());
                bought.push(granted.access_token);
                slot.refresh_token = granted.refresh_token;
            }
            3 => {
                self.pending = (1, 0);
                let service = authority.create_service_token("a", Terms::default())?;
                self.good.push(service.token);
            }
            4 => {
                self.pending = (0, 1);
                let token = self.slots[0].0.access_token.clone();
                self.forget(&token);
                authority.revoke_shown(id, &token)?;
                self.dead.push(token);
            }
            // Revokes the slot whose first access token was revoked before, with all its other access
            // tokens.
            _ => {
                let (slot, bought) = self.slots.remove(0);
                self.pending = (0, 1 + bought.len());
                bought.iter().for_each(|token| self.forget(token));
                authority.revoke_shown(id, &slot.refresh_token)?;
                self.dead.extend(bought);
            }
        }
        self.ids = ids(authority);
        self.pending = (0, 0);
        Ok(())
    }

    /// Checks that every answered change holds, and that at most the one whole unanswered change was made
    /// besides.
    fn check(&self, authority: &Authority) {
        for token in &self.good {
            assert!(is_good(authority, token), "a token that was granted is lost");
        }
        for token in &self.dead {
            assert!(!is_good(authority, token), "a token that was revoked is back");
        }
        let ids = ids(authority);
        let change = (ids.difference(&self.ids).count(), self.ids.difference(&ids).count());
        assert!(change == (0, 0) || change == self.pending, "{change:?}, not {:?}", self.pending);
    }
}

#[test]
fn a_crash_at_any_step_keeps_what_was_answered() {
    let disk = FailingDisk::new();
    let authority = open(disk.clone());
    let mut life = Life::new(&authority);
    let first = disk.steps();
    for number in 0..CHANGES {
        life.go_on(&authority, number).unwrap();
    }
    let steps = disk.steps() - first;
    assert!(steps >= 2 * CHANGES as u64, "{steps} steps");

    let mut random = Random::for_test("authority::crashes::a_crash_at_any_step_keeps_what_was_answered");
    for step in 0..steps {
        let disk = FailingDisk::new();
        let authority = open(disk.clone());
        let mut life = Life::new(&authority);
        disk.fail_after(step);
        let failed = (0..CHANGES).find(|number| life.go_on(&authority, *number).is_err());
        assert!(failed.is_some(), "the disk did not fail at step {step}");
        let bits = random.next();
        let survivors: [&dyn Fn(usize) -> bool; 4] =
            [&|_| false, &|_| true, &|step| step % 2 == 0, &|step| bits >> (step % 64) & 1 == 1];
        for survives in survivors {
            let authority = open(disk.after_a_crash(survives));
            life.check(&authority);
        }
    }
}

#[test]
fn the_limit_holds_after_a_crash() {
    let mut random = Random::for_test("authority::crashes::the_limit_holds_after_a_crash");
    for _ in 0..20 {
        let mut disk = FailingDisk::new();
        let mut authority = open(disk.clone());
        let client = authority.create_project("a").unwrap();
        loop {
            disk.fail_after(random.below(40) as u64);
            let refused = loop {
                match authority.client_credentials(&client.client_id, &client.client_secret) {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            if matches!(refused, AuthorityError::Limit(_)) {
                break;
            }
            let bits = random.next();
            disk = disk.after_a_crash(|step| bits >> (step % 64) & 1 == 1);
            authority = open(disk.clone());
            assert!(authority.projects().unwrap()[0].refresh_tokens <= MAX_TOKENS);
        }
        assert_eq!(authority.projects().unwrap()[0].refresh_tokens, MAX_TOKENS);
    }
}

/// A client that requests tokens and revokes them, and remembers what was answered.
#[derive(Default)]
struct Asking {
    /// Pairs of refresh token and access token.
    good: Vec<(String, String)>,
    dead: Vec<String>,
}

impl Asking {
    /// Sends requests until the gateway no longer answers.
    async fn go_on(&mut self, base: &str, client: &NewClient, http: &Client) {
        let (client_id, secret) = (&client.client_id, client.client_secret.expose_secret());
        let post =
            |path: &str, body: Value| http.post(format!("{base}/auth/oauth/v1/{path}")).json(&body).send();
        loop {
            let body = json!({
                "client_id": client_id, "client_secret": secret, "grant_type": "client_credentials",
            });
            let Ok(answer) = post("token", body).await else { return };
            let Ok(answer) = answer.json::<Value>().await else { return };
            let token = |name: &str| answer[name].as_str().unwrap().to_owned();
            self.good.push((token("refresh_token"), token("access_token")));
            if self.good.len() > 3 {
                // Until the revocation is answered, the token may be valid or revoked.
                let (refresh, access) = self.good.remove(0);
                let body = json!({ "client_id": client_id, "token": refresh });
                match post("revoke", body).await {
                    Ok(answer) if answer.status() == StatusCode::OK => self.dead.push(access),
                    _ => return,
                }
            }
        }
    }

    /// Checks that the gateway still knows everything it has answered.
    async fn check(&self, base: &str, http: &Client) {
        let status = async |token: &str| {
            http.get(format!("{base}/tts")).bearer_auth(token).send().await.unwrap().status()
        };
        // 400 for the missing text means that the token is valid.
        for (_, token) in &self.good {
            assert_eq!(status(token).await, StatusCode::BAD_REQUEST);
        }
        for token in &self.dead {
            assert_eq!(status(token).await, StatusCode::UNAUTHORIZED);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_killed_keeps_its_word() {
    let mut random = Random::for_test("authority::crashes::a_gateway_that_is_killed_keeps_its_word");
    let (mut gateway, http) = (GatewayProcess::start(), http_client().unwrap());
    let (base, state) = (format!("http://{}", gateway.address), gateway.state());
    let mut revoked = 0;
    for kill in 0..kills() {
        let Answer::NewClient(client) =
            command(&state, Command::CreateProject { name: kill.to_string(), languages: None }).await
        else {
            panic!("no client")
        };
        let mut asking = Asking::default();
        let killing = async {
            // The moment of the kill is the fault, and any moment will do.
            tokio::time::sleep(Duration::from_millis(20 + random.below(200) as u64)).await;
            let killing = tokio::task::spawn_blocking(move || {
                gateway.kill();
                gateway
            });
            killing.await.unwrap()
        };
        (gateway, ()) = tokio::join!(killing, asking.go_on(&base, &client, &http));
        let restarting = tokio::task::spawn_blocking(move || {
            gateway.restart();
            gateway
        });
        gateway = restarting.await.unwrap();
        asking.check(&base, &http).await;
        revoked += asking.dead.len();
        let Answer::Projects(projects) = command(&state, Command::ListProjects).await else {
            panic!("no projects")
        };
        let slots = projects.iter().find(|project| project.name == kill.to_string()).unwrap().refresh_tokens;
        // The unanswered change may have been made.
        assert!((asking.good.len()..=asking.good.len() + 1).contains(&slots), "{slots}");
    }
    assert!(revoked > 0, "every kill came too early to hit anything");
}

/// Runs an operator command at the running gateway of this state directory.
async fn command(state: &Path, command: Command) -> Answer {
    let state = state.to_owned();
    let asking = move || administer(&state, command, Arc::new(SystemClock::new())).unwrap();
    tokio::task::spawn_blocking(asking).await.unwrap()
}
