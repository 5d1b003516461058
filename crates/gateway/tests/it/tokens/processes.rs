//! Processes that share one vault, and processes that are killed: neither costs the project a slot.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use voxline::auth::{Credentials, MAX_SLOTS, OAuthClient, TokenProvider, Vault};
use voxline::clock::Clock;
use voxline::error::chain;
use voxline::net::{Endpoint, HttpClient};
use voxline_gateway::authority::AuthorityError;
use voxline_testing::{DigestRecognizer, ManualClock};

use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::random::Random;

const DIRECTORY: &str = "VOXLINE_CLIENT_DIRECTORY";
const ENDPOINT: &str = "VOXLINE_CLIENT_ENDPOINT";
const ID: &str = "VOXLINE_CLIENT_PROCESS_ID";
const SECRET: &str = "VOXLINE_CLIENT_PROCESS_SECRET";
/// Time at which all clocks start, since the Unix epoch.
const BEGINNING: Duration = Duration::from_secs(1_700_000_000);

/// Runs a client that obtains a token for each time that it reads from standard input, and prints the
/// token.
#[tokio::test]
#[ignore = "a process for other tests, which start it"]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "how the two processes talk")]
async fn client_process() {
    let told = |name| std::env::var(name).expect("only its tests run this");
    let endpoint: Endpoint = told(ENDPOINT).parse().unwrap();
    let credentials = Credentials { client_id: told(ID), client_secret: told(SECRET).into() };
    let clock = ManualClock::new(BEGINNING);
    let vault = Vault::new(told(DIRECTORY).as_ref(), &endpoint, &credentials.client_id);
    let client = OAuthClient::new(HttpClient::new().unwrap(), endpoint, credentials, Arc::new(clock.clone()));
    let tokens = TokenProvider::oauth(client, vault);
    loop {
        let line = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await.unwrap();
        let Some(line) = line else { return };
        let now = Duration::from_secs(line.unwrap().parse().unwrap());
        clock.advance(now - clock.unix());
        match tokens.token().await {
            Ok(token) => println!("\ntoken {}", token.expose()),
            Err(error) => println!("\nerror {}", chain(&error)),
        }
    }
}

struct Client {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(server: &Server) -> Client {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tokens::processes::client_process", "--ignored", "--nocapture"])
            .env(DIRECTORY, server.vault.path().join("tokens"))
            .env(ENDPOINT, server.endpoint().to_string())
            .env(ID, &server.credentials.client_id)
            .env(SECRET, server.credentials.client_secret.expose_secret())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Client { child, stdin, lines }
    }

    fn tell(&mut self, clock: &ManualClock) {
        writeln!(self.stdin, "{}", clock.unix().as_secs()).unwrap();
    }

    /// Returns the token that the client obtained, or its error.
    fn answer(&mut self) -> Result<String, String> {
        loop {
            let line = self.lines.next().expect("the client goes on").unwrap();
            match line.split_once(' ') {
                Some(("token", token)) => return Ok(token.to_owned()),
                Some(("error", error)) => return Err(error.to_owned()),
                _ => {}
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn setup() -> (Server, ManualClock) {
    let clock = ManualClock::new(BEGINNING);
    let setup = Setup { clock: Arc::new(clock.clone()), ..Setup::default() };
    (Server::with(Arc::new(DigestRecognizer::new(16_000)), setup).await, clock)
}

fn vault(server: &Server) -> Vault {
    Vault::new(&server.vault.path().join("tokens"), &server.endpoint(), &server.credentials.client_id)
}

/// Returns how many of the possible tokens are in use. Obtains all remaining tokens to find out.
fn used(mut get: impl FnMut() -> Result<(), AuthorityError>) -> usize {
    let mut left = 0;
    loop {
        match get() {
            Ok(()) => left += 1,
            Err(AuthorityError::Limit(_)) => return MAX_SLOTS - left,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_expiries_shared_by_sixteen_processes_cost_a_hundred_refreshes() {
    let (server, clock) = setup().await;
    let (id, secret) = (server.credentials.client_id.clone(), server.credentials.client_secret.clone());
    let server = tokio::task::spawn_blocking(move || {
        let mut clients: Vec<Client> = (0..16).map(|_| Client::start(&server)).collect();
        let authority = server.gateway.authority();
        for round in 0..=100 {
            clients.iter_mut().for_each(|client| client.tell(&clock));
            let tokens: Vec<String> = clients.iter_mut().map(|client| client.answer().unwrap()).collect();
            assert!(tokens.iter().all(|token| *token == tokens[0]), "round {round}");
            // One access token of this refresh token is alive: the clients share it, and none of them
            // obtained another.
            let refresh = vault(&server).load().unwrap().tokens.unwrap().refresh.unwrap();
            assert_eq!(used(|| authority.refresh(&id, refresh.0.clone()).map(drop)), 1, "round {round}");
            clock.advance(Duration::from_secs(3600));
        }
        assert_eq!(used(|| authority.client_credentials(&id, &secret).map(drop)), 1);
        drop(clients);
        server
    });
    server.await.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_restarts_by_kill_cost_one_slot() {
    let (server, clock) = setup().await;
    let (id, secret) = (server.credentials.client_id.clone(), server.credentials.client_secret.clone());
    let mut random = Random::for_test("tokens::processes::a_hundred_restarts_by_kill_cost_one_slot");
    let server = tokio::task::spawn_blocking(move || {
        let authority = server.gateway.authority();
        let mut served = 0;
        for _ in 0..100 {
            let mut client = Client::start(&server);
            client.tell(&clock);
            match random.below(3) {
                // Killed as soon as it has a response.
                0 => served += usize::from(client.answer().is_ok()),
                // Killed before it has a response. The kill is the fault, and any time for it will do.
                _ => std::thread::park_timeout(Duration::from_millis(random.below(60) as u64)),
            }
        }
        // If the first client was killed between its request and the response, it left no token, and the
        // later clients wait.
        let mut most = 1;
        if served == 0 {
            clock.advance(Duration::from_secs(10));
            let mut client = Client::start(&server);
            client.tell(&clock);
            client.answer().unwrap();
            most = 2;
        }
        let used = used(|| authority.client_credentials(&id, &secret).map(drop));
        assert!((1..=most).contains(&used), "{used} slots, served {served}");
        server
    });
    server.await.unwrap().stop().await;
}
