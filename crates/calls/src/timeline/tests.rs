use bytes::Bytes;

use super::*;
use crate::peers::Track;
use voxline_support::random::Random;

/// Frames of a packet: 20 ms at 8 kHz.
const FRAMES: u64 = 160;
const RATE: u32 = 8_000;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A packet whose payload is its number.
fn packet(number: u64, sequence: Option<u64>, timestamp: Option<u64>) -> Packet {
    let payload = Bytes::copy_from_slice(&number.to_be_bytes());
    Packet { track: Track::Inbound, sequence, timestamp, payload }
}

/// A leg under test, and what it has placed.
struct Leg {
    timeline: Timeline,
    placed: Vec<Placed>,
}

impl Leg {
    fn new() -> Leg {
        Leg { timeline: Timeline::new(RATE), placed: Vec::new() }
    }

    /// Receives the `number`-th packet of a peer that numbers them from 1.
    fn numbered(&mut self, number: u64, now: u64) {
        let packet = packet(number, Some(number + 1), Some(number * 20));
        self.timeline.push(packet, FRAMES, ms(now), &mut self.placed);
    }

    /// Receives a packet of a peer that says nothing about it.
    fn bare(&mut self, number: u64, now: u64) {
        self.timeline.push(packet(number, None, None), FRAMES, ms(now), &mut self.placed);
    }

    /// Ends the call. Returns what was placed: the number of each packet, or the negative number of frames
    /// without one.
    fn end(mut self) -> Vec<i64> {
        self.timeline.finish(&mut self.placed);
        let mut frames = 0;
        let pieces = self.placed.iter().map(|piece| match piece {
            Placed::Audio(packet) => {
                frames += FRAMES;
                u64::from_be_bytes(packet.payload[..].try_into().expect("eight bytes")).cast_signed()
            }
            Placed::Lost(empty) | Placed::Silence(empty) => {
                frames += empty;
                -empty.cast_signed()
            }
        });
        let pieces = pieces.collect();
        assert_eq!(self.timeline.position(), frames, "the position is the number of frames placed");
        pieces
    }
}

#[test]
fn packets_that_were_overtaken_are_sorted() {
    let mut leg = Leg::new();
    for (number, now) in [(1, 0), (0, 1), (3, 40), (2, 45), (5, 80), (4, 81), (7, 140), (6, 150)] {
        leg.numbered(number, now);
    }
    assert_eq!(leg.timeline.counts().reordered, 4);
    assert_eq!(leg.timeline.origin(), Some(Duration::ZERO));
    assert_eq!(leg.end(), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_packet_is_waited_for_until_its_deadline() {
    let mut leg = Leg::new();
    leg.numbered(0, 0);
    assert_eq!(leg.timeline.deadline(), Some(ms(100)));
    leg.timeline.poll(ms(100), &mut leg.placed);
    assert_eq!(leg.placed.len(), 1);
    leg.numbered(2, 140);
    assert_eq!(leg.timeline.deadline(), Some(ms(240)));
    leg.timeline.poll(ms(239), &mut leg.placed);
    assert_eq!(leg.placed.len(), 1);
    leg.timeline.poll(ms(240), &mut leg.placed);
    assert_eq!(leg.placed.len(), 3);
    assert_eq!(leg.timeline.deadline(), None);
    // It comes when its place is filled.
    leg.numbered(1, 250);
    leg.numbered(3, 260);
    let counts = leg.timeline.counts();
    assert_eq!((counts.lost, counts.late, counts.repeated), (1, 1, 0));
    assert_eq!(leg.end(), [0, -160, 2, 3]);
}

#[test]
fn a_packet_that_comes_again_is_dropped() {
    let mut leg = Leg::new();
    for (number, now) in [(0, 0), (0, 1), (2, 40), (2, 41), (1, 42), (1, 43), (3, 60)] {
        leg.numbered(number, now);
    }
    assert_eq!(leg.timeline.counts().repeated, 3);
    assert_eq!(leg.end(), [0, 1, 2, 3]);
}

#[test]
fn a_timestamp_that_runs_ahead_is_silence() {
    let mut leg = Leg::new();
    leg.numbered(0, 0);
    // Packets 1 and 2 are numbered on, but five seconds later.
    for number in [1, 2] {
        let packet = packet(number, Some(number + 1), Some(5_000 + number * 20));
        leg.timeline.push(packet, FRAMES, ms(5_000 + number * 20), &mut leg.placed);
    }
    assert_eq!(leg.timeline.counts().lost, 0);
    assert_eq!(leg.end(), [0, -40_000, 1, 2]);
}

#[test]
fn a_timestamp_that_lies_makes_bounded_silence() {
    for timestamp in [1 << 40, u64::MAX, 1 << 63] {
        let mut leg = Leg::new();
        leg.numbered(0, 0);
        let lie = packet(1, Some(2), Some(timestamp));
        leg.timeline.push(lie, FRAMES, ms(20), &mut leg.placed);
        let again = packet(2, Some(3), Some(timestamp));
        leg.timeline.push(again, FRAMES, ms(40), &mut leg.placed);
        let most = (10_000 + 60) * u64::from(RATE) / 1_000;
        assert!(leg.timeline.position() <= most + FRAMES, "{timestamp}: {}", leg.timeline.position());
        leg.end();
    }
}

#[test]
fn the_last_number_there_is_ends_nothing() {
    let mut leg = Leg::new();
    for (number, sequence) in [(0, u64::MAX - 1), (1, u64::MAX), (2, u64::MAX), (3, 1)] {
        leg.timeline.push(packet(number, Some(sequence), None), FRAMES, ms(number * 20), &mut leg.placed);
    }
    leg.end();
}

#[test]
fn audio_that_comes_faster_than_it_is_spoken_is_noticed() {
    let mut leg = Leg::new();
    for number in 0..2_900 {
        leg.bare(number, 0);
    }
    assert!(!leg.timeline.is_ahead(ms(0)));
    for number in 2_900..3_001 {
        leg.bare(number, 0);
    }
    assert!(leg.timeline.is_ahead(ms(0)) && !leg.timeline.is_ahead(ms(1_000)));
}

#[test]
fn a_peer_that_counts_anew_goes_on() {
    let mut leg = Leg::new();
    for (sequence, number) in [(70_000, 0), (70_001, 1), (1, 2), (2, 3), (90_000, 4)] {
        let packet = packet(number, Some(sequence), None);
        leg.timeline.push(packet, FRAMES, ms(number * 20), &mut leg.placed);
    }
    assert_eq!(leg.timeline.counts().lost, 0);
    assert_eq!(leg.end(), [0, 1, 2, 3, 4]);
}

/// Not all providers document that they count each track by itself: timestamps tell.
#[test]
fn numbers_that_count_both_tracks_lose_nothing() {
    let mut leg = Leg::new();
    for number in 0..200 {
        let now = ms(number * 20);
        leg.timeline.push(
            packet(number, Some(7 + 2 * number), Some(5 + number * 20)),
            FRAMES,
            now,
            &mut leg.placed,
        );
    }
    assert_eq!((leg.timeline.counts().lost, leg.placed.len()), (0, 200));
    assert_eq!(leg.end(), (0..200).collect::<Vec<i64>>());
}

#[test]
fn the_origin_is_the_first_timestamp() {
    let mut leg = Leg::new();
    leg.timeline.push(packet(0, Some(9), Some(3_000)), FRAMES, ms(3_010), &mut leg.placed);
    leg.timeline.finish(&mut leg.placed);
    assert_eq!(leg.timeline.origin(), Some(ms(3_000)));
    let mut leg = Leg::new();
    leg.timeline.push(packet(0, Some(9), Some(1_790_000_000_000)), FRAMES, ms(500), &mut leg.placed);
    leg.timeline.finish(&mut leg.placed);
    assert_eq!(leg.timeline.origin(), Some(ms(500)));
    let mut leg = Leg::new();
    leg.bare(0, 700);
    assert_eq!(leg.timeline.origin(), Some(ms(700)));
}

#[test]
fn silence_that_was_not_sent_is_found_by_arrival() {
    let mut leg = Leg::new();
    for number in 0..50 {
        leg.bare(number, number * 20);
    }
    // Two seconds without a packet, then real time again.
    for number in 50..100 {
        leg.bare(number, 2_000 + number * 20);
    }
    let expected: Vec<i64> = (0..50).chain([-16_000]).chain(50..100).collect();
    assert_eq!(leg.end(), expected);
}

#[test]
fn a_delay_makes_no_silence() {
    let mut leg = Leg::new();
    for number in 0..50 {
        leg.bare(number, number * 20);
    }
    // Two seconds of packets come at once, then real time again.
    for number in 50..150 {
        leg.bare(number, 3_000);
    }
    for number in 150..200 {
        leg.bare(number, number * 20);
    }
    assert_eq!(leg.end(), (0..200).collect::<Vec<i64>>());
}

#[test]
fn audio_after_a_pause_is_held_for_a_moment_only() {
    let mut leg = Leg::new();
    leg.bare(0, 0);
    leg.bare(1, 1_000);
    assert_eq!(leg.placed.len(), 1);
    assert_eq!(leg.timeline.deadline(), Some(ms(1_120)));
    leg.timeline.poll(ms(1_120), &mut leg.placed);
    assert_eq!(leg.placed.len(), 3);
    assert_eq!(leg.end(), [0, -7_840, 1]);
}

/// An hour by a network that loses, repeats, delays and reorders packets: each packet that was placed stands
/// where it was spoken, and those that are missing are named.
#[test]
fn every_packet_stands_in_its_place_after_an_hour() {
    for seed in 1..=3 {
        let mut random = Random::new(seed);
        let mut arrivals = Vec::new();
        let mut lost = 0;
        for number in 0..180_000 {
            if number > 0 && random.below(50) == 0 {
                lost += 1;
                continue;
            }
            let delay = random.below(60);
            arrivals.push((number * 20 + delay, number));
            if random.below(100) == 0 {
                arrivals.push((number * 20 + delay + random.below(60), number));
            }
        }
        arrivals.sort_unstable();
        let mut leg = Leg::new();
        for &(now, number) in &arrivals {
            leg.numbered(number, now);
        }
        let counts = leg.timeline.counts();
        assert_eq!(counts.received, arrivals.len() as u64, "seed {seed}");
        let (mut position, mut missing) = (0, 0);
        for piece in leg.end() {
            if piece < 0 {
                missing += -piece / FRAMES.cast_signed();
                position -= piece;
            } else {
                assert_eq!(position, piece * FRAMES.cast_signed(), "seed {seed}: packet {piece}");
                position += FRAMES.cast_signed();
            }
        }
        assert_eq!(missing, lost, "seed {seed}: exactly the lost packets are named");
    }
}

/// An hour by TCP, without numbers: packets come in order, with jitter and silence that is not sent, and the
/// clock of the peer is slow or fast by 50 ppm. No packet is farther from its time than one is long.
#[test]
fn packets_without_numbers_keep_their_time_for_an_hour() {
    for (seed, ppm) in [(1, 0_i64), (2, 50), (3, -50)] {
        let mut random = Random::new(seed);
        let mut leg = Leg::new();
        let (mut spoken, mut number, mut truth) = (0_u64, 0, Vec::new());
        while spoken < 3_600_000 {
            if random.below(500) == 0 {
                spoken += 200 + random.below(4_000);
            }
            let by_our_clock =
                (spoken.cast_signed() + spoken.cast_signed() * ppm / 1_000_000).cast_unsigned();
            leg.bare(number, by_our_clock + random.below(8));
            truth.push(by_our_clock);
            number += 1;
            spoken += 20;
        }
        let mut position = 0_i64;
        for piece in leg.end() {
            if piece < 0 {
                position -= piece;
                continue;
            }
            let error = position / 8 - truth[usize::try_from(piece).expect("a number")].cast_signed();
            assert!(error.abs() <= 28, "seed {seed}: packet {piece} is {error} ms from its time");
            position += FRAMES.cast_signed();
        }
    }
}

/// A delay of a second whose burst ends with silence looks like silence before the burst. The next silence is
/// shorter by it, so that the time is right again.
#[test]
fn a_delay_before_silence_is_made_up_for_by_the_next_silence() {
    let mut leg = Leg::new();
    for number in 0..50 {
        leg.bare(number, number * 20);
    }
    // Spoken at 1.00 to 1.06 s; comes a second late, and silence follows until 3 s.
    for number in 50..53 {
        leg.bare(number, 2_060);
    }
    for number in 53..103 {
        leg.bare(number, 3_000 + (number - 53) * 20);
    }
    // Silence until 8 s.
    for number in 103..110 {
        leg.bare(number, 8_000 + (number - 103) * 20);
    }
    let placed = leg.end();
    let before_last = placed.iter().position(|&piece| piece == 103).expect("it is placed");
    let frames: i64 = placed[..before_last]
        .iter()
        .map(|&piece| if piece < 0 { -piece } else { FRAMES.cast_signed() })
        .sum();
    assert_eq!(frames, 8_000 * 8, "the position of what is spoken at 8 s");
}
