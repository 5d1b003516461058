//! State shared by live sessions, and the admission of new ones.

use std::sync::Arc;

use http::StatusCode;

use super::chunked_registry::{self, ChunkedRegistry};
use super::registry::SessionRegistry;
use super::session::{Session, StartError};
use super::shutdown::Shutdown;
use crate::admission::capacity::DecodePool;
use crate::admission::load::LATE;
use crate::admission::pending::{PendingClients, PendingPlace};
use crate::admission::reject::{Full, RejectReason};
use crate::authority::{Amount, Authority, Exhausted, Identity};
use crate::http::auth_rate_limiter::AuthRateLimiter;
use crate::http::error::{ApiError, BUSY_WAIT};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::scheduler::Scheduler;
use voxline::engine::{Capabilities, RecognitionRequest, Recognizer};
use voxline::error::chain;
use voxline::protocol::Start;

/// State that live sessions share: the recogniser and its threads, the registries, the places for clients
/// that have not begun a session, and the shutdown.
pub(crate) struct SessionManager {
    pub(crate) authority: Arc<Authority>,
    pub(crate) auth_limiter: Arc<AuthRateLimiter>,
    pub(crate) options: Arc<Options>,
    pub(crate) metrics: Arc<Metrics>,
    recognizer: Option<Arc<dyn Recognizer>>,
    pub(crate) scheduler: Scheduler,
    pub(crate) registry: SessionRegistry,
    pub(crate) chunked: ChunkedRegistry,
    /// Threads that decode numbered chunks, which clients wait for live.
    pub(crate) chunk_decoders: DecodePool,
    /// Places for sockets that have not begun a session.
    pending_sockets: PendingClients,
    /// Places for chunked sessions that have not received a chunk.
    pending_chunked: PendingClients,
    pub(crate) shutdown: Shutdown,
}

/// Reason why a session could not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BeginError {
    #[error("this gateway has no recogniser")]
    NoRecognizer,
    #[error("{}", .0.message().1)]
    Rejected(RejectReason),
    /// The last place was taken after the client was admitted.
    #[error("{}", .0.describe().1)]
    Full(Full),
    #[error(transparent)]
    Start(#[from] StartError),
}

impl BeginError {
    /// Returns the description for the client. A fault of the gateway is logged, and its details stay there.
    pub(crate) fn told(&self) -> String {
        match self {
            BeginError::Start(error @ (StartError::Engine(_) | StartError::Thread(_))) => {
                tracing::error!(error = %chain(error), "session could not be started");
                "the recogniser can't start".to_owned()
            }
            error => error.to_string(),
        }
    }
}

impl From<BeginError> for ApiError {
    fn from(error: BeginError) -> ApiError {
        match &error {
            BeginError::NoRecognizer => no_recognizer(),
            BeginError::Rejected(reason) => reason.error(),
            BeginError::Full(_) => {
                ApiError::busy(StatusCode::TOO_MANY_REQUESTS, &error.to_string(), BUSY_WAIT)
            }
            BeginError::Start(StartError::Unsupported(_) | StartError::Violation(_)) => {
                ApiError::bad_request(400, error.to_string())
            }
            BeginError::Start(error) => ApiError::internal(&chain(error)),
        }
    }
}

fn no_recognizer() -> ApiError {
    ApiError::new(StatusCode::NOT_IMPLEMENTED, 501, BeginError::NoRecognizer.to_string())
}

impl SessionManager {
    /// Creates a manager without sessions. Without a `recognizer`, requests for recognition are answered with
    /// status 501.
    pub(crate) fn new(
        authority: Arc<Authority>,
        auth_limiter: Arc<AuthRateLimiter>,
        recognizer: Option<Arc<dyn Recognizer>>,
        metrics: Arc<Metrics>,
        options: Arc<Options>,
    ) -> SessionManager {
        SessionManager {
            authority,
            auth_limiter,
            recognizer,
            scheduler: Scheduler::new(options.threads, metrics.clone()),
            metrics,
            registry: SessionRegistry::new(options.max_sessions),
            chunked: ChunkedRegistry::new(options.chunked.kept),
            chunk_decoders: DecodePool::beside(options.threads.get()),
            // One place for each session that the gateway can hold.
            pending_sockets: PendingClients::new(options.max_sessions),
            pending_chunked: PendingClients::new(chunked_registry::MAX_PENDING),
            shutdown: Shutdown::new(options.drain),
            options,
        }
    }

    pub(crate) fn recognizer(&self) -> Result<&Arc<dyn Recognizer>, ApiError> {
        self.recognizer.as_ref().ok_or_else(no_recognizer)
    }

    /// Returns what the recogniser honours of a request; the least if there is none.
    pub(crate) fn recognizer_capabilities(&self) -> Capabilities {
        self.recognizer.as_ref().map_or_else(Capabilities::default, |recognizer| recognizer.capabilities())
    }

    /// Returns a request with the language that the client names, or else with the languages of its
    /// project or of the gateway.
    pub(crate) fn recognition_request(
        &self,
        identity: Option<&Identity>,
        language: Option<String>,
    ) -> RecognitionRequest {
        if let Some(language) = language {
            return RecognitionRequest::new().language(language);
        }
        let project = identity.and_then(|identity| identity.languages.as_ref());
        RecognitionRequest::from(project.unwrap_or(&self.options.languages))
    }

    /// Checks that a session could start now.
    pub(crate) fn room_for_session(&self) -> Result<(), RejectReason> {
        if self.registry.count() >= self.options.max_sessions && !self.shutdown.is_draining() {
            return Err(RejectReason::Full);
        }
        self.takes_sessions()
    }

    /// Checks that a session could start now for a client that already has a socket. The registry checks
    /// for a free place when the session is inserted.
    pub(crate) fn takes_sessions(&self) -> Result<(), RejectReason> {
        if self.shutdown.is_draining() {
            Err(RejectReason::Draining)
        } else if self.scheduler.lateness() > LATE {
            Err(RejectReason::Late)
        } else {
            Ok(())
        }
    }

    /// Admits a client that wants a session of its own. The last place may still be taken before the client
    /// says `start`.
    pub(crate) fn admit_session(&self) -> Result<(), ApiError> {
        self.room_for_session().map_err(|reason| self.reject(reason))
    }

    /// Admits a socket for an existing session, even if there is no room for another session.
    pub(crate) fn admit_socket(&self) -> Result<(), ApiError> {
        if self.shutdown.is_draining() {
            return Err(self.reject(RejectReason::Draining));
        }
        Ok(())
    }

    /// Begins a session of `identity` for `api`, whoever feeds it. The session counts in the registry until
    /// it is [removed](SessionRegistry::remove).
    pub(crate) fn begin(
        &self,
        identity: &Identity,
        api: &'static str,
        start: &Start,
        request: RecognitionRequest,
    ) -> Result<Arc<Session>, BeginError> {
        // The client may have been admitted a while ago, or for another session.
        self.takes_sessions().map_err(|reason| {
            self.metrics.refuse(reason.name());
            BeginError::Rejected(reason)
        })?;
        let recognizer = self.recognizer.as_ref().ok_or(BeginError::NoRecognizer)?;
        let session = Arc::new(Session::start(recognizer, &self.scheduler, identity, start, request)?);
        self.registry.insert(&session, identity.terms.max_sessions).map_err(|full| {
            self.metrics.refuse(full.describe().0);
            BeginError::Full(full)
        })?;
        self.metrics.sessions.started.get_or_create(&[("api", api)]).inc();
        tracing::info!(session = session.name(), token = identity.token, "session started");
        Ok(session)
    }

    /// Charges audio of `milliseconds` and `bytes` to `identity`, and counts it for the API that it came by.
    pub(crate) fn charge(
        &self,
        identity: &Identity,
        api: &'static str,
        milliseconds: u64,
        bytes: usize,
    ) -> Result<(), Exhausted> {
        self.authority.charge(identity, api, Amount::audio(milliseconds))?;
        self.metrics.receive(api, milliseconds, bytes);
        Ok(())
    }

    /// Takes a place for a socket of `identity`, to be held until it begins its session.
    pub(crate) fn place_for_socket(&self, identity: &Identity) -> Result<PendingPlace, ApiError> {
        self.pending_sockets.admit(identity).map_err(|full| match full {
            Full::Gateway => self.reject(RejectReason::Full),
            Full::Token => self.refuse_holder("the token has as many sockets as it may"),
        })
    }

    /// Takes a place for a task of `identity`, to be held until it begins its session.
    pub(crate) fn place_for_chunked(&self, identity: &Identity) -> Result<PendingPlace, ApiError> {
        self.pending_chunked.admit(identity).map_err(|full| match full {
            Full::Gateway => self.reject(RejectReason::Full),
            Full::Token => self.refuse_holder("the token has as many tasks as it may"),
        })
    }

    fn refuse_holder(&self, message: &str) -> ApiError {
        self.metrics.refuse("token");
        ApiError::busy(StatusCode::TOO_MANY_REQUESTS, message, BUSY_WAIT)
    }

    pub(crate) fn reject(&self, reason: RejectReason) -> ApiError {
        self.metrics.refuse(reason.name());
        reason.error()
    }
}

#[cfg(test)]
impl SessionManager {
    /// Creates a manager with default options.
    pub(crate) fn with_defaults(
        authority: Authority,
        recognizer: Option<Arc<dyn Recognizer>>,
    ) -> SessionManager {
        let options = Options::default();
        let limiter = AuthRateLimiter::new(options.max_failures, authority.clock().clone());
        let metrics = Metrics::new(options.max_sessions, options.threads.get(), authority.token_counters());
        SessionManager::new(
            Arc::new(authority),
            Arc::new(limiter),
            recognizer,
            Arc::new(metrics),
            Arc::new(options),
        )
    }
}
