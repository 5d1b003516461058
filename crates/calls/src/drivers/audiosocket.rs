//! Peers that connect by TCP: Asterisk's AudioSocket.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::{Connection, Received};
use crate::peers::Message;

/// Length of a frame. Asterisk takes one per 20 ms, and paces nothing by itself.
const FRAME: Duration = Duration::from_millis(20);
/// Most bytes that are read at once: a second of audio at 8 kHz.
const READ: usize = 16 * 1024;
/// Longest time for the hang-up to be sent.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The connection of an Asterisk. While nothing else is played it is sent [silence](Connection::idle),
/// without which some releases send no audio (issue 2089 of Asterisk).
pub(crate) struct AudioSocketConnection {
    stream: TcpStream,
    read: BytesMut,
    pace: Interval,
    /// Frames that are to be played, one at each tick.
    queue: VecDeque<Bytes>,
    silence: Option<Bytes>,
    /// Bytes of a frame that the kernel has not taken.
    unsent: Bytes,
}

impl AudioSocketConnection {
    /// Takes over a connection.
    pub(crate) fn new(stream: TcpStream) -> AudioSocketConnection {
        let mut pace = interval(FRAME);
        // What was missed is not made up for: it would pile up at the peer.
        pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
        AudioSocketConnection {
            stream,
            read: BytesMut::new(),
            pace,
            queue: VecDeque::new(),
            silence: None,
            unsent: Bytes::new(),
        }
    }

    /// Sends as much as the kernel takes.
    fn write(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.try_write(&self.unsent) {
                Ok(written) => self.unsent.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Connection for AudioSocketConnection {
    async fn next(&mut self) -> Result<Received, String> {
        loop {
            self.read.reserve(READ);
            tokio::select! {
                read = self.stream.read_buf(&mut self.read) => return match read {
                    Ok(0) => Ok(Received::Closed),
                    Ok(_) => Ok(Received::Message(Message::Binary(self.read.split().freeze()))),
                    Err(error) if is_lost(&error) => Ok(Received::Closed),
                    Err(error) => Err(error.to_string()),
                },
                _ = self.pace.tick() => {
                    // A peer that reads nothing gets no more.
                    if self.unsent.is_empty() {
                        self.unsent = self.queue.pop_front().or_else(|| self.silence.clone()).unwrap_or_default();
                    }
                    match self.write() {
                        Ok(()) => {}
                        Err(error) if is_lost(&error) => return Ok(Received::Closed),
                        Err(error) => return Err(error.to_string()),
                    }
                }
            }
        }
    }

    fn send(&mut self, message: Message) {
        if let Message::Binary(frame) = message {
            self.queue.push_back(frame);
        }
    }

    fn idle(&mut self, silence: Message) {
        if let Message::Binary(frame) = silence {
            self.silence = Some(frame);
        }
    }

    async fn close(mut self) {
        let closing = async {
            self.stream.write_all(&self.unsent).await?;
            for frame in self.queue.drain(..) {
                self.stream.write_all(&frame).await?;
            }
            self.stream.shutdown().await
        };
        // The peer may be gone already.
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }
}

fn is_lost(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut)
}
