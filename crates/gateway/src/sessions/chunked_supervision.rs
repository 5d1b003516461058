//! Supervision of a chunked session: it ends with its last chunk, with a gap that is too long, with its
//! token, or with the gateway.

use std::sync::Arc;

use futures::future::OptionFuture;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::chunked_session::{ChunkedSession, Stage};
use super::manager::SessionManager;
use super::session::Session;
use super::supervision::{Notice, Supervision};

/// End of the wait for a task's first chunk.
enum OpeningEnd {
    Begun(Arc<Session>, u64),
    /// Nothing came in time: the task is done, and its text is empty.
    Done,
    /// The token was revoked, so the task is no longer available to any client.
    Revoked,
    /// The task lost its place to another client, or because the gateway is stopping.
    Displaced,
}

impl ChunkedSession {
    /// Watches over a task until it is done or no longer available to any client. `token_ends` is the
    /// expiry of the token that created the task.
    pub(crate) async fn supervise(
        self: Arc<ChunkedSession>,
        manager: &SessionManager,
        token_ends: Option<Instant>,
    ) {
        let (session, attachment) = match self.opening(manager, token_ends).await {
            OpeningEnd::Begun(session, attachment) => (session, attachment),
            OpeningEnd::Done => {
                manager.chunked.keep(&self);
                return self.until_informed(manager).await;
            }
            OpeningEnd::Revoked => return manager.chunked.remove(&self),
            // The task stays in the registry, and requests are told that the gateway is stopping.
            OpeningEnd::Displaced if manager.shutdown.is_draining() => return,
            OpeningEnd::Displaced => return manager.chunked.forget(&self),
        };
        let is_done = self.until_done(manager, &session, token_ends).await;
        if is_done {
            manager.chunked.keep(&self);
        } else {
            manager.chunked.remove(&self);
            session.end(attachment);
            self.aborted.cancel();
        }
        manager.registry.remove(session.name());
        tracing::info!(session = session.name(), done = is_done, "task ended");
        if is_done {
            self.until_informed(manager).await;
        }
    }

    /// While the gateway drains, waits until the client learns that the task is done.
    async fn until_informed(&self, manager: &SessionManager) {
        if manager.shutdown.is_draining() {
            let mut progress = self.progress.subscribe();
            tokio::select! {
                _ = progress.wait_for(|progress| progress.informed) => {}
                () = manager.shutdown.closing.cancelled() => {}
            }
        }
    }

    /// Waits for the first chunk, as long as there may be one.
    async fn opening(&self, manager: &SessionManager, token_ends: Option<Instant>) -> OpeningEnd {
        let mut progress = self.progress.subscribe();
        let mut revocations = manager.authority.revocations();
        // Revocations between the check of the token and this subscription are not notified, so check once
        // more.
        revocations.mark_changed();
        let displaced = match &*self.stage() {
            Stage::Pending(place) => place.displacement(),
            Stage::Begun(..) | Stage::Over => CancellationToken::new(),
        };
        loop {
            if let Stage::Begun(session, attachment) = &*self.stage() {
                return OpeningEnd::Begun(session.clone(), *attachment);
            }
            let quiet = progress.borrow_and_update().quiet_at();
            let ended = tokio::select! {
                changed = progress.changed() => {
                    changed.expect("the task holds its progress");
                    continue;
                }
                changed = revocations.changed() => {
                    changed.expect("the gateway holds the authority");
                    if self.check(&manager.authority).is_ok() {
                        continue;
                    }
                    OpeningEnd::Revoked
                }
                Some(()) = OptionFuture::from(quiet.map(sleep_until)) => OpeningEnd::Done,
                Some(()) = OptionFuture::from(token_ends.map(sleep_until)) => OpeningEnd::Done,
                () = displaced.cancelled() => OpeningEnd::Displaced,
                () = manager.shutdown.draining.cancelled() => {
                    // A first chunk that comes now is refused because the gateway is stopping. An earlier
                    // one has begun the session.
                    if let Stage::Pending(_) = &*self.stage() {
                        return OpeningEnd::Displaced;
                    }
                    continue;
                }
            };
            let mut stage = self.stage();
            // A chunk may have begun the session meanwhile.
            if let Stage::Pending(_) = &*stage {
                *stage = Stage::Over;
                return ended;
            }
        }
    }

    async fn until_done(
        &self,
        manager: &SessionManager,
        session: &Session,
        token_ends: Option<Instant>,
    ) -> bool {
        let mut changes = session.state().watch();
        let mut progress = self.progress.subscribe();
        let mut supervision = Supervision::new(manager);
        loop {
            let is_finished = {
                let state = session.state().lock();
                if state.results.done || state.results.failed {
                    return true;
                }
                state.input.finish.is_some()
            };
            let quiet = progress.borrow_and_update().quiet_at();
            tokio::select! {
                changed = changes.changed() => changed.expect("the session holds the state"),
                changed = progress.changed() => changed.expect("the task holds its progress"),
                notice = supervision.notice() => match notice {
                    Notice::Revocation if self.check(&manager.authority).is_err() => return false,
                    Notice::Revocation | Notice::Drain => {}
                    Notice::Close => return false,
                },
                Some(()) = OptionFuture::from(quiet.map(sleep_until)), if !is_finished => session.close(),
                Some(()) = OptionFuture::from(token_ends.map(sleep_until)), if !is_finished => session.close(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secrecy::ExposeSecret;
    use tokio::time::timeout;

    use super::*;
    use crate::admission::pending::PendingClients;
    use crate::authority::{Authority, Fingerprint, Identity, Scope, Terms};
    use crate::sessions::chunked_registry::Lookup;
    use crate::sessions::credential::OpeningToken;
    use voxline_support::clock::SystemClock;

    /// Returns the identity of a token of a new project.
    fn holder(manager: &SessionManager, project: &str) -> Identity {
        let authority = &manager.authority;
        authority.create_project(project).unwrap();
        let token = authority.create_service_token(project, Terms::default()).unwrap().token;
        authority.authorise(token.expose_secret(), Scope::AsrStream, None).unwrap()
    }

    #[tokio::test]
    async fn a_displaced_task_is_forgotten() {
        let clock = Arc::new(SystemClock::new());
        let authority = Authority::in_memory(Duration::from_secs(3_600), clock).unwrap();
        let manager = SessionManager::with_defaults(authority, None);
        let (greedy, other) = (holder(&manager, "greedy"), holder(&manager, "other"));
        let pending = PendingClients::new(2);
        let (place, _more) = (pending.admit(&greedy).unwrap(), pending.admit(&greedy).unwrap());
        let start = serde_json::from_str(r#"{"sample_rate":16000}"#).unwrap();
        let named = ("task".to_owned(), Fingerprint::of("its token"));
        let opener = OpeningToken::new(greedy, Duration::ZERO);
        let task = Arc::new(ChunkedSession::new(named, opener, start, place, None));
        manager.chunked.insert(task.clone());
        assert!(pending.admit(&other).is_ok(), "a project that has fewer gets the place");
        let living = task.clone().supervise(&manager, None);
        timeout(Duration::from_secs(30), living).await.expect("a task without a place ends");
        assert!(matches!(manager.chunked.find(&Fingerprint::of("its token")), Lookup::Forgotten));
        assert!(task.is_done(), "it takes no chunk any more");
    }
}
