//! State of a recording peer: the timeline of its client, and the session that is open on it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::Behaviour;
use crate::digest;
use voxline::audio::{AudioChunk, FramePos, FrameRange};
use voxline::protocol::{Final, ServerMessage};

/// Frames of a timeline, from position zero on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    samples: Vec<Option<i16>>,
    gaps: Vec<FrameRange>,
    repeated: u64,
}

impl Recording {
    /// Returns the sample at each position, or `None` where none was received.
    #[must_use]
    pub fn samples(&self) -> &[Option<i16>] {
        &self.samples
    }

    /// Returns the PCM, 16-bit little-endian, or `None` if frames are missing.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(2 * self.samples.len());
        for sample in &self.samples {
            bytes.extend((*sample)?.to_le_bytes());
        }
        Some(bytes)
    }

    /// Returns the stretches that the client declared lost, in the order in which it declared them.
    #[must_use]
    pub fn gaps(&self) -> &[FrameRange] {
        &self.gaps
    }

    /// Returns the number of frames that were received again.
    #[must_use]
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Records a chunk. Returns an error if it repeats a frame with another sample than before.
    fn hear(&mut self, chunk: &AudioChunk) -> Result<(), String> {
        let first = index(chunk.range().start);
        let end = index(chunk.range().end);
        if self.samples.len() < end {
            self.samples.resize(end, None);
        }
        for (offset, bytes) in chunk.payload().chunks_exact(2).enumerate() {
            let sample = i16::from_le_bytes([bytes[0], bytes[1]]);
            match &mut self.samples[first + offset] {
                empty @ None => *empty = Some(sample),
                Some(before) if *before == sample => self.repeated += 1,
                Some(before) => {
                    return Err(format!("frame {} was {before}, and is {sample} now", first + offset));
                }
            }
        }
        Ok(())
    }

    fn text(&self, range: FrameRange) -> String {
        let samples: Vec<i16> =
            self.samples[index(range.start)..index(range.end)].iter().copied().flatten().collect();
        digest(&samples)
    }
}

fn index(position: FramePos) -> usize {
    usize::try_from(position.0).expect("a recording fits in memory")
}

/// An item of the recogniser's work. Items are done in order.
#[derive(Clone, Copy, Debug)]
enum Work {
    Segment(FrameRange),
    Gap(FrameRange),
}

/// A session of the peer.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) name: String,
    pub(super) received: FramePos,
    pub(super) final_: FramePos,
    pub(super) finals: Vec<Final>,
    finish: Option<FramePos>,
    /// Position at which the last item of work ends.
    cut: FramePos,
    work: VecDeque<(Instant, Work)>,
    /// When the recogniser has done all its work.
    busy: Option<Instant>,
    /// Number of the socket that the session is attached to.
    pub(super) socket: u64,
    /// Since when the session has been without a socket.
    pub(super) alone: Option<Instant>,
}

impl Session {
    pub(super) fn new(number: u64, origin: FramePos, socket: u64) -> Session {
        Session {
            name: format!("session-{number}"),
            received: origin,
            final_: origin,
            finals: Vec::new(),
            finish: None,
            cut: origin,
            work: VecDeque::new(),
            busy: None,
            socket,
            alone: None,
        }
    }

    /// Returns the position up to which audio is acknowledged to the client.
    pub(super) fn acknowledged(&self, behaviour: &Behaviour) -> FramePos {
        let held_back = FramePos(self.final_.0.saturating_add(behaviour.hold_frames));
        self.received.min(held_back)
    }

    /// Takes audio. An error is a breach of the protocol.
    pub(super) fn audio(
        &mut self,
        chunk: &AudioChunk,
        recording: &mut Recording,
        behaviour: &Behaviour,
        now: Instant,
    ) -> Result<(), String> {
        let range = chunk.range();
        if range.start > self.received {
            return Err(format!("audio {range} leaves a hole after {}", self.received));
        }
        recording.hear(chunk)?;
        if range.end <= self.received {
            return Ok(());
        }
        if self.finish.is_some() {
            return Err(format!("audio {range} came after finish"));
        }
        self.received = range.end;
        loop {
            let end = self.cut + behaviour.segment(self.cut);
            if end > self.received {
                return Ok(());
            }
            self.cut_at(end, behaviour, now);
        }
    }

    /// Takes a gap. An error is a breach of the protocol.
    pub(super) fn gap(
        &mut self,
        gap: FrameRange,
        recording: &mut Recording,
        behaviour: &Behaviour,
        now: Instant,
    ) -> Result<(), String> {
        if gap.start > self.received {
            return Err(format!("gap {gap} leaves a hole after {}", self.received));
        }
        if gap.end <= self.received {
            return Ok(());
        }
        if self.finish.is_some() {
            return Err(format!("gap {gap} came after finish"));
        }
        recording.gaps.push(gap);
        self.flush(None, behaviour, now);
        let silence = self.received.to(gap.end);
        (self.received, self.cut) = (gap.end, gap.end);
        self.push(Work::Gap(silence), Duration::ZERO, now);
        Ok(())
    }

    pub(super) fn flush(&mut self, at: Option<FramePos>, behaviour: &Behaviour, now: Instant) {
        // Audio that continues beyond the flush means that the flush was carried out before.
        let heard_before = at.is_some_and(|at| at < self.received);
        if self.cut < self.received && !heard_before {
            self.cut_at(self.received, behaviour, now);
        }
    }

    pub(super) fn finish(
        &mut self,
        through: FramePos,
        behaviour: &Behaviour,
        now: Instant,
    ) -> Result<(), String> {
        if through != self.received {
            return Err(format!("finish through {through}, received {}", self.received));
        }
        self.finish = Some(through);
        self.flush(None, behaviour, now);
        Ok(())
    }

    fn cut_at(&mut self, end: FramePos, behaviour: &Behaviour, now: Instant) {
        let range = self.cut.to(end);
        self.cut = end;
        self.push(Work::Segment(range), behaviour.recognition, now);
    }

    fn push(&mut self, work: Work, takes: Duration, now: Instant) {
        let ready = self.busy.unwrap_or(now).max(now) + takes;
        self.busy = Some(ready);
        self.work.push_back((ready, work));
    }

    /// Returns when the recogniser finishes its next item of work.
    pub(super) fn due(&self) -> Option<Instant> {
        self.work.front().map(|(ready, _)| *ready)
    }

    /// Takes over the work that the recogniser has finished by now.
    pub(super) fn advance(&mut self, recording: &Recording, now: Instant) {
        while let Some((_, work)) = self.work.pop_front_if(|(ready, _)| *ready <= now) {
            match work {
                Work::Gap(range) => self.final_ = range.end,
                Work::Segment(range) => {
                    self.final_ = range.end;
                    self.finals.push(Final::new(self.finals.len() as u64, range, recording.text(range)));
                }
            }
        }
    }

    /// Returns `done` if everything is final and nothing follows.
    pub(super) fn done(&self) -> Option<ServerMessage> {
        (self.finish == Some(self.final_))
            .then(|| ServerMessage::Done { frames: self.final_, finals: self.finals.len() as u64 })
    }

    /// Returns a partial result for the audio that has no final yet.
    pub(super) fn partial(&self, recording: &Recording, revision: u64) -> Option<ServerMessage> {
        let range = self.final_.to(self.received);
        (self.work.is_empty() && !range.is_empty()).then(|| ServerMessage::Partial {
            segment: self.finals.len() as u64,
            revision,
            start: range.start,
            end: range.end,
            text: recording.text(range),
        })
    }
}
