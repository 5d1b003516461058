//! Calls under way, and the listeners by which they come.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::join_all;
use http::{StatusCode, header};
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::call::{Call, CallSettings};
use super::drivers::{AudioSocketConnection, WebSocketConnection, drive};
use super::event::{CallEvent, CallEventKind, EndReason};
use super::leg::{LegContext, finish_left};
use super::peers::Peer;
use super::recording::Recorder;
use super::unfinished::{LegFiles, LegRecord, file_stem};
use voxline::Client;
use voxline::error::chain;
use voxline_gateway::ApiError;
use voxline_gateway::websocket::{Upgrade, check, known_address, offered};
use voxline_support::clock::{Clock, SystemClock};
use voxline_support::random;

/// Number of events that may wait for their reader, of all calls together. A reader that stops makes results
/// wait in their sessions.
const WAITING_EVENTS: usize = 1_024;

/// Longest wait for the last results of calls that were hung up.
const LAST_RESULTS: Duration = Duration::from_secs(30);
/// Number of calls of an earlier process that are finished at a time: new calls come first.
const LEFT_AT_A_TIME: usize = 4;

/// Settings of all calls.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallsOptions {
    /// Settings of a call whose telephone system sends none along.
    pub settings: CallSettings,
    /// True, the default, if partial results are wanted.
    pub partials: bool,
    /// Most calls at a time; 1,000 by default.
    pub max_calls: usize,
    /// Secret that the peers' addresses end with: `/calls/twilio/SECRET`. Without one, calls are taken from
    /// [`from`](CallsOptions::from) alone.
    pub secret: Option<SecretString>,
    /// Networks of peers that need no secret; loopback by default. AudioSocket, which has none, is taken from
    /// here alone.
    pub from: Vec<IpNet>,
    /// Directory for a recording of each call, created if it is missing; none by default.
    pub record: Option<PathBuf>,
    /// Directory for the sessions of the legs of calls, created if it is missing; none by default. A later
    /// process finishes what one that was killed has left: see [`Calls::finish_left`].
    pub spool: Option<PathBuf>,
    /// Time for which calls may go on after the shutdown has begun; an hour by default.
    pub drain: Duration,
}

impl Default for CallsOptions {
    fn default() -> CallsOptions {
        let loopback = ["127.0.0.0/8", "::1/128"];
        CallsOptions {
            settings: CallSettings::default(),
            partials: true,
            max_calls: 1_000,
            secret: None,
            from: loopback.iter().map(|network| network.parse().expect("a network")).collect(),
            record: None,
            spool: None,
            drain: Duration::from_secs(3_600),
        }
    }
}

/// The calls of a service, and what they share.
pub struct Calls {
    client: Client,
    options: CallsOptions,
    events: mpsc::Sender<CallEvent>,
    permits: Arc<Semaphore>,
    recorder: Option<Arc<Recorder>>,
    clock: SystemClock,
    /// Tasks of the calls.
    running: TaskTracker,
    /// Tasks that forward the results of legs.
    forwarders: TaskTracker,
    /// Cancelled when no calls are taken any more.
    draining: CancellationToken,
    /// Cancelled when the calls that are left are hung up.
    stop: CancellationToken,
    /// Cancelled when the last results of calls are not waited for any more.
    abandoned: CancellationToken,
}

impl Calls {
    /// Creates the calls of `client`, which recognises them. Returns them with their events, to be read
    /// without delay.
    ///
    /// # Errors
    /// Returns [`io::Error`] if recordings are wanted, and their directory can't be created.
    pub fn new(client: Client, options: CallsOptions) -> io::Result<(Arc<Calls>, mpsc::Receiver<CallEvent>)> {
        let (events, reader) = mpsc::channel(WAITING_EVENTS);
        let recorder = options.record.as_deref().map(Recorder::start).transpose()?.map(Arc::new);
        let calls = Calls {
            client,
            recorder,
            permits: Arc::new(Semaphore::new(options.max_calls)),
            options,
            events,
            clock: SystemClock::new(),
            running: TaskTracker::new(),
            forwarders: TaskTracker::new(),
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
            abandoned: CancellationToken::new(),
        };
        Ok((Arc::new(calls), reader))
    }

    /// Returns the routes of the peers that connect by WebSocket.
    pub fn router(self: &Arc<Calls>) -> Router {
        Router::new()
            .route("/calls/{peer}", get(upgrade))
            .route("/calls/{peer}/{secret}", get(upgrade))
            .with_state(self.clone())
    }

    /// Takes the calls of Asterisk's AudioSocket, until the drain begins.
    pub async fn serve_audiosocket(self: Arc<Calls>, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = voxline_gateway::accept(&listener) => accepted,
                () = self.draining.cancelled() => return,
            };
            let (stream, address) = accepted;
            if let Err(refused) = self.take_audiosocket(stream, address.ip()) {
                tracing::warn!(%address, reason = refused.message(), "call refused");
            }
        }
    }

    /// Finishes the calls that an earlier process has left in the spool directory, a few at a time. Texts
    /// that it has told already are told again under their numbers, and each call ends with an event. Call it
    /// before new calls come.
    ///
    /// # Errors
    /// Returns [`io::Error`] if the directory can't be read.
    pub fn finish_left(self: &Arc<Calls>) -> io::Result<()> {
        let Some(directory) = self.options.spool.as_deref().filter(|directory| directory.is_dir()) else {
            return Ok(());
        };
        let mut calls: BTreeMap<String, Vec<(LegRecord, LegFiles)>> = BTreeMap::new();
        for (record, files) in LegFiles::left_in(directory)? {
            calls.entry(record.stem.clone()).or_default().push((record, files));
        }
        tracing::info!(target: "voxline::operation", calls = calls.len(), "calls of an earlier process are finished");
        let turns = Arc::new(Semaphore::new(LEFT_AT_A_TIME));
        for legs in calls.into_values() {
            let (calls, turns) = (self.clone(), turns.clone());
            self.running.spawn(async move {
                // What has no turn before the end is left to the next process.
                let turn = tokio::select! {
                    turn = turns.acquire() => turn,
                    () = calls.draining.cancelled() => return,
                };
                tokio::select! {
                    () = calls.finish_call(legs) => drop(turn),
                    () = calls.abandoned.cancelled() => {}
                }
            });
        }
        Ok(())
    }

    /// Finishes a call of an earlier process.
    async fn finish_call(&self, left: Vec<(LegRecord, LegFiles)>) {
        let Some((first, _)) = left.first() else { return };
        let (call, stem): (Arc<str>, Arc<str>) = (first.call.as_str().into(), first.stem.as_str().into());
        let tell = async |leg, kind| {
            let event = CallEvent { call: call.clone(), stem: stem.clone(), leg, kind };
            // Without a reader nothing is told.
            let _ = self.events.send(event).await;
        };
        let finishing = left.into_iter().map(|(record, files)| {
            let leg = record.leg;
            let finished = finish_left(self.client.clone(), record, files, self.events.clone());
            async move { (leg, finished.await) }
        });
        let (mut legs, mut seconds) = (BTreeMap::new(), 0.0_f64);
        for (leg, finished) in join_all(finishing).await {
            match finished {
                Ok(account) => {
                    seconds = seconds.max(account.accepted);
                    legs.insert(leg, account);
                }
                Err(error) => {
                    let error = chain(&error).to_string();
                    tracing::warn!(%call, %leg, error, "leg can't be finished");
                    tell(Some(leg), CallEventKind::Failed { error }).await;
                }
            }
        }
        let reason = EndReason::Interrupted;
        tell(
            None,
            CallEventKind::Ended {
                seconds,
                reason,
                error: None,
                recording: None,
                recording_lost: None,
                legs,
            },
        )
        .await;
    }

    /// Returns the token that is cancelled when no calls are taken any more.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Lets the calls go on for the time of the options, then hangs up. Results that do not come soon after
    /// are left to a later process, if there is a spool.
    pub async fn drain(&self) {
        self.draining.cancel();
        self.running.close();
        let (calls, seconds) = (self.running.len(), self.options.drain.as_secs());
        tracing::info!(target: "voxline::operation", calls, seconds, "drain of calls started");
        let longest = if self.stop.is_cancelled() { Duration::ZERO } else { self.options.drain };
        let _ = timeout(longest, self.running.wait()).await;
        self.stop.cancel();
        if timeout(LAST_RESULTS, self.running.wait()).await.is_err() {
            tracing::warn!(calls = self.running.len(), "calls are left without their last results");
        }
        self.abandoned.cancel();
        self.running.wait().await;
    }

    /// Hangs up all calls at once, and takes no more. Those under way are still transcribed.
    pub fn stop(&self) {
        self.draining.cancel();
        self.stop.cancel();
    }

    fn take_audiosocket(&self, stream: TcpStream, address: IpAddr) -> Result<(), ApiError> {
        self.admit_address(Some(address))?;
        let permit = self.permit()?;
        let codec = Peer::AudioSocket.codec(&BTreeMap::new()).expect("it has no settings");
        let call = self.call(Peer::AudioSocket, BTreeMap::new());
        let driven =
            drive(AudioSocketConnection::new(stream), codec, call, self.stop.clone(), self.abandoned.clone());
        self.run(permit, driven);
        Ok(())
    }

    /// Runs a call, which holds its place until all its audio is final.
    fn run(&self, permit: OwnedSemaphorePermit, driven: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(async move {
            driven.await;
            drop(permit);
        });
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        if self.draining.is_cancelled() {
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, 503, "no calls are taken any more"));
        }
        self.permits.clone().try_acquire_owned().map_err(|_| {
            let message = format!("{} calls are under way, which is the limit", self.options.max_calls);
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, 503, message)
        })
    }

    fn admit_address(&self, address: Option<IpAddr>) -> Result<(), ApiError> {
        let is_known = address.is_some_and(|address| {
            let address = address.to_canonical();
            self.options.from.iter().any(|network| network.contains(&address))
        });
        if is_known {
            Ok(())
        } else {
            Err(ApiError::new(StatusCode::FORBIDDEN, 403, "calls are not taken from here"))
        }
    }

    fn admit(&self, request: &Request, secret: Option<&str>) -> Result<(), ApiError> {
        match (&self.options.secret, secret) {
            (Some(expected), Some(given)) => {
                let expected = expected.expose_secret().as_bytes();
                let is_right = bool::from(expected.ct_eq(given.as_bytes()));
                let wrong =
                    || ApiError::new(StatusCode::FORBIDDEN, 403, "the secret of the address is wrong");
                if is_right { Ok(()) } else { Err(wrong()) }
            }
            // Any page in a browser can open a WebSocket to this machine; telephone systems are no browsers.
            _ if request.headers().contains_key(header::ORIGIN) => {
                Err(ApiError::new(StatusCode::FORBIDDEN, 403, "pages may not send calls without the secret"))
            }
            _ => self.admit_address(known_address(request)),
        }
    }

    /// Returns a call that begins now.
    fn call(&self, peer: Peer, address: BTreeMap<String, String>) -> Call {
        let (call, epoch) = (format!("call-{:016x}", random::seed()), self.clock.unix());
        let context = LegContext {
            stem: file_stem(&call, epoch).into(),
            call: call.into(),
            epoch,
            client: self.client.clone(),
            language: self.options.settings.language.clone(),
            partials: self.options.partials,
            spool: self.options.spool.as_deref().map(Arc::from),
            events: self.events.clone(),
            forwarders: self.forwarders.clone(),
        };
        Call::new(peer.name(), self.options.settings.clone(), address, context, self.recorder.clone())
    }
}

/// Parameters in the path of a peer.
#[derive(serde::Deserialize)]
struct PathParameters {
    peer: String,
    secret: Option<String>,
}

/// Takes a call by WebSocket.
async fn upgrade(
    State(calls): State<Arc<Calls>>,
    Path(path): Path<PathParameters>,
    request: Request,
) -> Response {
    take_websocket(&calls, &path, request).unwrap_or_else(IntoResponse::into_response)
}

fn take_websocket(
    calls: &Arc<Calls>,
    path: &PathParameters,
    mut request: Request,
) -> Result<Response, ApiError> {
    let peer = Peer::by_websocket(&path.peer).ok_or_else(|| {
        let message = format!("no calls are taken by '{}': expected {}", path.peer, Peer::websocket_names());
        ApiError::new(StatusCode::NOT_FOUND, 404, message)
    })?;
    calls.admit(&request, path.secret.as_deref())?;
    check(request.headers())?;
    let permit = calls.permit()?;
    let subprotocol = peer.subprotocol(offered(request.headers()));
    let Query(settings) = Query::<BTreeMap<String, String>>::try_from_uri(request.uri())
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, 400, error.body_text()))?;
    let codec = peer
        .codec(&settings)
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, 400, chain(&error).to_string()))?;
    let upgrade = Upgrade::take(&mut request)?;
    let response = upgrade.answer(subprotocol);
    let (call, stop, abandoned) = (calls.call(peer, settings), calls.stop.clone(), calls.abandoned.clone());
    calls.run(permit, async move {
        if let Some(socket) = upgrade.socket().await {
            drive(WebSocketConnection(socket), codec, call, stop, abandoned).await;
        }
    });
    Ok(response)
}
