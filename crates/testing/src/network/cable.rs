//! Bytes under way on one connection.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::{Line, Network};
use crate::{Cut, Fault};
use voxline_support::random::Random;

/// Ends of a cable. Each is also the index of the direction that begins there.
pub(super) const CLIENT: usize = 0;
pub(super) const SERVER: usize = 1;

/// Fate of bytes that are written now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passage {
    Free,
    /// Bytes wait for ever.
    Stalled,
    /// Bytes are taken and dropped.
    Swallowed,
    /// Bytes are taken and dropped until each end learns of the reset, at its time.
    Reset([Instant; 2]),
}

/// One connection.
pub(super) struct Cable {
    line: Line,
    dice: Random,
    ways: [Way; 2],
    passage: Passage,
    struck: bool,
    network: Arc<Network>,
    number: usize,
}

/// One direction of a connection.
struct Way {
    /// Parcels under way, each with its time of arrival, or `None` if it never arrives.
    parcels: VecDeque<(Option<Instant>, Parcel)>,
    held: usize,
    written: u64,
    /// When the line is free for the next write, and when the last parcel arrives.
    free: Instant,
    arrival: Instant,
    ended: bool,
    /// When the writer learns that the reader is gone.
    deaf: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum Parcel {
    Bytes(Bytes),
    End,
}

pub(super) enum Read {
    Done(io::Result<()>),
    /// Nothing can be read before this time or a call of the waker.
    Nothing(Option<Instant>),
}

impl Way {
    fn new(now: Instant) -> Way {
        Way {
            parcels: VecDeque::new(),
            held: 0,
            written: 0,
            free: now,
            arrival: now,
            ended: false,
            deaf: None,
            reader: None,
            writer: None,
        }
    }

    fn wake(&mut self) {
        [self.reader.take(), self.writer.take()].into_iter().flatten().for_each(Waker::wake);
    }
}

impl Cable {
    pub(super) fn new(line: Line, dice: Random, network: Arc<Network>, number: usize, now: Instant) -> Cable {
        let ways = [Way::new(now), Way::new(now)];
        Cable { line, dice, ways, passage: Passage::Free, struck: false, network, number }
    }

    fn latency(&self, way: usize) -> Duration {
        let more = if let Fault::Delay(delay) = self.line.fault { delay } else { Duration::ZERO };
        more + if way == CLIENT { self.line.up } else { self.line.down }
    }

    /// Returns the number of bytes that this direction takes before the fault strikes.
    fn budget(&self, way: usize) -> Option<u64> {
        let after = match (self.line.fault, way) {
            (Fault::CutClient { after, .. } | Fault::Stall { after } | Fault::HalfOpen { after }, CLIENT)
            | (Fault::CutServer { after, .. }, SERVER) => after,
            _ => return None,
        };
        (!self.struck).then(|| after.saturating_sub(self.ways[way].written))
    }

    pub(super) fn write(
        &mut self,
        end: usize,
        buf: &[u8],
        cx: &Context<'_>,
        now: Instant,
    ) -> Poll<io::Result<usize>> {
        if self.budget(end) == Some(0) {
            self.strike(now);
        }
        let count = match self.swallows(end, now) {
            Err(kind) => return Poll::Ready(Err(kind.into())),
            Ok(true) => buf.len(),
            Ok(false) => {
                let room = self.line.capacity.max(1).saturating_sub(self.ways[end].held);
                if room == 0 {
                    self.ways[end].writer = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                let count = self.draw_count(end, buf.len().min(room));
                self.dispatch(end, Parcel::Bytes(Bytes::copy_from_slice(&buf[..count])), now);
                self.ways[end].held += count;
                count
            }
        };
        self.note_written(end, count, now);
        if self.budget(end) == Some(0) {
            self.strike(now);
        }
        Poll::Ready(Ok(count))
    }

    /// Returns whether bytes that this end writes are taken and dropped. Returns the error of a write once
    /// the writer knows that the connection is over.
    fn swallows(&self, end: usize, now: Instant) -> Result<bool, io::ErrorKind> {
        match (self.passage, self.ways[end].deaf) {
            (Passage::Reset(told), _) if now >= told[end] => Err(io::ErrorKind::ConnectionReset),
            (_, Some(told)) if now >= told => Err(io::ErrorKind::BrokenPipe),
            _ if self.ways[end].ended => Err(io::ErrorKind::BrokenPipe),
            (Passage::Reset(_) | Passage::Swallowed, _) | (_, Some(_)) => Ok(true),
            (Passage::Free | Passage::Stalled, None) => Ok(false),
        }
    }

    /// Draws how many of at most `most` bytes a write takes.
    fn draw_count(&mut self, end: usize, most: usize) -> usize {
        let mut longest = self.line.piece.max(1);
        if let Fault::Trickle { bytes, .. } = self.line.fault {
            longest = longest.min(bytes.max(1));
        }
        let piece = 1 + self.dice.below(longest as u64) as usize;
        // Most writes are taken whole, or all tests would run on streams of tiny pieces.
        let piece = if self.dice.below(4) == 0 { piece } else { longest };
        let budget = self.budget(end).map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        most.min(piece).min(budget)
    }

    /// Counts bytes that were written. Begins the line's pause when its time has come.
    fn note_written(&mut self, end: usize, count: usize, now: Instant) {
        self.ways[end].written += count as u64;
        let written = self.ways[end].written;
        self.network.trace(self.number, |trace| match end {
            CLIENT => trace.up = written,
            _ => trace.down = written,
        });
        if let Some((after, pause)) = self.line.pause
            && end == CLIENT
            && written >= after
        {
            self.line.pause = None;
            self.ways.iter_mut().for_each(|way| way.free = way.free.max(now + pause));
        }
    }

    /// Sends a parcel on its way.
    fn dispatch(&mut self, way: usize, parcel: Parcel, now: Instant) {
        let jitter = Duration::from_micros(self.dice.below(self.line.jitter.as_micros() as u64 + 1));
        let latency = self.latency(way) + jitter;
        let passage = self.passage;
        let Way { parcels, free, arrival, reader, .. } = &mut self.ways[way];
        *free = (*free).max(now);
        if let Fault::Trickle { every, .. } = self.line.fault {
            *free += every;
        }
        *arrival = (*arrival).max(*free + latency);
        match passage {
            Passage::Free => parcels.push_back((Some(*arrival), parcel)),
            Passage::Stalled => parcels.push_back((None, parcel)),
            Passage::Swallowed | Passage::Reset(_) => {}
        }
        if let Some(reader) = reader.take() {
            reader.wake();
        }
    }

    fn strike(&mut self, now: Instant) {
        self.struck = true;
        let at = now - self.network.begun;
        self.network.trace(self.number, |trace| trace.struck = Some(at));
        match self.line.fault {
            Fault::CutClient { cut: Cut::Close, .. } | Fault::CutServer { cut: Cut::Close, .. } => {
                self.dispatch(CLIENT, Parcel::End, now);
                self.dispatch(SERVER, Parcel::End, now);
                self.passage = Passage::Swallowed;
            }
            Fault::CutClient { cut: Cut::Reset, .. } | Fault::CutServer { cut: Cut::Reset, .. } => {
                self.ways.iter_mut().for_each(|way| way.parcels.clear());
                self.passage = Passage::Reset([now + self.latency(SERVER), now + self.latency(CLIENT)]);
            }
            Fault::Stall { .. } => self.passage = Passage::Stalled,
            Fault::HalfOpen { .. } => self.passage = Passage::Swallowed,
            Fault::None | Fault::Refuse | Fault::Trickle { .. } | Fault::Delay(_) => {}
        }
        self.ways.iter_mut().for_each(Way::wake);
    }

    pub(super) fn read(&mut self, end: usize, buf: &mut ReadBuf<'_>, cx: &Context<'_>, now: Instant) -> Read {
        if let Passage::Reset(told) = self.passage {
            return if now >= told[end] {
                Read::Done(Err(io::ErrorKind::ConnectionReset.into()))
            } else {
                Read::Nothing(Some(told[end]))
            };
        }
        let way = &mut self.ways[1 - end];
        match way.parcels.front_mut() {
            Some((Some(due), parcel)) if *due <= now => {
                let Parcel::Bytes(bytes) = parcel else { return Read::Done(Ok(())) };
                let count = bytes.len().min(buf.remaining());
                buf.put_slice(&bytes[..count]);
                bytes.advance(count);
                if bytes.is_empty() {
                    way.parcels.pop_front();
                }
                way.held -= count;
                if let Some(writer) = way.writer.take() {
                    writer.wake();
                }
                if end == CLIENT {
                    let at = now - self.network.begun;
                    self.network.trace(self.number, |trace| trace.heard = Some(at));
                }
                Read::Done(Ok(()))
            }
            front => {
                let due = front.and_then(|(due, _)| *due);
                way.reader = Some(cx.waker().clone());
                Read::Nothing(due)
            }
        }
    }

    /// Ends the direction that begins at this end.
    pub(super) fn finish(&mut self, end: usize, now: Instant) {
        if !std::mem::replace(&mut self.ways[end].ended, true) {
            self.dispatch(end, Parcel::End, now);
        }
    }

    /// Removes this end from the connection.
    pub(super) fn leave(&mut self, end: usize, now: Instant) {
        self.finish(end, now);
        let told = now + self.latency(end);
        let way = &mut self.ways[1 - end];
        way.parcels.clear();
        way.wake();
        // A peer that seems to have lost its power does not answer either.
        if matches!(self.passage, Passage::Free) {
            way.deaf = Some(told);
        }
        if end == CLIENT {
            let at = now - self.network.begun;
            self.network.trace(self.number, |trace| trace.left = Some(at));
        }
    }
}
