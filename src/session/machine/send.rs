//! Sending of audio, flushes and the end of the session.

use std::time::Duration;

use super::Machine;
use super::connection::{Connection, Live};
use super::io::{ConnectionId, Output};
use crate::audio::{AudioChunk, FramePos, FrameRange};
use crate::peer::Acknowledgements;
use crate::protocol::ClientMessage;
use crate::session::replay::Entry;
use crate::session::settings::Overflow;

impl Machine {
    /// Sends what may be sent now: audio within the peer's window, each flush at its position, and the
    /// end.
    pub(super) fn pump(&mut self, now: Duration) {
        let Connection::Live(Live { id, .. }) = self.connections.current else { return };
        if self.source.finish_sent.is_some() && !self.capabilities.gaps {
            // The audio behind a gap is for the next session, whose connection may be opening already.
            return;
        }
        loop {
            while let Some(flush) =
                self.source.flushes.iter_mut().find(|flush| !flush.sent && flush.at <= self.positions.sent)
            {
                flush.sent = true;
                self.outputs.push_back(Output::Send(id, ClientMessage::Flush { at: Some(flush.at) }));
            }
            match self.replay.at(self.positions.sent) {
                Some(Entry::Audio(chunk)) => {
                    let frames = self.limits.throttle.allows(self.sendable(&chunk), now);
                    if frames == 0 {
                        return;
                    }
                    self.limits.throttle.spend(frames);
                    self.send_audio(id, chunk.first(frames));
                }
                // The peer's session ends here, and another one starts behind the gap.
                Some(Entry::Gap(_)) if !self.capabilities.gaps => {
                    return self.finish(id, self.positions.sent);
                }
                // One gap at a time: while the gap before is not acknowledged, this one may still grow.
                Some(Entry::Gap(_)) if self.positions.awaits_gap() => return,
                Some(Entry::Gap(FrameRange { start: from, end: to })) => {
                    self.positions.gap_sent = to;
                    self.positions.send_to(to);
                    self.outputs.push_back(Output::Send(id, ClientMessage::Gap { from, to }));
                }
                None => break,
            }
        }
        if self.source.finished {
            self.finish(id, self.replay.end());
        }
    }

    /// Sends the end of the session, `through`, unless it was sent on this connection.
    fn finish(&mut self, id: ConnectionId, through: FramePos) {
        if self.source.finish_sent.is_none() {
            self.source.finish_sent = Some(through);
            self.outputs.push_back(Output::Send(id, ClientMessage::Finish { through }));
        }
    }

    /// Returns how many frames of the chunk at `sent` the peer takes now.
    fn sendable(&self, chunk: &AudioChunk) -> u64 {
        // Nothing may follow a gap until the gap is acknowledged.
        let window_left = if self.positions.awaits_gap() {
            0
        } else if self.capabilities.acknowledgements == Acknowledgements::None {
            u64::MAX
        } else {
            self.limits.window.saturating_sub(self.positions.in_flight())
        };
        // Audio that was sent stays in memory until it is final.
        let room = self.settings.replay.frames.max(1).saturating_sub(self.positions.sent - self.final_pos());
        let room = match self.settings.replay.overflow {
            Overflow::DropOldest => room,
            Overflow::Block => u64::MAX,
        };
        let before_flush = self.source.next_flush().map_or(u64::MAX, |at| at - self.positions.sent);
        chunk.range().len().min(window_left).min(self.limits.max_chunk_frames).min(before_flush).min(room)
    }

    /// Returns the time at which more may be sent, if only the rate limit holds it back.
    pub(super) fn throttled(&self) -> Option<Duration> {
        match self.replay.at(self.positions.sent)? {
            Entry::Audio(chunk) => match self.sendable(&chunk) {
                0 => None,
                frames => self.limits.throttle.due(frames),
            },
            Entry::Gap(_) => None,
        }
    }

    fn send_audio(&mut self, id: ConnectionId, chunk: AudioChunk) {
        self.ledger.replayed += self.positions.send_to(chunk.range().end);
        self.outputs.push_back(Output::SendAudio(id, chunk));
    }
}
