//! Sessions over a simulated network with the real WebSocket, in time that passes only when every task
//! waits. A run plays a thousand seeds, or as many as `VOXLINE_NETWORKS` says, and checks the promises that
//! involve time.

mod journal;
mod turns;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use sha2::{Digest, Sha256};
use voxline_testing::Planted;

use self::world::{Story, World, bytes, simulate};
use voxline_fixtures::knob::knob;
use voxline_fixtures::noise;
use voxline_fixtures::random;

/// Returns the number of networks to play.
fn networks() -> u64 {
    knob("VOXLINE_NETWORKS").unwrap_or(1_000)
}

/// Totals of the runs.
#[derive(Default)]
struct Tally {
    reconnects: u64,
    handovers: u64,
    renewals: u64,
    repeated: u64,
    struck: usize,
    sessions: u64,
}

impl Tally {
    fn add(&mut self, story: &Story) {
        let ledger = &story.ended.ledger;
        self.reconnects += ledger.reconnects;
        self.handovers += ledger.handovers;
        self.renewals += ledger.token_renewals;
        self.repeated += story.recording.repeated();
        self.struck += story.traces.iter().filter(|trace| trace.struck.is_some()).count();
        self.sessions += story.sessions;
    }
}

/// Plays the network of this seed.
fn play(seed: u64, tally: &mut Tally) {
    const TEST: &str = "network::a_thousand_networks_lose_nothing_and_repeat_nothing";
    let replay = random::replay(TEST, seed);
    match catch_unwind(|| World::draw(seed).judge()) {
        Ok(Ok(story)) => tally.add(&story),
        Ok(Err(breach)) => panic!("network {seed}: {breach}\n{replay}"),
        Err(_) => panic!("network {seed}: the session panicked\n{replay}"),
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "the figures of a long run")]
fn a_thousand_networks_lose_nothing_and_repeat_nothing() {
    let (first, count) = (random::moving_seed(), networks());
    let tallies = random::play_all(first..first + count, play);
    let sum = |value: fn(&Tally) -> u64| tallies.iter().map(value).sum::<u64>();
    let (reconnects, handovers) = (sum(|tally| tally.reconnects), sum(|tally| tally.handovers));
    let (renewals, repeated) = (sum(|tally| tally.renewals), sum(|tally| tally.repeated));
    let (struck, sessions) = (sum(|tally| tally.struck as u64), sum(|tally| tally.sessions));
    println!(
        "{count} networks from seed {first}: {struck} faults, {reconnects} reconnects, {handovers} handovers, {renewals} token renewals, {sessions} sessions on servers, {repeated} frames heard twice"
    );
    if count >= 100 {
        // Otherwise the faults do not strike.
        assert!(struck > count && reconnects > count / 2 && sessions > count + count / 10);
        assert!(handovers > count / 20 && renewals > count / 20 && repeated > 100 * count);
    }
}

#[test]
fn the_same_seed_gives_the_same_log() {
    for seed in 0..60 {
        let [one, two] = [(); 2].map(|()| World::draw(seed).judge().unwrap());
        assert!(!one.log.is_empty(), "network {seed}");
        assert_eq!(one.log, two.log, "network {seed}");
        // Not only the events, but every byte count and time below them.
        assert_eq!(one.traces, two.traces, "network {seed}");
    }
}

/// Bugs that other projects have shipped are caught soon, by the data that the peer and the user see. A
/// panic of the session itself does not count.
#[test]
fn planted_bugs_are_caught() {
    for bug in [Planted::DeliveredBeforeSent, Planted::ChunkInFlightForgotten, Planted::ReplayFromSent] {
        let caught = (0..100).any(|seed| {
            let mut world = World::draw(seed);
            world.plant(bug);
            matches!(catch_unwind(AssertUnwindSafe(|| world.judge())), Ok(Err(_)))
        });
        assert!(caught, "{bug:?} was not caught within 100 networks");
    }
}

/// The peer holds the same bytes however the audio is cut and whatever faults strike.
#[test]
fn the_peer_holds_the_same_bytes_however_they_came() {
    let pcm = noise(20_011);
    let truth = Sha256::digest(bytes(&pcm));
    let mut faults = 0;
    for seed in 0..100 {
        let mut world = World::draw(random::seed() + 10_000 + seed);
        world.feed(pcm.clone());
        let story = simulate(world.play(true));
        let held =
            story.recording.bytes().unwrap_or_else(|| panic!("network {}: frames are missing", world.seed));
        assert_eq!(Sha256::digest(held), truth, "network {}", world.seed);
        faults += story.traces.iter().filter(|trace| trace.struck.is_some()).count();
    }
    assert!(faults > 100);
}
