//! The server's end of the protocol, without a recogniser: for tests of clients.
//!
//! [`RecordingPeer`] serves sessions like the gateway, over any stream, and keeps every sample it hears, so that a test
//! can tell that all arrived, and a replay brought the same as before. Its texts are [digests](super::digest) of the
//! samples. [`ScriptedPeer`] says what it is told to, upon what it expects.
//!
//! Both are deterministic, start no thread or task, and follow tokio's clock, which may be paused. Over
//! [`network`](super::network) all of a test is decided by its seed.

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
use voxline::session::protocol::GoawayReason;

/// How a peer behaves as long as it behaves well.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// The length of its segments; a gap, a flush and the end cut them short.
    pub segment_frames: u64,
    /// If set, their length is anything from a quarter of that up, as this seed and their start decide: two peers of one
    /// seed cut alike.
    pub segment_seed: Option<u64>,
    /// How long the recogniser works on one.
    pub recognition: Duration,
    /// How far audio may run ahead of its acknowledgement.
    pub window_frames: u64,
    /// The longest binary frame taken, position included.
    pub max_audio_bytes: usize,
    /// Audio is acknowledged when there is so much of it; after 250 ms in any case. The protocol allows 250 ms of audio.
    pub ack_frames: u64,
    /// How far acknowledgements run ahead of finals: less than two segments may make client and server wait for each
    /// other.
    pub hold_frames: u64,
    /// Whether it says guesses, one with each acknowledgement.
    pub partials: bool,
    /// Whether it takes a token in band.
    pub auth: bool,
    /// How long a session outlives its socket.
    pub resume_window: Duration,
    /// What tokens are good; without it all are, for ever.
    pub tokens: Option<ShortLivedTokens>,
}

impl Default for Behaviour {
    /// For 16 kHz: segments of half a second, recognised at once, a window of ten seconds.
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
    /// The length of the segment that starts here.
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

/// What a peer does with one socket out of the ordinary. Messages are counted that the client has sent, the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whim {
    /// Nothing.
    None,
    /// It answers the handshake with this status.
    Refuse {
        /// The status.
        status: u16,
        /// What it says in `Retry-After`, in seconds.
        retry_after: Option<u32>,
    },
    /// It closes the socket after so many messages. With the code 4401 the socket's token is thrown out.
    Close {
        /// After how many.
        after: u64,
        /// With which code.
        code: u16,
        /// Whether it loses the session, as a server that starts anew.
        forget: bool,
    },
    /// After so many messages it says that it will close the socket, and does so by the deadline.
    Goaway {
        /// After how many.
        after: u64,
        /// What it says is the reason.
        reason: GoawayReason,
        /// How long it waits.
        deadline: Duration,
    },
}

/// Serves one client after the protocol, and keeps what it hears. Clones share it. See [the module](self).
///
/// A breach of the protocol by the client is written down, and closes the socket with 4400; `breaches` should be empty
/// at the end of a test.
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
    /// A peer that always behaves well.
    #[must_use]
    pub fn new(behaviour: Behaviour) -> RecordingPeer {
        RecordingPeer::with_whims(behaviour, [])
    }

    /// A peer that takes a whim for each socket from `whims`, and behaves well after their end.
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

    /// What was heard so far, on all sockets.
    #[must_use]
    pub fn recording(&self) -> Recording {
        self.state().recording.clone()
    }

    /// How far the open session has heard; `None` where there is none.
    #[must_use]
    pub fn received(&self) -> Option<FramePos> {
        self.state().session.as_ref().map(|session| session.received)
    }

    /// How many sessions were started.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.state().started
    }

    /// How many sockets came to `ready`.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.state().served
    }

    /// Where the client broke the protocol.
    #[must_use]
    pub fn breaches(&self) -> Vec<String> {
        self.state().breaches.clone()
    }

    /// Loses the session, as a server that starts anew: its socket is closed with 1012, and a resume with 4404.
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

    /// Serves whatever arrives over a simulated network, all sockets at once.
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
