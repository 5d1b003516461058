//! Sending of audio, flushes and the end of the session.

use std::time::Duration;

use super::Core;
use crate::audio::{AudioChunk, FrameRange};
use crate::protocol::ClientMessage;
use crate::session::events::{ConnectionId, Output};
use crate::session::links::{Link, Live};
use crate::session::replay::Entry;
use crate::session::settings::Overflow;

impl Core {
    /// Sends what may be sent now: audio within the peer's window, each flush at its position, and the
    /// end.
    pub(super) fn pump(&mut self, now: Duration) {
        let Link::Live(Live { id, .. }) = self.link else { return };
        loop {
            while let Some(flush) = self.flushes.iter_mut().find(|flush| !flush.sent && flush.at <= self.sent)
            {
                flush.sent = true;
                self.outputs.push_back(Output::Send(id, ClientMessage::Flush { at: Some(flush.at) }));
            }
            match self.replay.at(self.sent) {
                Some(Entry::Audio(chunk)) => {
                    let frames = self.throttle.allows(self.sendable(&chunk), now);
                    if frames == 0 {
                        return;
                    }
                    self.throttle.spend(frames);
                    self.send_audio(id, chunk.first(frames));
                }
                // One gap at a time: while the gap before is not acknowledged, this one may still grow.
                Some(Entry::Gap(_)) if self.received < self.gap_sent => return,
                Some(Entry::Gap(FrameRange { start: from, end: to })) => {
                    (self.sent, self.gap_sent) = (to, to);
                    self.note_sent();
                    self.outputs.push_back(Output::Send(id, ClientMessage::Gap { from, to }));
                }
                None => break,
            }
        }
        if self.finished && !self.finish_sent {
            self.finish_sent = true;
            let through = self.replay.end();
            self.outputs.push_back(Output::Send(id, ClientMessage::Finish { through }));
        }
    }

    /// Returns how many frames of the chunk at `sent` the peer takes now.
    fn sendable(&self, chunk: &AudioChunk) -> u64 {
        // Nothing may follow a gap until the gap is acknowledged.
        let window_left = match self.received < self.gap_sent {
            true => 0,
            false => self.window.saturating_sub(self.sent - self.received),
        };
        // Audio that was sent stays in memory until it is final.
        let room = self.settings.replay_frames.max(1).saturating_sub(self.sent - self.final_pos());
        let room = match self.settings.overflow {
            Overflow::DropOldest => room,
            Overflow::Block => u64::MAX,
        };
        let unsent = self.flushes.iter().find(|flush| !flush.sent);
        let before_flush = unsent.map_or(u64::MAX, |flush| flush.at - self.sent);
        chunk.range().len().min(window_left).min(self.max_chunk_frames).min(before_flush).min(room)
    }

    /// Returns the time at which more may be sent, if only the rate limit holds it back.
    pub(super) fn throttled(&self) -> Option<Duration> {
        match self.replay.at(self.sent)? {
            Entry::Audio(chunk) => match self.sendable(&chunk) {
                0 => None,
                frames => self.throttle.due(frames),
            },
            Entry::Gap(_) => None,
        }
    }

    /// Updates the farthest positions that `sent` has ever reached.
    pub(super) fn note_sent(&mut self) {
        self.offered = self.offered.max(self.sent);
        self.sent_once = self.sent_once.max(self.sent);
    }

    fn send_audio(&mut self, id: ConnectionId, chunk: AudioChunk) {
        let FrameRange { start, end } = chunk.range();
        self.sent = end;
        self.ledger.replayed += self.sent_once.min(end).0.saturating_sub(start.0);
        self.note_sent();
        self.outputs.push_back(Output::SendAudio(id, chunk));
    }
}
