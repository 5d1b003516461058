//! Renewal of tokens in simulated time; see `voxline_testing::history`.

use std::time::Duration;

use voxline_testing::history::{Outage, PlantedClockBug, Tally, outage, play};

use voxline_fixtures::knob::knob;
use voxline_fixtures::random::{play_all, replay, seed};

/// Returns the number of histories: `VOXLINE_HISTORIES`, or 10,000.
fn histories() -> u64 {
    knob("VOXLINE_HISTORIES").unwrap_or(10_000)
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures that it prints")]
fn no_request_leaves_with_a_token_known_to_be_expired() {
    const TEST: &str = "tokens::history::no_request_leaves_with_a_token_known_to_be_expired";
    let first = seed();
    let tallies = play_all(first..first + histories(), |seed, tally: &mut Tally| match play(seed, None) {
        Ok(played) => *tally = tally.and(played),
        Err(breach) => panic!("{breach}; {}", replay(TEST, seed)),
    });
    let tally = tallies.into_iter().fold(Tally::default(), Tally::and);
    println!("{} histories from seed {first}: {tally:?}", histories());
    assert!(tally.sent > 0 && tally.asked > 0 && tally.shared > 0);

    let caught =
        (first..first + 100).find(|seed| play(*seed, Some(PlantedClockBug::WallClockAlone)).is_err());
    assert!(caught.is_some(), "ages told by the wall clock alone were not caught within 100 histories");
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures that it prints")]
fn an_endpoint_that_is_down_is_asked_rarely_and_used_again_soon() {
    const TEST: &str = "tokens::history::an_endpoint_that_is_down_is_asked_rarely_and_used_again_soon";
    let (mut most, mut slowest) = (0, Duration::ZERO);
    for seed in seed()..seed() + 200 {
        for age in [0, 30, 50, 56, 59].map(|minutes| Duration::from_secs(60 * minutes)) {
            let Outage { requests, served, back_after } = outage(seed, age);
            let replay = replay(TEST, seed);
            assert!(requests <= 70, "{requests} requests; {replay}");
            // The old token is served to its last second, give or take the two seconds that its request
            // took, and the second between two callers.
            let left = Duration::from_secs(3600 - 5).saturating_sub(age);
            assert!(served >= left, "served for {served:?} of {left:?}; {replay}");
            assert!(back_after <= Duration::from_secs(63), "back after {back_after:?}; {replay}");
            (most, slowest) = (most.max(requests), slowest.max(back_after));
        }
    }
    println!("1,000 outages of an hour: at most {most} requests, a token at most {slowest:?} after the end");
}
