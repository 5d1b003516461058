//! The server's end of the protocol, without a recogniser: for tests of clients.
//!
//! [`RecordingPeer`] serves sessions like the gateway, over any stream, and keeps every sample it receives.
//! A test can tell that all samples arrived, and that a replay brought the same samples as before. The
//! peer's texts are [digests](super::digest) of the samples. [`ScriptedPeer`] waits for the messages that
//! its script expects and answers with the messages that the script says.
//!
//! Both are deterministic, start no thread or task, and follow tokio's clock, which may be paused. Over
//! [`network`](super::network) the seed decides everything in a test.

mod scripted;
mod session;
mod socket;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

pub use scripted::{Expect, Reply, ScriptError, ScriptedPeer, Step};
pub use session::Recording;

use self::session::Session;
use super::ShortLivedTokens;
use super::network::Acceptor;
use voxline::audio::FramePos;
use voxline::protocol::GoawayReason;

/// Settings of a peer that behaves well.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Length of the peer's segments; a gap, a flush and the end cut segments short.
    pub segment_frames: u64,
    /// If set, segment lengths vary from a quarter of `segment_frames` up to all of it. This seed and the
    /// start of the segment decide the length, so two peers with one seed cut alike.
    pub segment_seed: Option<u64>,
    /// Time the recogniser takes for one segment.
    pub recognition: Duration,
    /// Number of frames that audio may run ahead of its acknowledgement.
    pub window_frames: u64,
    /// Longest binary frame accepted, in bytes, including the position.
    pub max_audio_bytes: usize,
    /// Number of frames after which audio is acknowledged. It is acknowledged after 250 ms in any case. The
    /// protocol allows 250 ms of audio.
    pub ack_frames: u64,
    /// Number of frames that acknowledgements may run ahead of finals. Less than two segments may make
    /// client and server wait for each other.
    pub hold_frames: u64,
    /// `true` if the peer sends partial results, one with each acknowledgement.
    pub partials: bool,
    /// `true` if the peer accepts a new token in band.
    pub auth: bool,
    /// Time for which a session outlives its socket.
    pub resume_window: Duration,
    /// Valid tokens. If `None`, every token is valid for ever.
    pub tokens: Option<ShortLivedTokens>,
}

impl Default for Behaviour {
    /// Returns settings for 16 kHz: segments of half a second, recognised at once, and a window of ten
    /// seconds.
    fn default() -> Behaviour {
        Behaviour {
            segment_frames: 8_000,
            segment_seed: None,
            recognition: Duration::ZERO,
            window_frames: 160_000,
            max_audio_bytes: 64 * 1024,
            ack_frames: 4_000,
            hold_frames: u64::MAX,
            partials: false,
            auth: false,
            resume_window: Duration::from_secs(60),
            tokens: None,
        }
    }
}

impl Behaviour {
    /// Returns the length of the segment that starts at `start`.
    fn segment(&self, start: FramePos) -> u64 {
        let longest = self.segment_frames.max(1);
        match self.segment_seed {
            None => longest,
            Some(seed) => {
                let mixed = (start.0 ^ seed.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                (longest / 4 + mixed % (longest - longest / 4 + 1)).max(1)
            }
        }
    }
}

/// Deviation of a peer from its good behaviour on one socket. Counts are of messages that the client has
/// sent; the first message is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whim {
    /// No deviation.
    None,
    /// The peer answers the handshake with this status.
    Refuse {
        /// HTTP status.
        status: u16,
        /// Value of `Retry-After`, in seconds.
        retry_after: Option<u32>,
    },
    /// The peer closes the socket after so many messages. With code 4401 the peer also revokes the socket's
    /// token.
    Close {
        /// Number of messages.
        after: u64,
        /// Close code.
        code: u16,
        /// `true` if the peer loses the session, as a restarted server does.
        forget: bool,
    },
    /// After so many messages the peer announces that it will close the socket, and closes it at the
    /// deadline.
    Goaway {
        /// Number of messages.
        after: u64,
        /// Reason in the announcement.
        reason: GoawayReason,
        /// Time from the announcement to the close.
        deadline: Duration,
    },
}

/// A peer that serves one client by the protocol and keeps the client's audio. Clones share it. See [the
/// module](self).
///
/// A breach of the protocol by the client is recorded and closes the socket with 4400. `breaches` should be
/// empty at the end of a test.
#[derive(Clone)]
pub struct RecordingPeer {
    behaviour: Arc<Behaviour>,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

struct State {
    session: Option<Session>,
    recording: Recording,
    started: u64,
    sockets: u64,
    served: u64,
    whims: Box<dyn Iterator<Item = Whim> + Send>,
    breaches: Vec<String>,
}

impl RecordingPeer {
    /// Creates a peer that always behaves well.
    #[must_use]
    pub fn new(behaviour: Behaviour) -> RecordingPeer {
        RecordingPeer::with_whims(behaviour, [])
    }

    /// Creates a peer that takes a whim for each socket from `whims`. It behaves well after their end.
    #[must_use]
    pub fn with_whims<W>(behaviour: Behaviour, whims: W) -> RecordingPeer
    where
        W: IntoIterator<Item = Whim>,
        W::IntoIter: Send + 'static,
    {
        let state = State {
            session: None,
            recording: Recording::default(),
            started: 0,
            sockets: 0,
            served: 0,
            whims: Box::new(whims.into_iter()),
            breaches: Vec::new(),
        };
        RecordingPeer {
            behaviour: Arc::new(behaviour),
            state: Arc::new(Mutex::new(state)),
            changed: watch::Sender::new(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the audio received so far, on all sockets.
    #[must_use]
    pub fn recording(&self) -> Recording {
        self.state().recording.clone()
    }

    /// Returns the position up to which the open session has received audio, or `None` if no session is
    /// open.
    #[must_use]
    pub fn received(&self) -> Option<FramePos> {
        self.state().session.as_ref().map(|session| session.received)
    }

    /// Returns the number of sessions started.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.state().started
    }

    /// Returns the number of sockets that reached `ready`.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.state().served
    }

    /// Returns descriptions of the client's breaches of the protocol.
    #[must_use]
    pub fn breaches(&self) -> Vec<String> {
        self.state().breaches.clone()
    }

    /// Loses the session, as a restarted server does: its socket is closed with 1012, and a resume with
    /// 4404.
    pub fn forget(&self) {
        self.state().session = None;
        self.changed.send_replace(());
    }

    /// Serves one socket, from its handshake to its end.
    pub async fn serve<Io: AsyncRead + AsyncWrite + Unpin>(&self, io: Io) {
        let number = {
            let mut state = self.state();
            state.sockets += 1;
            state.sockets
        };
        let whim = self.state().whims.next().unwrap_or(Whim::None);
        socket::serve(self, io, number, whim).await;
    }

    /// Serves all connections that arrive over a simulated network, concurrently.
    pub async fn serve_all(&self, mut acceptor: Acceptor) {
        let mut sockets = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = sockets.next() => {}
                stream = acceptor.accept() => match stream {
                    Some(stream) => sockets.push(self.serve(stream)),
                    None => break,
                },
            }
        }
        while sockets.next().await.is_some() {}
    }
}
