//! Everything that a seed decides before a schedule is played.

use std::time::Duration;

use super::dice::Dice;
use super::faults::{FATAL, Fault, How, Misery, Refusal, any_fault, any_time};
use crate::Planted;
use voxline::peer::Capabilities;
use voxline::protocol::vosk;
use voxline::session::{CatchUp, Overflow, Settings};
use voxline_support::random::mix;

/// Returns the sample at a position of the session stream. No two stretches of the stream are alike.
pub(super) fn sample(frame: u64) -> i16 {
    (mix(frame) as u16).cast_signed()
}

/// Returns a text that identifies these samples (FNV-1a).
pub(super) fn digest(samples: impl Iterator<Item = i16>) -> String {
    let hash = samples.fold(0xcbf2_9ce4_8422_2325_u64, |hash, sample| {
        (hash ^ u64::from(sample.cast_unsigned())).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// Returns the text of a stretch of audio after a context. Each final's text is the context of the next, so
/// a context that is not handed back changes every text that follows.
pub(super) fn in_context(context: &str, samples: impl Iterator<Item = i16>) -> String {
    let before = context.bytes().map(i16::from);
    digest(before.chain(samples))
}

/// A step of the source. It follows a pause.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Audio(u64),
    Flush,
    End,
}

/// The intended end of the whole schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The faults stop, and the session ends well.
    Recovers,
    /// One of the faults allows no recovery.
    Fatal,
    /// From some connection on, every connection fails alike, and the session gives up.
    Hopeless(Misery),
}

impl Fate {
    fn draw(dice: &mut Dice) -> Fate {
        match dice.between(0, 99) {
            0..75 => Fate::Recovers,
            75..80 => Fate::Fatal,
            _ => Fate::Hopeless(dice.one_of(&[
                Misery::Unreachable,
                Misery::ReadyThenDrop,
                Misery::Silent,
                Misery::Poison,
                Misery::TokenCircle,
                Misery::NoToken,
                Misery::NoFinals,
            ])),
        }
    }
}

/// Behaviour of the model server.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerPlan {
    /// Longest utterance, in frames; the shortest is a quarter of it.
    pub(super) longest: u64,
    /// Number of frames recognised in a second.
    pub(super) rate: u64,
    /// Number of frames that acknowledgements may run ahead of finals.
    pub(super) hold: u64,
    pub(super) window: u64,
    pub(super) max_audio_bytes: usize,
    /// Percentage of acknowledgements that are sent at once; the others come within 250 ms.
    pub(super) prompt_acks: u64,
    /// `true` if a token may be handed over in band.
    pub(super) auth: bool,
}

impl ServerPlan {
    fn draw(dice: &mut Dice) -> ServerPlan {
        let longest = dice.between(20, 400);
        // A slow server needs up to two minutes for an utterance, but then it does not hold
        // acknowledgements back.
        let slow = dice.chance(10);
        ServerPlan {
            longest,
            rate: if slow { (longest / 120).max(1) } else { dice.between(longest / 20 + 1, 20 * longest) },
            hold: if slow { u64::MAX / 2 } else { longest * dice.between(1, 3) },
            window: dice.between(longest / 4, 3 * longest),
            max_audio_bytes: 8 + 2 * dice.between(longest / 8, 2 * longest) as usize,
            prompt_acks: dice.between(20, 100),
            auth: dice.chance(50),
        }
    }

    /// Returns whether the longest utterance takes 20 seconds or more.
    fn is_slow(&self) -> bool {
        self.rate <= self.longest / 20
    }
}

/// Properties of a Vosk server and its translator.
#[derive(Clone, Copy, Debug)]
pub(super) struct VoskPlan {
    /// Longest message, and number of frames that may wait for replies.
    pub(super) longest_message: u64,
    pub(super) window: u64,
    /// Time after which the server closes a connection.
    pub(super) longest_session: Option<Duration>,
}

/// A crash of the client's process. Another process takes the session over from the data on disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kill {
    pub(super) at: Duration,
    /// Number of frames at the end of the audio that did not reach the disk.
    pub(super) lost: u64,
}

/// Everything that a seed decides before the schedule is played.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Seed of the random choices that are made while the schedule is played.
    pub(super) seed: u64,
    pub(super) settings: Settings,
    pub(super) server: ServerPlan,
    /// Lifetime of a token, if tokens end.
    pub(super) token_life: Option<Duration>,
    /// For each of the first token requests, `true` if it fails.
    pub(super) token_faults: Vec<bool>,
    /// Steps of the source, each after a pause.
    pub(super) source: Vec<(Duration, Step)>,
    /// Longest latency of a message in one direction.
    pub(super) latency: Duration,
    /// Faults of the first connections.
    pub(super) faults: Vec<Fault>,
    pub(super) kills: Vec<Kill>,
    pub(super) fate: Fate,
    /// Bug planted in the session.
    pub(super) bug: Option<Planted>,
    /// The server is a Vosk server.
    pub(super) vosk: Option<VoskPlan>,
}

impl Plan {
    pub(super) fn draw(seed: u64) -> Plan {
        let dice = &mut Dice::new(seed);
        let fate = Fate::draw(dice);
        let server = ServerPlan::draw(dice);
        let settings = draw_settings(seed, fate, server.longest, dice);
        let source = draw_source(&server, dice);
        let latency = Duration::from_millis(dice.one_of(&[1, 20, 200, 2_000]));
        let token_life = dice.chance(60).then(|| dice.millis(20_000, 120_000));
        let token_faults = (0..dice.between(0, 6)).map(|_| dice.chance(40)).collect();
        let faults = draw_faults(fate, dice);
        // A process that drops audio keeps none on the disk.
        let is_mortal = settings.replay.overflow == Overflow::Block && dice.chance(25);
        let kills = if is_mortal { draw_kills(server.longest, dice) } else { Vec::new() };
        Plan {
            seed,
            settings,
            server,
            token_life,
            token_faults,
            source,
            latency,
            faults,
            kills,
            fate,
            bug: None,
            vosk: None,
        }
    }

    /// Draws a plan for a Vosk server, which has neither announcements nor tokens of its own. A proxy in
    /// front of it may refuse tokens all the same.
    pub(super) fn draw_vosk(seed: u64) -> Plan {
        let mut plan = Plan::draw(seed);
        let dice = &mut Dice::new(seed ^ 0x766f_736b);
        let longest = plan.server.longest;
        let is_slow = plan.server.is_slow();
        let longest_message = dice.between(1 + longest / 10, longest / 4);
        plan.vosk = Some(VoskPlan {
            longest_message,
            window: dice.between(longest_message, longest),
            // A recogniser must be able to complete an utterance before its session ends.
            longest_session: (!is_slow && dice.chance(50)).then(|| {
                let utterances = Duration::from_secs(3 * longest / plan.server.rate + 1);
                utterances + 8 * plan.latency + dice.millis(10_000, 30_000)
            }),
        });
        plan.token_life = None;
        for fault in &mut plan.faults {
            if matches!(fault, Fault::Goaway { .. } | Fault::DeafToAuth) {
                *fault = Fault::None;
            }
        }
        plan
    }

    /// Returns the capabilities of the server.
    pub(super) fn capabilities(&self) -> Capabilities {
        self.vosk.map_or_else(Capabilities::native, |plan| {
            let mut capabilities = voxline::transport::vosk_capabilities();
            capabilities.longest_session = plan.longest_session;
            capabilities
        })
    }

    /// Returns the options of the translators.
    pub(super) fn translation(&self, plan: VoskPlan) -> vosk::Options {
        let time =
            |frames: u64| Duration::from_secs_f64(frames as f64 / f64::from(self.settings.sample_rate));
        let mut options = vosk::Options::default();
        (options.window, options.longest_message) = (time(plan.window), time(plan.longest_message));
        options
    }

    /// Returns the number of frames of the source.
    pub(super) fn frames(&self) -> u64 {
        let frames = self.source.iter().map(|(_, step)| match step {
            Step::Audio(frames) => *frames,
            Step::Flush | Step::End => 0,
        });
        frames.sum()
    }

    /// Returns the fault of the connection with this number, counted from 0. `token_spent` is `true` if a
    /// token was refused since the last `ready`, so that another refusal would end the session.
    pub(super) fn fault(&self, number: usize, token_spent: bool) -> Fault {
        match (self.faults.get(number), self.fate) {
            (Some(fault), _) if token_spent && fault.refuses_token() => Fault::Dial(Refusal::Unreachable),
            (Some(fault), _) => *fault,
            (None, Fate::Hopeless(misery)) => misery.fault(&mut Dice::new(self.seed ^ number as u64)),
            (None, Fate::Recovers | Fate::Fatal) => Fault::None,
        }
    }

    /// Returns whether the token request with this number fails.
    pub(super) fn token_fault(&self, number: usize) -> bool {
        self.token_faults.get(number).copied().unwrap_or(self.fate == Fate::Hopeless(Misery::NoToken))
    }

    /// Returns the length of the source's longest chunk, in frames.
    pub(super) fn longest_chunk(&self) -> u64 {
        let chunks =
            self.source.iter().map(|(_, step)| if let Step::Audio(frames) = step { *frames } else { 0 });
        chunks.max().unwrap_or(0)
    }

    /// Returns plans that have one thing less, for the search for the smallest plan that still fails.
    pub(super) fn simpler(&self) -> Vec<Plan> {
        let mut simpler = Vec::new();
        let mut with = |change: &dyn Fn(&mut Plan)| {
            let mut plan = self.clone();
            change(&mut plan);
            simpler.push(plan);
        };
        // Remove many at once first.
        for half in [0..self.source.len() / 2, self.source.len() / 2..self.source.len().saturating_sub(1)] {
            if half.len() > 1 {
                with(&|plan| drop(plan.source.drain(half.clone())));
            }
        }
        for index in 0..self.kills.len() {
            with(&|plan| _ = plan.kills.remove(index));
        }
        for index in (0..self.faults.len()).filter(|index| self.faults[*index] != Fault::None) {
            with(&|plan| plan.faults[index] = Fault::None);
        }
        if self.faults.last() == Some(&Fault::None) {
            with(&|plan| _ = plan.faults.pop());
        }
        if !self.token_faults.is_empty() {
            with(&|plan| plan.token_faults.clear());
        }
        if self.token_life.is_some() {
            with(&|plan| plan.token_life = None);
        }
        if self.settings.replay.catch_up.is_some() {
            with(&|plan| plan.settings.replay.catch_up = None);
        }
        if self.latency > Duration::from_millis(1) {
            with(&|plan| plan.latency = Duration::from_millis(1));
        }
        for index in 0..self.source.len().saturating_sub(1) {
            with(&|plan| _ = plan.source.remove(index));
        }
        simpler
    }

    /// Returns the longest time that the session may take once the faults have stopped (G5): the longest
    /// wait before a dial, the source's own time, recognition of everything once more, and the round trips
    /// that the window, the replay buffer and the last messages cost.
    pub(super) fn calm_bound(&self) -> Duration {
        let server = &self.server;
        let pauses: Duration = self.source.iter().map(|(pause, _)| *pause).sum();
        let recognition = Duration::from_secs((self.frames() + server.longest) / server.rate + 1);
        let flights = self.frames() / server.window
            + 4 * self.frames() / server.longest
            + 2 * self.source.len() as u64
            + 20;
        let flight = 2 * self.latency + Duration::from_millis(300);
        let pace = self.settings.replay.catch_up.map_or(Duration::ZERO, |limit| {
            let rate = f64::from(self.settings.sample_rate) * limit.factor();
            2 * Duration::from_secs_f64(self.frames() as f64 / rate) + Duration::from_secs(1)
        });
        let bound = Duration::from_secs(10)
            + pauses
            + pace
            + recognition
            + flight * u32::try_from(flights).expect("a few thousand");
        match (self.vosk, self.settings.replay.overflow) {
            (None, _) => bound,
            // A session that ends after a fixed time repeats its last utterance in the next one.
            (Some(_), Overflow::Block) => 3 * bound,
            // Each gap costs a connection, after a wait of at most ten seconds if there was one just before.
            (Some(_), Overflow::DropOldest) => {
                let steps = u32::try_from(self.source.len()).expect("a few hundred");
                3 * bound + steps * (Duration::from_secs(10) + 4 * flight)
            }
        }
    }

    /// Returns the longest time for which a session may make no progress at all: no frame accepted, no
    /// final, no end.
    pub(super) fn barren_bound(&self) -> Duration {
        let settings = &self.settings;
        // The last failure may come after the longest silence, and may be reported only after the longest
        // wait.
        let last_try = settings.timeouts.progress + settings.timeouts.opening + 6 * self.latency;
        let waits = Duration::from_secs(2 * 10 + 10);
        // A Vosk server acknowledges audio as it recognises it, and each acknowledgement is progress to the
        // session: without finals, to the end of the replay buffer.
        let longest = self.server.longest;
        let unfinal = if self.vosk.is_some() { settings.replay.frames.max(longest) } else { longest };
        let recognition = Duration::from_secs(unfinal / self.server.rate + 1);
        settings.timeouts.give_up.max(settings.timeouts.first_contact)
            + 2 * last_try
            + waits
            + LONGEST_PAUSE
            + recognition
    }
}

/// Draws the settings of a session with a server whose longest utterance has `longest` frames.
fn draw_settings(seed: u64, fate: Fate, longest: u64, dice: &mut Dice) -> Settings {
    let mut settings = Settings::new(8_000).with_seed(seed);
    settings.replay.frames = longest * dice.between(1, 5);
    settings.in_band_auth = dice.chance(80);
    if fate == Fate::Recovers {
        settings.timeouts.first_contact = settings.timeouts.give_up;
    }
    if dice.chance(15) {
        settings.replay.overflow = Overflow::DropOldest;
    }
    if dice.chance(10) {
        settings.sample_rate = u32::try_from(longest).expect("hundreds");
        let factor = dice.between(110, 400) as f64 / 100.0;
        settings.replay.catch_up = CatchUp::new(dice.millis(500, 5_000), factor);
    }
    settings
}

/// Draws the faults of the first connections. Most schedules have a few; some have bursts of them.
fn draw_faults(fate: Fate, dice: &mut Dice) -> Vec<Fault> {
    let count = if dice.chance(10) { dice.between(10, 30) } else { dice.between(0, 6) };
    let mut faults: Vec<Fault> = (0..count).map(|_| any_fault(dice)).collect();
    if fate == Fate::Fatal {
        faults.push(if dice.chance(20) {
            Fault::Dial(Refusal::Forbidden)
        } else {
            Fault::Break { when: any_time(dice), how: How::Close(dice.one_of(&FATAL)), forget: false }
        });
    }
    faults
}

/// Draws the crashes of a client, of which some lose audio that did not reach the disk.
fn draw_kills(longest: u64, dice: &mut Dice) -> Vec<Kill> {
    let deaths = dice.between(1, 4);
    let mut kills: Vec<Kill> = (0..deaths)
        .map(|_| Kill {
            at: dice.millis(0, 30_000),
            lost: if dice.chance(20) { dice.between(1, 2 * longest) } else { 0 },
        })
        .collect();
    kills.sort_by_key(|kill| kill.at);
    kills
}

fn draw_source(server: &ServerPlan, dice: &mut Dice) -> Vec<(Duration, Step)> {
    let longest = server.longest;
    let mut source = Vec::new();
    let utterances = if server.is_slow() { dice.between(0, 3) } else { dice.between(0, 12) };
    let mut left = dice.between(0, longest * utterances);
    let longest_chunk = dice.between(1 + longest / 10, longest);
    let hurried = dice.chance(40);
    while left > 0 {
        let pause = match dice.between(0, 99) {
            0..2 => dice.millis(0, 90_000),
            _ if hurried => Duration::ZERO,
            _ => dice.millis(0, 500),
        };
        if dice.chance(3) {
            source.push((pause, Step::Flush));
            continue;
        }
        let frames = dice.between(1, longest_chunk).min(left);
        left -= frames;
        source.push((pause, Step::Audio(frames)));
    }
    source.push((dice.millis(0, 500), Step::End));
    source
}

/// Longest pause of the source.
const LONGEST_PAUSE: Duration = Duration::from_secs(90);
