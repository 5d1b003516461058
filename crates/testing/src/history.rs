//! Random histories of tokens, played on the logic of the token provider in simulated time: wall clocks are
//! set, machines sleep and reboot, token endpoints fail, and processes that share a vault die.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::ManualClock;
use voxline::auth::{AccessToken, AuthError, TokenSet};
use voxline::internals::{Renewal, Renewed, Step, TokenLookup};
use voxline_support::clock::{Clock, Moment};
use voxline_support::random::{Random, mix};

/// Wall clock at the start of every history, since the Unix epoch.
const BEGINNING: Duration = Duration::from_secs(1_700_000_000);
const HOUR: Duration = Duration::from_secs(3600);
/// Longest time a request may take. A quarter of a token's lifetime is the limit if that is less.
const LONGEST_REQUEST: Duration = Duration::from_secs(2);
/// Number of processes that share the vault.
const PROCESSES: usize = 3;

/// A bug to plant, so that a test can show that the histories catch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedClockBug {
    /// Ages are measured by the wall clock alone.
    WallClockAlone,
}

/// Counts of what happened in a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that left with a token.
    pub sent: u64,
    /// Requests to the token endpoint.
    pub asked: u64,
    /// Tokens taken from the vault instead of the endpoint.
    pub shared: u64,
    /// Disturbances: a clock set, a machine rebooted or put to sleep, a process killed, an outage, a
    /// revocation, or time that merely passed.
    pub disturbed: u64,
}

impl Tally {
    /// Returns the sum of both tallies.
    #[must_use]
    pub fn and(self, other: Tally) -> Tally {
        Tally {
            sent: self.sent + other.sent,
            asked: self.asked + other.asked,
            shared: self.shared + other.shared,
            disturbed: self.disturbed + other.disturbed,
        }
    }
}

/// Plays the history of `seed`.
///
/// # Errors
/// Returns a description of the violation if a request left with a token known to be expired, or if no
/// token could be had although the endpoint was up.
pub fn play(seed: u64, bug: Option<PlantedClockBug>) -> Result<Tally, String> {
    let mut random = Random::new(mix(seed));
    // Log-uniform from 1 s to 65,536 s (18 h): short lifetimes are as frequent as long ones.
    let lifetime = Duration::from_secs((1 << random.below(17)).min(86_400));
    let mut world = World::new(random, lifetime, bug);
    for _ in 0..60 {
        world.disturb();
        world.ask_all()?;
    }
    world.settle()?;
    Ok(world.tally)
}

/// Result of an hour's outage of the token endpoint, with one request for a token every second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Number of requests that reached the endpoint, or would have reached it.
    pub requests: u64,
    /// Time for which the old token was still served.
    pub served: Duration,
    /// Time from the end of the outage until a new token was available.
    pub back_after: Duration,
}

/// Plays an outage of one hour. It begins when the token has lived for `age` of its hour.
///
/// # Panics
/// Panics if no new token comes within an hour after the outage.
#[must_use]
pub fn outage(seed: u64, age: Duration) -> Outage {
    let mut world = World::new(Random::new(mix(seed)), HOUR, None);
    world.processes.truncate(1);
    world.ask(0);
    world.run(age.max(LONGEST_REQUEST));
    let generation = |answer| match answer {
        TokenLookup::Token(token) => Some(token.generation()),
        _ => None,
    };
    let old = generation(world.ask(0));
    let (began, before) = (world.now, world.tally.asked);
    let ends = began + HOUR;
    world.down_until = ends;
    let mut served = Duration::ZERO;
    while world.now < ends {
        if generation(world.ask(0)).is_some() {
            served = world.now - began;
        }
        world.run(Duration::from_secs(1));
    }
    let requests = world.tally.asked - before;
    while generation(world.ask(0)) <= old {
        assert!(world.now < ends + HOUR, "no token came");
        world.run(Duration::from_millis(100));
    }
    Outage { requests, served, back_after: world.now - ends }
}

/// A token as the endpoint knows it. The token's text is its index in the endpoint's list.
struct Granted {
    ends: Duration,
    /// Wall clock and boot number of the machine when the token was granted, as seen from outside.
    wall: Duration,
    boot: u32,
    revoked: bool,
}

/// A process with a token provider.
struct Process {
    renewal: Renewal,
    /// Renewal that waits for the vault's lock, with its stale token if there is one.
    waits: Option<Option<SecretString>>,
    /// Request under way: when it completes, and its outcome.
    request: Option<(Duration, Result<TokenSet, AuthError>)>,
}

struct World {
    /// True time since the beginning, which no process in this world can see.
    now: Duration,
    clock: ManualClock,
    boot: u32,
    lifetime: Duration,
    down_until: Duration,
    endpoint: Vec<Granted>,
    vault: Option<TokenSet>,
    processes: Vec<Process>,
    random: Random,
    bug: Option<PlantedClockBug>,
    tally: Tally,
}

impl World {
    fn new(random: Random, lifetime: Duration, bug: Option<PlantedClockBug>) -> World {
        let mut world = World {
            now: Duration::ZERO,
            clock: ManualClock::new(BEGINNING),
            boot: 0,
            lifetime,
            down_until: Duration::ZERO,
            endpoint: Vec::new(),
            vault: None,
            processes: Vec::new(),
            random,
            bug,
            tally: Tally::default(),
        };
        world.processes = (0..PROCESSES).map(|_| world.process()).collect();
        world
    }

    fn process(&mut self) -> Process {
        let renewal = Renewal::new("http://localhost".to_owned(), self.random.next());
        Process { renewal, waits: None, request: None }
    }

    /// Returns the present moment as the processes see it.
    fn moment(&mut self) -> Moment {
        let mut moment = self.clock.moment();
        if self.bug == Some(PlantedClockBug::WallClockAlone) {
            moment.boot = self.random.next().to_string().into();
        }
        moment
    }

    /// Applies a random disturbance.
    fn disturb(&mut self) {
        self.tally.disturbed += 1;
        match self.random.below(12) {
            0 => self.clock.set(self.clock.unix() + self.random.up_to(HOUR)),
            1 => self.clock.set(self.clock.unix().saturating_sub(self.random.up_to(HOUR))),
            2 => {
                // All processes die with the machine and start with it again.
                self.clock.reboot();
                self.boot += 1;
                self.processes = (0..PROCESSES).map(|_| self.process()).collect();
            }
            // The machine sleeps: no process runs.
            3 => {
                let time = self.random.up_to(2 * self.lifetime);
                self.pass(time);
            }
            4 => {
                let victim = self.random.below(PROCESSES as u64) as usize;
                self.processes[victim] = self.process();
            }
            5 => self.down_until = self.now + self.random.up_to(HOUR),
            6 => self.endpoint.last_mut().into_iter().for_each(|token| token.revoked = true),
            7..=9 => {
                let time = self.random.up_to(self.lifetime / 4);
                self.run(time);
            }
            _ => {
                let time = self.random.up_to(2 * self.lifetime);
                self.run(time);
            }
        }
    }

    fn ask(&mut self, process: usize) -> TokenLookup {
        let now = self.moment();
        self.processes[process].renewal.ask(None, &now)
    }

    /// Lets every process that has a token send a request.
    fn ask_all(&mut self) -> Result<(), String> {
        for process in 0..self.processes.len() {
            if let TokenLookup::Token(token) = self.ask(process) {
                self.send(process, &token)?;
            }
        }
        Ok(())
    }

    /// Sends a request. If its token was revoked, the endpoint answers 401 and the process asks for another
    /// token.
    fn send(&mut self, process: usize, token: &AccessToken) -> Result<(), String> {
        self.tally.sent += 1;
        let number: usize = token.expose().parse().expect("tokens are numbers here");
        let granted = &self.endpoint[number];
        let by_wall = self.clock.unix().checked_sub(granted.wall);
        let expired = if granted.boot == self.boot {
            self.now >= granted.ends
        } else {
            // The machine was rebooted, so only the wall clock is left to tell the token's age.
            by_wall.is_none_or(|age| age >= self.lifetime)
        };
        if expired {
            let Granted { ends, .. } = granted;
            return Err(format!("token {number} left at {:?}, but ended at {ends:?}", self.now));
        }
        if granted.revoked {
            let now = self.moment();
            let _ = self.processes[process].renewal.ask(Some(token.generation()), &now);
        }
        Ok(())
    }

    /// Checks that every process gets a token within the longest wait and a request, once all disturbances
    /// are over.
    fn settle(&mut self) -> Result<(), String> {
        self.down_until = self.now;
        for _ in 0..130 {
            self.run(Duration::from_secs(1));
            self.ask_all()?;
        }
        for process in 0..self.processes.len() {
            // The token may have ended just now. Then the next one is under way, unless the two other
            // processes ask first.
            let patience = 3 * 2 * LONGEST_REQUEST.as_secs();
            let served = (0..patience).any(|_| {
                let answer = self.ask(process);
                self.run(Duration::from_millis(500));
                matches!(answer, TokenLookup::Token(_))
            });
            if !served {
                let Process { renewal, .. } = &self.processes[process];
                return Err(format!("process {process} has no token in the end: {renewal:?}"));
            }
        }
        Ok(())
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.clock.advance(time);
    }

    /// Lets all processes work for `time`.
    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let next = self.work();
            if next >= until {
                self.pass(until - self.now);
                return;
            }
            self.pass(next - self.now);
        }
    }

    /// Does everything that is due. Returns the time of the next event.
    fn work(&mut self) -> Duration {
        let mut next = Duration::MAX;
        for index in 0..self.processes.len() {
            if self.processes[index].request.as_ref().is_some_and(|(done, _)| *done <= self.now) {
                let (_, outcome) = self.processes[index].request.take().expect("just seen");
                if let Ok(tokens) = &outcome {
                    self.vault = Some(tokens.clone());
                }
                let now = self.moment();
                let outcome = outcome.map(|tokens| Renewed { tokens, shared: false });
                let _ = self.processes[index].renewal.done(outcome, &now);
            }
            let now = self.moment();
            match self.processes[index].renewal.next(&now) {
                Step::Renew { stale } => self.processes[index].waits = Some(stale),
                Step::Wait(time) => next = next.min(self.now + time),
                Step::Idle => {}
            }
        }
        for index in 0..self.processes.len() {
            let locked = self.processes.iter().any(|process| process.request.is_some());
            if !locked && let Some(stale) = self.processes[index].waits.take() {
                self.renew(index, stale.as_ref());
                // The outcome may be available already.
                next = self.now;
            }
        }
        let done =
            self.processes.iter().filter_map(|process| process.request.as_ref().map(|(done, _)| *done));
        done.fold(next, Duration::min)
    }

    /// Does what the provider does while it holds the vault's lock.
    fn renew(&mut self, process: usize, stale: Option<&SecretString>) {
        let now = self.moment();
        let other = |tokens: &&TokenSet| {
            stale.is_none_or(|stale| stale.expose_secret() != tokens.access.expose_secret())
        };
        if let Some(tokens) = self.vault.as_ref().filter(|tokens| !tokens.is_expired(&now)).filter(other) {
            self.tally.shared += 1;
            let renewed = Renewed { tokens: tokens.clone(), shared: true };
            let _ = self.processes[process].renewal.done(Ok(renewed), &now);
            return;
        }
        self.tally.asked += 1;
        let takes = self.random.up_to(LONGEST_REQUEST.min(self.lifetime / 4));
        let arrives = self.now + self.random.up_to(takes);
        let outcome = if arrives < self.down_until {
            Err(AuthError::Unreachable {
                endpoint: "http://localhost".to_owned(),
                source: std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into(),
                may_have_arrived: false,
            })
        } else {
            let access = SecretString::from(self.endpoint.len().to_string());
            let (ends, wall) = (arrives + self.lifetime, self.clock.unix());
            self.endpoint.push(Granted { ends, wall, boot: self.boot, revoked: false });
            let lifetime = self.lifetime;
            Ok(TokenSet { access, refresh: None, granted: now, lifetime, scope: None })
        };
        self.processes[process].request = Some((self.now + takes, outcome));
    }
}
