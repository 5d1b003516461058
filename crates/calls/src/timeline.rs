//! The audio of a leg in order, by the clock of its peer.
//!
//! Peers lose, repeat and reorder packets, and some send nothing while nobody speaks. The timeline puts each
//! packet in its place, and names the places that stay empty. It has no clock: each call states the time
//! since the beginning of the call.
//!
//! Numbered packets are placed by their numbers. A number that does not come is waited for a moment, then
//! lost. The first packet is held for as long, since others may have been sent before it. A timestamp that
//! runs ahead of the audio means silence that was not sent.
//!
//! A peer without numbers and timestamps has only the time of arrival. It sends in real time, over TCP, so no
//! packet is lost; a pause between packets is either silence that was not sent, or a delay. After a delay the
//! packets come faster than in real time until none is late. So the audio after a pause is held for a moment,
//! and what is late after it is silence. A delay that silence follows at once is mistaken for silence; there
//! is less of the next silence then.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::peers::Packet;

/// Longest wait for a packet that others have overtaken: twice the worst reordering within a site's network.
/// Live text is late by as much while packets are missing.
const REORDER_WAIT: Duration = Duration::from_millis(100);
/// Number of packets that may wait for one that is missing: a second of packets of 20 ms.
const WAITING_MAX: usize = 50;
/// Distance of sequence numbers above which the peer has begun to count anew.
const RESTART: u64 = 3_000;
/// Time by which a timestamp may differ from the audio before it is believed. Timestamps are in milliseconds,
/// and some peers take them from a clock other than that of the audio.
const TIMESTAMP_SLACK_MS: u64 = 100;
/// Pause between packets without numbers from which on silence may have been left out.
const PAUSE: Duration = Duration::from_millis(100);
/// Time for which audio after such a pause is held: long enough for a burst of delayed packets to arrive.
const HOLD: Duration = Duration::from_millis(120);
/// Lateness that is no silence: the jitter of a scheduler, and the length of a packet.
const LATENESS_SLACK: Duration = Duration::from_millis(20);
/// Time by which the audio may be ahead of the call. It bounds the silence that a peer can make of one wrong
/// number.
const AHEAD_MAX: Duration = Duration::from_secs(10);

/// Time by which the audio that has come may be ahead of the call.
const AUDIO_AHEAD_MAX: Duration = Duration::from_secs(60);

/// A piece of the audio of a leg. Each continues where the one before ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// Audio as it came.
    Audio(Packet),
    /// Number of frames that were sent and have not come.
    Lost(u64),
    /// Number of frames in which the peer sent nothing.
    Silence(u64),
}

/// Counts of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PacketCounts {
    /// Packets that came, all below included.
    pub received: u64,
    /// Packets that have not come in time.
    pub lost: u64,
    /// Packets that came after they had been given up. They are dropped.
    pub late: u64,
    /// Packets that came again. They are dropped.
    pub repeated: u64,
    /// Packets that others had overtaken, and that came in time.
    pub reordered: u64,
}

/// The audio of one leg, in order.
#[derive(Debug)]
pub struct Timeline {
    sample_rate: u32,
    /// Frames placed so far.
    position: u64,
    /// Time of the first packet since the beginning of the call, by its timestamp if it has one.
    origin: Option<Duration>,
    /// Arrival of the first packet.
    began: Option<Duration>,
    /// Length of the last packet in frames.
    packet_frames: u64,
    numbers: Numbers,
    arrivals: Arrivals,
    /// Timestamp of position zero in milliseconds, once a packet had one.
    zero: Option<i64>,
    counts: PacketCounts,
}

/// State of a peer that numbers its packets.
#[derive(Debug, Default)]
struct Numbers {
    /// Number of the next packet to be placed, once the first was.
    next: Option<u64>,
    /// Packets that came too early, by number.
    waiting: BTreeMap<u64, Held>,
    /// Numbers that were given up most recently: first and last.
    given_up: Option<(u64, u64)>,
}

/// State of a peer whose packets have no numbers.
#[derive(Debug, Default)]
struct Arrivals {
    last: Option<Duration>,
    /// Least lateness so far of a packet's end.
    least: Option<Duration>,
    /// Length of the last silence that was found: a delay may have been mistaken for it.
    doubtful: Duration,
    /// Packets since a pause, with the time at which the pause ended.
    held: Vec<Held>,
}

/// A packet that waits.
#[derive(Debug)]
struct Held {
    packet: Packet,
    frames: u64,
    arrival: Duration,
}

impl Timeline {
    /// Creates a timeline for audio at `sample_rate` frames per second.
    ///
    /// # Panics
    /// Panics if the rate is 0.
    #[must_use]
    pub fn new(sample_rate: u32) -> Timeline {
        assert!(sample_rate > 0, "audio has a rate");
        Timeline {
            sample_rate,
            position: 0,
            origin: None,
            began: None,
            packet_frames: 0,
            numbers: Numbers::default(),
            arrivals: Arrivals::default(),
            zero: None,
            counts: PacketCounts::default(),
        }
    }

    /// Takes a packet of this many frames that has come at `now`, and appends what it completes.
    pub fn push(&mut self, packet: Packet, frames: u64, now: Duration, placed: &mut Vec<Placed>) {
        self.counts.received += 1;
        self.began.get_or_insert(now);
        let held = Held { packet, frames, arrival: now };
        match held.packet.sequence {
            Some(number) => self.push_numbered(number, held, placed),
            None if held.packet.timestamp.is_some() => self.place(held, 0, placed),
            None => self.push_by_arrival(held, placed),
        }
        self.poll(now, placed);
    }

    /// Appends what is due at `now`: call it at the [`deadline`](Timeline::deadline).
    pub fn poll(&mut self, now: Duration, placed: &mut Vec<Placed>) {
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            if self.arrivals.held.is_empty() {
                self.give_up(placed);
            } else {
                self.release_held(placed);
            }
        }
    }

    /// Returns the time at which packets that wait are due, or `None` if none waits.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let oldest = self.numbers.waiting.values().map(|held| held.arrival).min();
        let held = self.arrivals.held.first().map(|held| held.arrival + HOLD);
        oldest.map(|arrival| arrival + REORDER_WAIT).or(held)
    }

    /// Appends all that waits: the call has ended.
    pub fn finish(&mut self, placed: &mut Vec<Placed>) {
        self.release_held(placed);
        while !self.numbers.waiting.is_empty() {
            self.give_up(placed);
        }
    }

    /// Returns the time of the first frame since the beginning of the call, once one is placed.
    #[must_use]
    pub fn origin(&self) -> Option<Duration> {
        self.origin
    }

    /// Returns the number of frames placed so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns whether a peer has sent more audio than there was time for: a minute more, which a network may
    /// have held back.
    #[must_use]
    pub fn is_ahead(&self, now: Duration) -> bool {
        self.duration(self.position) > self.since_first(now) + AUDIO_AHEAD_MAX
    }

    /// Returns the counts of packets so far.
    #[must_use]
    pub fn counts(&self) -> PacketCounts {
        self.counts
    }

    fn push_numbered(&mut self, number: u64, held: Held, placed: &mut Vec<Placed>) {
        let waiting = self.numbers.waiting.first_key_value().map(|(first, _)| *first);
        let expected = self.numbers.next.or(waiting).unwrap_or(number);
        if number.abs_diff(expected) > RESTART {
            // What waits belongs to the old count.
            self.finish(placed);
            self.numbers = Numbers { next: Some(number), ..Numbers::default() };
        } else if self.numbers.next.is_some_and(|next| number < next) {
            let was_given_up =
                self.numbers.given_up.is_some_and(|(first, last)| (first..=last).contains(&number));
            let count = if was_given_up { &mut self.counts.late } else { &mut self.counts.repeated };
            *count += 1;
            return;
        }
        if self.numbers.waiting.contains_key(&number) {
            self.counts.repeated += 1;
            return;
        }
        if self.numbers.waiting.last_key_value().is_some_and(|(last, _)| number < *last) {
            self.counts.reordered += 1;
        }
        self.numbers.waiting.insert(number, held);
        self.place_consecutive(placed);
        while self.numbers.waiting.len() > WAITING_MAX {
            self.give_up(placed);
        }
    }

    /// Places the waiting packets up to the next number that has not come.
    fn place_consecutive(&mut self, placed: &mut Vec<Placed>) {
        while let Some(next) = self.numbers.next
            && let Some(first) = self.numbers.waiting.first_entry()
        {
            let number = *first.key();
            let timestamp = first.get().packet.timestamp;
            // A number may count the packets of both tracks, or be skipped: then the timestamp tells.
            if number != next && !timestamp.is_some_and(|timestamp| self.follows(timestamp)) {
                return;
            }
            if let Some((_, held)) = self.numbers.waiting.pop_first() {
                self.numbers.next = Some(number.saturating_add(1));
                self.place(held, 0, placed);
            }
        }
    }

    /// Returns whether a packet of this timestamp follows the audio so far, to half a packet.
    fn follows(&self, timestamp: u64) -> bool {
        let Some(zero) = self.zero else { return false };
        let end = self.milliseconds(self.position).cast_signed();
        let distance = timestamp.cast_signed().saturating_sub(zero).saturating_sub(end);
        distance.unsigned_abs() * 2 < self.milliseconds(self.packet_frames)
    }

    /// Gives up the numbers before the first packet that waits, and places it and those after it.
    fn give_up(&mut self, placed: &mut Vec<Placed>) {
        let Some((number, held)) = self.numbers.waiting.pop_first() else { return };
        let next = self.numbers.next.unwrap_or(number);
        let missing = number - next;
        if missing > 0 {
            self.numbers.given_up = Some((next, number - 1));
            self.counts.lost += missing;
        }
        self.numbers.next = Some(number.saturating_add(1));
        self.place(held, missing, placed);
        self.place_consecutive(placed);
    }

    /// Places a packet after this many packets that are lost.
    fn place(&mut self, held: Held, missing: u64, placed: &mut Vec<Placed>) {
        let Held { packet, frames, arrival } = held;
        // Some peers count from the beginning of the call, others on the wall clock.
        let told = packet.timestamp.map(Duration::from_millis);
        let told = told.filter(|told| told.abs_diff(arrival) <= AHEAD_MAX);
        self.origin.get_or_insert(told.unwrap_or(arrival));
        let typical = if self.packet_frames == 0 { frames } else { self.packet_frames };
        // The length of one packet times their number is exact; timestamps are rounded.
        let mut empty = missing * typical;
        if let Some(timestamp) = packet.timestamp {
            let told = self.ahead_of_audio(timestamp);
            if told.abs_diff(empty) > self.frames(Duration::from_millis(TIMESTAMP_SLACK_MS)) {
                empty = told;
            }
        }
        empty = empty.min(self.room(arrival));
        if missing > 0 {
            push_unless_empty(placed, Placed::Lost(empty));
        } else {
            push_unless_empty(placed, Placed::Silence(empty));
        }
        self.position += empty;
        if let Some(timestamp) = packet.timestamp {
            let zero = timestamp.cast_signed().saturating_sub(self.milliseconds(self.position).cast_signed());
            // Rounding must not add up, so the first timestamp stays, until the clock has jumped back.
            let slack = TIMESTAMP_SLACK_MS;
            if self.zero.is_none_or(|old| old.abs_diff(zero) > slack) {
                self.zero = Some(zero);
            }
        }
        self.append(packet, frames, placed);
    }

    /// Returns the number of frames between the audio so far and a timestamp.
    fn ahead_of_audio(&self, timestamp: u64) -> u64 {
        let Some(zero) = self.zero else { return 0 };
        let since = u64::try_from(timestamp.cast_signed().saturating_sub(zero)).unwrap_or(0);
        self.frames(Duration::from_millis(since)).saturating_sub(self.position)
    }

    fn push_by_arrival(&mut self, held: Held, placed: &mut Vec<Placed>) {
        let arrival = held.arrival;
        let pause = self.arrivals.last.map_or(Duration::ZERO, |last| arrival.saturating_sub(last));
        self.arrivals.last = Some(arrival);
        if !self.arrivals.held.is_empty() {
            if pause > PAUSE {
                self.release_held(placed);
            } else {
                self.arrivals.held.push(held);
                return;
            }
        }
        if pause > PAUSE + self.duration(held.frames) {
            self.arrivals.held.push(held);
        } else {
            self.append_by_arrival(held, placed);
        }
    }

    /// Places the packets that were held after a pause. Lateness that all of them have is silence.
    fn release_held(&mut self, placed: &mut Vec<Placed>) {
        let held = std::mem::take(&mut self.arrivals.held);
        let mut end = self.position;
        let lateness = held.iter().map(|held| {
            end += held.frames;
            self.lateness(end, held.arrival)
        });
        let least = lateness.min().unwrap_or_default();
        let late = least.saturating_sub(self.arrivals.least.unwrap_or(least));
        if late > LATENESS_SLACK {
            let silent = self.frames(late);
            push_unless_empty(placed, Placed::Silence(silent));
            self.position += silent;
            self.arrivals.doubtful = late;
        }
        for held in held {
            self.append_by_arrival(held, placed);
        }
    }

    fn append_by_arrival(&mut self, held: Held, placed: &mut Vec<Placed>) {
        self.origin.get_or_insert(held.arrival);
        let lateness = self.lateness(self.position + held.frames, held.arrival);
        let Arrivals { least, doubtful, .. } = &mut self.arrivals;
        let early = least.map_or(Duration::ZERO, |least| least.saturating_sub(lateness));
        // Audio that is early by no more than the last silence shows that this was too long.
        if least.is_none() || early > *doubtful {
            *least = Some(lateness);
        }
        self.append(held.packet, held.frames, placed);
    }

    fn append(&mut self, packet: Packet, frames: u64, placed: &mut Vec<Placed>) {
        self.position += frames;
        self.packet_frames = frames;
        placed.push(Placed::Audio(packet));
    }

    /// Returns the time between the end of a packet by its position and its arrival. The beginning is shifted
    /// by [`AHEAD_MAX`], so that early packets have one, too.
    fn lateness(&self, end: u64, arrival: Duration) -> Duration {
        (self.since_first(arrival) + AHEAD_MAX).saturating_sub(self.duration(end))
    }

    /// Returns the number of frames by which the position may jump at this time.
    fn room(&self, now: Duration) -> u64 {
        self.frames(self.since_first(now) + AHEAD_MAX).saturating_sub(self.position)
    }

    /// Returns the time between the arrival of the first packet and `now`.
    fn since_first(&self, now: Duration) -> Duration {
        now.saturating_sub(self.began.unwrap_or(now))
    }

    fn frames(&self, time: Duration) -> u64 {
        let frames = time.as_micros() * u128::from(self.sample_rate) / 1_000_000;
        u64::try_from(frames).unwrap_or(u64::MAX)
    }

    fn duration(&self, frames: u64) -> Duration {
        Duration::from_micros(self.milliseconds(frames * 1_000))
    }

    fn milliseconds(&self, frames: u64) -> u64 {
        frames * 1_000 / u64::from(self.sample_rate)
    }
}

fn push_unless_empty(placed: &mut Vec<Placed>, piece: Placed) {
    if !matches!(piece, Placed::Lost(0) | Placed::Silence(0)) {
        placed.push(piece);
    }
}

#[cfg(test)]
mod tests;
