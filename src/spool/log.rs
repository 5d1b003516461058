//! Journal of a session that has a spool.

use std::io;
use std::sync::Arc;

use super::record::Entry;
use super::{Durability, Shared};
use crate::session::{Journal, ServerSession};
use crate::transcript::TranscriptEvent;

/// The journal of a session: finals, gaps and the server's session, in the same file as the audio.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
}

impl Log {
    pub(super) fn new(shared: Arc<Shared>) -> Log {
        Log { shared }
    }
}

impl Journal for Log {
    fn record_server(&mut self, server: &ServerSession) -> io::Result<()> {
        // Without this record a later process starts a new session, which costs recognition but no audio.
        self.shared.append(Durability::Deferred, &[], |_| Some(Entry::Opened(server.clone())))?;
        Ok(())
    }

    fn record_event(&mut self, event: &TranscriptEvent) -> io::Result<()> {
        self.shared.append(Durability::BeforeEvent, &[], |state| match event {
            TranscriptEvent::Final(segment) => Some(Entry::Final(segment.clone())),
            TranscriptEvent::Gap { range } => Some(Entry::Gap(*range)),
            // A session whose source broke off ends as well; the missing audio may still come, in a later
            // process.
            TranscriptEvent::End { .. } => (state.is_complete() && !state.done).then_some(Entry::Done),
            TranscriptEvent::Partial { .. } | TranscriptEvent::Reconnected { .. } => None,
        })?;
        Ok(())
    }
}
