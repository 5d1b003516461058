//! Accounting of a project's slots, through crashes at every step, lost responses and invalidated tokens:
//! the disk never counts fewer slots as taken than the service may have granted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Notify;
use voxline::auth::{AccessToken, Account, Credentials, OAuthClient, SlotState, TokenProvider, Vault};
use voxline::net::HttpClient;
use voxline_testing::{FailingVaultDisk, ManualClock, PlantedTokenBug, PlantedVaultDisk, VaultStep};

use super::SOON;
use voxline_fixtures::deadline::within;
use voxline_fixtures::random::{self, Random};

/// Documented limit of refresh tokens per project.
const SLOTS: usize = 25;
const DAY: Duration = Duration::from_secs(86_400);

/// HTTP client of all histories: reading the system's certificates takes longer than a whole history.
/// Each request has its own connection.
static HTTP: LazyLock<HttpClient> = LazyLock::new(|| HttpClient::new().unwrap());

/// Behaviour of the service on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// Grants the request and responds.
    Answers,
    /// Grants the request. The connection breaks before the response.
    LosesAnswers,
    /// Grants the request. An intermediary responds with 500.
    FailsAfterwards,
    /// Grants nothing: 503.
    Unavailable,
    /// Grants nothing: the secret is wrong.
    Refuses,
}

const MOODS: [Mood; 5] =
    [Mood::Answers, Mood::LosesAnswers, Mood::FailsAfterwards, Mood::Unavailable, Mood::Refuses];

/// The service's own account, and the violations that it finds in its client.
pub(super) struct Service {
    mood: Mood,
    /// Valid refresh tokens. Each of them holds a slot.
    alive: Vec<String>,
    pub(super) granted: u64,
    /// Notified when a request has arrived.
    asked: Arc<Notify>,
    /// Channel that releases the response to the next request.
    hold: Option<Receiver<()>>,
    /// The client's account, as it would be after a loss of power now.
    durable: Account,
    /// Violations by the client.
    breaches: Vec<String>,
}

/// Returns how many slots an account counts as taken.
fn counted(account: &Account) -> usize {
    account.slots.iter().filter(|slot| slot.state != SlotState::Free).count()
}

impl Service {
    /// Returns the response to a request, as a status and a body; `None` if the response is lost.
    fn answer(&mut self, body: &serde_json::Value) -> Option<(u16, String)> {
        let refresh = body["refresh_token"].as_str();
        match self.mood {
            Mood::Unavailable => return Some((503, String::new())),
            Mood::Refuses => return Some((401, r#"{"error":"invalid_client"}"#.to_owned())),
            Mood::Answers | Mood::LosesAnswers | Mood::FailsAfterwards => {}
        }
        match refresh {
            None => {
                if counted(&self.durable) <= self.alive.len() {
                    let (counted, alive) = (counted(&self.durable), self.alive.len());
                    self.breaches.push(format!(
                        "a slot is asked for, {alive} are taken, and the disk counts {counted}, this one included"
                    ));
                }
                if self.alive.len() >= SLOTS {
                    self.breaches.push(format!("a slot is asked for where {} are taken", self.alive.len()));
                    return Some((400, r#"{"error":"limit_exceeded"}"#.to_owned()));
                }
            }
            Some(refresh) => {
                // This service replaces a refresh token with each use.
                let Some(place) = self.alive.iter().position(|alive| alive == refresh) else {
                    return Some((400, r#"{"error":"invalid_grant"}"#.to_owned()));
                };
                if !self.durable.refreshing {
                    self.breaches.push("a refresh is asked for, and the disk knows nothing of it".to_owned());
                }
                self.alive.remove(place);
            }
        }
        self.granted += 1;
        let number = self.granted;
        self.alive.push(format!("refresh-{number}"));
        match self.mood {
            Mood::LosesAnswers => None,
            Mood::FailsAfterwards => Some((500, String::new())),
            _ => Some((
                200,
                format!(
                    r#"{{"access_token":"access-{number}","refresh_token":"refresh-{number}","expired_in":"3600"}}"#
                ),
            )),
        }
    }
}

/// The service behind a socket: HTTP/1.1, with a connection for each request.
pub(super) struct Endpoint {
    address: SocketAddr,
    service: Arc<Mutex<Service>>,
    over: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

impl Endpoint {
    fn start() -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let service = Arc::new(Mutex::new(Service {
            mood: Mood::Answers,
            alive: Vec::new(),
            granted: 0,
            asked: Arc::default(),
            hold: None,
            durable: Account::default(),
            breaches: Vec::new(),
        }));
        let over = Arc::new(AtomicBool::new(false));
        let serving = std::thread::spawn({
            let (service, over) = (service.clone(), over.clone());
            move || {
                for socket in listener.incoming() {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    // A client that has left gets no response.
                    let _ = serve(&socket.unwrap(), &service);
                }
            }
        });
        Endpoint { address, service, over, serving: Some(serving) }
    }

    /// Holds the response to the next request until `answer` receives a message. The returned
    /// notification tells that the request has arrived.
    pub(super) fn hold(&self, answer: Receiver<()>) -> Arc<Notify> {
        let mut service = self.service();
        service.hold = Some(answer);
        service.asked.clone()
    }

    pub(super) fn service(&self) -> MutexGuard<'_, Service> {
        self.service.lock().unwrap()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        let _ = self.serving.take().unwrap().join();
    }
}

fn serve(socket: &TcpStream, service: &Mutex<Service>) -> std::io::Result<()> {
    let mut input = BufReader::new(socket);
    let mut length = 0;
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        } else if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    let (asked, hold) = {
        let mut service = service.lock().unwrap();
        (service.asked.clone(), service.hold.take())
    };
    asked.notify_one();
    if let Some(hold) = hold {
        hold.recv_timeout(SOON).expect("an answer that is held is let go");
    }
    let answer = service.lock().unwrap().answer(&serde_json::from_slice(&body).unwrap());
    let Some((status, body)) = answer else { return Ok(()) };
    let mut socket = socket;
    write!(
        socket,
        "HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Returns a directory in memory, if the system has one: a thousand histories sync their files about ten
/// thousand times.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// One client of the service, with its disk, which may die after some steps.
pub(super) struct Client {
    pub(super) endpoint: Endpoint,
    clock: ManualClock,
    directory: TempDir,
    /// Number of steps after which the disk dies.
    steps: Arc<AtomicU64>,
    tokens: Option<TokenProvider>,
    bug: Option<PlantedTokenBug>,
}

impl Client {
    pub(super) fn new() -> Client {
        Client::planted(None)
    }

    /// Creates a client with this bug, if any.
    fn planted(bug: Option<PlantedTokenBug>) -> Client {
        let mut client = Client {
            endpoint: Endpoint::start(),
            clock: ManualClock::new(Duration::from_secs(1_700_000_000)),
            directory: directory(),
            steps: Arc::default(),
            tokens: None,
            bug,
        };
        client.begin();
        client
    }

    fn vault(directory: &Path, address: SocketAddr) -> Vault {
        Vault::new(&directory.join("tokens"), &format!("http://{address}").parse().unwrap(), "client")
    }

    /// Starts a process, with a disk that works.
    fn begin(&mut self) {
        self.steps.store(u64::MAX, Ordering::Relaxed);
        let address = self.endpoint.address;
        let vault = Client::vault(self.directory.path(), address);
        let (steps, service, seen) = (self.steps.clone(), self.endpoint.service.clone(), vault.clone());
        let disk = FailingVaultDisk::new(move |step| {
            let left = steps.load(Ordering::Relaxed);
            if left == 0 {
                return Err(std::io::Error::other("the machine has died"));
            }
            steps.store(left - 1, Ordering::Relaxed);
            if step == VaultStep::DirectorySynced {
                service.lock().unwrap().durable = seen.load().unwrap();
            }
            Ok(())
        });
        let credentials =
            Credentials { client_id: "client".to_owned(), client_secret: "secret".to_owned().into() };
        let endpoint = format!("http://{address}").parse().unwrap();
        let clock = Arc::new(self.clock.clone());
        let client = OAuthClient::new(HTTP.clone(), endpoint, credentials, clock);
        let vault = vault.with_disk(PlantedVaultDisk::new(disk, self.bug));
        self.tokens = Some(TokenProvider::oauth(client, vault));
    }

    /// Ends the process, and starts another.
    async fn restart(&mut self) {
        self.tokens.take().unwrap().close().await;
        self.begin();
    }

    pub(super) fn tokens(&self) -> &TokenProvider {
        self.tokens.as_ref().expect("a process runs")
    }

    async fn ask(&self) -> Option<AccessToken> {
        within(SOON, "an answer to the request for a token", self.tokens().token()).await.ok()
    }

    /// Compares the account on disk with the slots that the service has granted.
    fn check(&self) -> Result<(), String> {
        let mut service = self.endpoint.service();
        if let Some(breach) = service.breaches.pop() {
            return Err(breach);
        }
        let account = Client::vault(self.directory.path(), self.endpoint.address).load().unwrap();
        let alive = service.alive.len();
        for (name, counted) in [("file", counted(&account)), ("disk", counted(&service.durable))] {
            if counted < alive {
                return Err(format!("{alive} slots are taken, and the {name} counts {counted}"));
            }
        }
        Ok(())
    }
}

/// State of the client before a crash.
#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    /// A token that has expired.
    Expired,
    /// An expired token, whose refresh token the service has invalidated.
    Dead,
    /// An expired token, whose last refresh lost its response.
    RefreshLost,
    /// A request for a slot that got no response.
    Unanswered,
}

/// Has a process ask once while the machine dies after `steps` steps; later processes go on. Returns
/// whether the machine died.
async fn crash(before: Before, mood: Mood, steps: u64) -> Result<bool, String> {
    let mut client = Client::new();
    if matches!(before, Before::Unanswered) {
        client.endpoint.service().mood = Mood::LosesAnswers;
        client.ask().await;
    } else if !matches!(before, Before::Nothing) {
        client.ask().await.ok_or("no first token")?;
        client.clock.advance(DAY);
    }
    match before {
        Before::Dead => client.endpoint.service().alive.clear(),
        Before::RefreshLost => {
            client.endpoint.service().mood = Mood::LosesAnswers;
            client.ask().await;
        }
        Before::Nothing | Before::Expired | Before::Unanswered => {}
    }
    client.clock.advance(DAY);
    client.restart().await;
    client.check()?;
    client.endpoint.service().mood = mood;
    client.steps.store(steps, Ordering::Relaxed);
    client.ask().await;
    client.check()?;
    let died = client.steps.load(Ordering::Relaxed) == 0;
    for mood in [Mood::LosesAnswers, Mood::Answers] {
        client.restart().await;
        client.endpoint.service().mood = mood;
        client.clock.advance(DAY);
        client.ask().await;
        client.check()?;
    }
    client.tokens.take().unwrap().close().await;
    client.check()?;
    Ok(died)
}

#[tokio::test]
async fn a_crash_at_any_step_leaves_no_slot_that_the_disk_does_not_count() {
    for before in [Before::Nothing, Before::Expired, Before::Dead, Before::RefreshLost, Before::Unanswered] {
        for mood in MOODS {
            for steps in 0.. {
                match crash(before, mood, steps).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(breach) => panic!("{before:?}, {mood:?}, dead after {steps} steps: {breach}"),
                }
            }
        }
    }
}

/// Plays a history of random trouble, drawn by a seed.
async fn trouble(seed: u64, bug: Option<PlantedTokenBug>) -> Result<(), String> {
    let random = &mut Random::seeded(seed);
    let mut client = Client::planted(bug);
    for _ in 0..60 {
        let mood = MOODS[random.below(MOODS.len())];
        client.endpoint.service().mood = mood;
        match random.below(8) {
            0 => client.restart().await,
            1 => {
                client.steps.store(random.below(26) as u64, Ordering::Relaxed);
                client.ask().await;
                client.restart().await;
            }
            2 => drop(client.endpoint.service().alive.pop()),
            _ => drop(client.ask().await),
        }
        client.check()?;
        client.clock.advance(Duration::from_secs(1 << random.below(20)));
    }
    client.tokens.take().unwrap().close().await;
    client.check()
}

/// Responses that are lost day after day fill all slots, and no further slot is requested.
async fn loss() -> Result<(), String> {
    let client = Client::new();
    client.endpoint.service().mood = Mood::LosesAnswers;
    for _ in 0..2 * SLOTS {
        client.ask().await;
        client.check()?;
        client.clock.advance(DAY);
    }
    let taken = client.endpoint.service().alive.len();
    if taken == SLOTS { Ok(()) } else { Err(format!("{taken} slots were taken")) }
}

#[tokio::test]
async fn no_history_takes_a_slot_that_the_disk_does_not_count() {
    const TEST: &str = "tokens::slots::no_history_takes_a_slot_that_the_disk_does_not_count";
    loss().await.unwrap();
    let first = random::moving_seed();
    for seed in first..first + 40 {
        if let Err(breach) = trouble(seed, None).await {
            panic!("history {seed}: {breach}\n{}", random::replay(TEST, seed));
        }
    }
    // A bug in the order of these steps is caught soon.
    assert!(trouble(first, Some(PlantedTokenBug::AskedBeforeSaved)).await.is_err());
}
