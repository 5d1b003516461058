//! The state that all requests share.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Request;
use axum::routing::MethodRouter;
use futures::Stream;

use crate::admission::capacity::RequestCapacity;
use crate::admission::project_places::ProjectPlaces;
use crate::authority::{Amount, Authority, AuthorityError, Identity, Scope};
use crate::http::auth_rate_limiter::AuthRateLimiter;
use crate::http::client::{bearer, peer};
use crate::http::connection_limiter;
use crate::http::error::ApiError;
use crate::http::url_client::UrlClient;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::recordings::transcription::Charge;
use crate::recordings::uploads::UploadStore;
use crate::sessions::manager::SessionManager;
use crate::speech::synthesis::{self, SpeechResources, Synthesis};
use voxline::engine::{EngineError, RecognitionRequest, Recognizer, Voices};

/// A path and the handlers of its methods.
pub(crate) type Route = (&'static str, MethodRouter<Arc<Gateway>>);

/// Engines that a gateway recognises and synthesises speech with.
#[derive(Default)]
pub struct Engines {
    /// The recogniser. Without one, requests for recognition are answered with status 501.
    pub recognizer: Option<Arc<dyn Recognizer>>,
    /// Voices for synthesis.
    pub voices: Voices,
}

/// Most results that are on their way to callbacks: they are in memory.
const MAX_CALLBACKS: usize = 64;

/// State that all requests share.
pub struct Gateway {
    pub(crate) authority: Arc<Authority>,
    pub(crate) voices: Voices,
    pub(crate) options: Arc<Options>,
    /// Time of creation, on the authority's monotonic clock.
    pub(crate) started: Duration,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) auth_limiter: Arc<AuthRateLimiter>,
    /// Capacity for requests with a token.
    pub(crate) authenticated: RequestCapacity,
    /// Capacity for requests of the demo, which have no token.
    demo: RequestCapacity,
    /// Long recordings that have arrived or are arriving.
    pub(crate) uploads: Arc<UploadStore>,
    /// Client for addresses that clients name.
    pub(crate) urls: UrlClient,
    /// Places for results on their way to callbacks, since the server of a callback may keep one for minutes.
    pub(crate) callbacks: ProjectPlaces,
    pub(crate) sessions: Arc<SessionManager>,
}

impl Gateway {
    /// Creates a gateway that trusts `authority`.
    #[must_use]
    pub fn new(authority: Authority, engines: Engines, options: Options) -> Gateway {
        let Engines { recognizer, voices } = engines;
        let (authority, options) = (Arc::new(authority), Arc::new(options));
        let (places, threads) = (options.max_requests, options.threads.get());
        let metrics = Arc::new(Metrics::new(options.max_sessions, threads, authority.token_counters()));
        let auth_limiter = Arc::new(AuthRateLimiter::new(options.max_failures, authority.clock().clone()));
        Gateway {
            started: authority.clock().monotonic(),
            authenticated: RequestCapacity::authenticated(places, threads),
            demo: RequestCapacity::demo(places, threads),
            uploads: Arc::new(UploadStore::new(&options.recordings)),
            urls: UrlClient::new(&options.url_hosts),
            callbacks: ProjectPlaces::new(MAX_CALLBACKS),
            sessions: Arc::new(SessionManager::new(
                authority.clone(),
                auth_limiter.clone(),
                recognizer,
                metrics.clone(),
                options.clone(),
            )),
            authority,
            voices,
            options,
            metrics,
            auth_limiter,
        }
    }

    /// Returns the authority that decides which clients may use the gateway.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns the identity behind the request's token, if the token is valid for `scope`.
    pub(crate) fn authorise(&self, request: &Request, scope: Scope) -> Result<Identity, ApiError> {
        let authorise = |token: &str| self.authority.authorise(token, scope, peer(request));
        self.identify(request, bearer(request.headers()), authorise)
    }

    /// Returns the identity behind `token`, the token of the request, if `check` accepts it.
    pub(crate) fn identify(
        &self,
        request: &Request,
        token: Option<&str>,
        check: impl FnOnce(&str) -> Result<Identity, AuthorityError>,
    ) -> Result<Identity, ApiError> {
        let identity = token.ok_or_else(ApiError::token).and_then(|token| Ok(check(token)?));
        if identity.is_ok() {
            connection_limiter::mark_busy(request);
        }
        identity.map_err(|error| self.documented(error))
    }

    /// Returns `error` with the status that the documentation prints, if the operator has chosen that.
    pub(crate) fn documented(&self, error: ApiError) -> ApiError {
        if self.options.documented_status { error.documented() } else { error }
    }

    /// Writes usage to disk. After a failure, the next call tries again.
    pub(crate) async fn keep_usage(&self) {
        let authority = self.authority.clone();
        let kept = tokio::task::spawn_blocking(move || authority.keep_usage()).await;
        match kept {
            // The failure was logged when the outage began, and the usage stays counted.
            Ok(Ok(()) | Err(AuthorityError::Unavailable { .. })) | Err(_) => {}
            Ok(Err(error)) => tracing::error!(%error, "usage could not be stored"),
        }
    }

    pub(crate) fn recognizer(&self) -> Result<&Arc<dyn Recognizer>, ApiError> {
        self.sessions.recognizer()
    }

    /// Returns the name of the recogniser, if there is one.
    pub(crate) fn recognizer_name(&self) -> Option<&str> {
        self.recognizer().ok().map(|recognizer| recognizer.name())
    }

    /// Returns the capacity for requests of this client. Clients without a token share a separate, smaller
    /// one.
    pub(crate) fn capacity(&self, identity: Option<&Identity>) -> &RequestCapacity {
        if identity.is_some() { &self.authenticated } else { &self.demo }
    }

    /// Returns a function that charges the audio of one recording to `identity`, if there is one, and counts
    /// it as received by `api`.
    pub(crate) fn charge(self: &Arc<Gateway>, api: &'static str, identity: Option<Identity>) -> Charge {
        let gateway = self.clone();
        Box::new(move |milliseconds| {
            match &identity {
                Some(identity) => gateway.sessions.charge(identity, api, milliseconds, 0)?,
                None => gateway.metrics.receive(api, milliseconds, 0),
            }
            Ok(())
        })
    }

    /// Synthesises a text for the API `api`, and charges it to `identity`, if there is one. Returns the
    /// encoded speech.
    pub(crate) async fn speak(
        &self,
        api: &'static str,
        identity: Option<&Identity>,
        synthesis: Synthesis,
    ) -> Result<impl Stream<Item = Result<Bytes, EngineError>> + Send + use<>, ApiError> {
        let capacity = self.capacity(identity);
        let place = capacity.place()?;
        if let Some(identity) = identity {
            self.authority.charge(identity, api, Amount::text(synthesis.characters as u64))?;
        }
        self.metrics.speech.characters.get_or_create(&[("api", api)]).inc_by(synthesis.characters as u64);
        self.metrics.count_bytes(api, "in", synthesis.bytes);
        let resources = SpeechResources {
            place,
            turns: capacity.voices.clone(),
            patience: self.options.connections.write_timeout,
            metrics: self.metrics.clone(),
            api,
        };
        synthesis::speak(synthesis, resources).await
    }

    /// Returns the options of [`SessionManager::recognition_request`].
    pub(crate) fn recognition_request(
        &self,
        identity: Option<&Identity>,
        language: Option<String>,
    ) -> RecognitionRequest {
        self.sessions.recognition_request(identity, language)
    }
}
