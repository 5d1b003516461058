//! What is sent, and when.

use std::time::Duration;

use super::Core;
use crate::audio::{AudioChunk, FrameRange};
use crate::session::events::{ConnectionId, Output};
use crate::session::links::{Link, Live};
use crate::session::protocol::ClientMessage;
use crate::session::replay::Entry;

impl Core {
    /// Sends what may be sent: audio within the peer's window, a flush where it belongs, and the end.
    pub(super) fn pump(&mut self, now: Duration) {
        let Link::Live(Live { id, .. }) = self.link else { return };
        loop {
            if let Some((at, sent @ false)) = &mut self.flush
                && self.sent >= *at
            {
                *sent = true;
                self.outputs.push_back(Output::Send(id, ClientMessage::Flush));
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
            self.last_progress = self.last_progress.max(now);
            let through = self.replay.end();
            self.outputs.push_back(Output::Send(id, ClientMessage::Finish { through }));
        }
    }

    /// How much of the chunk at `sent` the peer takes now.
    fn sendable(&self, chunk: &AudioChunk) -> u64 {
        // Nothing may follow a gap before that is acknowledged.
        let window_left = match self.received < self.gap_sent {
            true => 0,
            false => self.window.saturating_sub(self.sent - self.received),
        };
        let before_flush = match self.flush {
            Some((at, false)) => at - self.sent,
            _ => u64::MAX,
        };
        chunk.range().len().min(window_left).min(self.max_chunk_frames).min(before_flush)
    }

    /// When more may be sent, if it is only the pace that holds it back.
    pub(super) fn throttled(&self) -> Option<Duration> {
        match self.replay.at(self.sent)? {
            Entry::Audio(chunk) => match self.sendable(&chunk) {
                0 => None,
                frames => self.throttle.due(frames),
            },
            Entry::Gap(_) => None,
        }
    }

    /// Keeps the farthest that `sent` has ever been.
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
