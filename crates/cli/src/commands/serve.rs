//! `voxline serve`: runs the gateway.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;

use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::arguments::{Common, RecognitionOptions};
use crate::config::gateway::GatewayConfig;
use crate::config::{Config, Settings};
use crate::exit_code::{CliError, Exit};
use crate::service::load_recognizer;
use crate::signals::{Hangups, Signals};
use crate::systemd;
use crate::terminal::say;
use voxline_gateway::authority::Authority;
use voxline_gateway::{
    Engines, Gateway, Listener, Listeners, OpenAccess, Tls, WyomingAddress, WyomingListener, capacity, serve,
};
use voxline_support::clock::SystemClock;

/// Arguments of `voxline serve`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    recognition: RecognitionOptions,
    #[command(flatten)]
    gateway: GatewayConfig,
}

impl Arguments {
    /// Loads the configuration with these arguments.
    pub(crate) fn load(&self, common: Common) -> Result<Config, CliError> {
        Ok(Config::load(self.settings(common)?)?)
    }

    /// Returns the settings of these arguments.
    pub(crate) fn settings(&self, common: Common) -> Result<Settings, CliError> {
        let mut settings = common.settings(self.recognition.clone());
        settings.gateway = toml::Table::try_from(&self.gateway)
            .map_err(|error| CliError::new(Exit::Setup, format!("gateway: {error}")))?;
        Ok(settings)
    }
}

pub(crate) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    let config = arguments.load(common)?;
    // An early SIGHUP must not end the process.
    let mut hangups = Hangups::new()?;
    let tls = config.gateway.tls_files()?.map(Tls::load).transpose()?.map(Arc::new);
    let listen = config.gateway.listen();
    let vosk_listen = config.gateway.vosk_listen()?;
    let wyoming_listen = config.gateway.wyoming_listen()?.cloned();
    let open = config.gateway.open();
    let (gateway, capacity) = load(config).await?;

    let cannot = |error: std::io::Error| CliError::new(Exit::Setup, format!("listen on {listen}: {error}"));
    let (listener, address) = bind(listen).await?;
    let (scheme, listener) = match tls.clone() {
        Some(tls) => ("https", Listener::with_tls(listener, tls)),
        None => ("http", Listener::from(listener)),
    };
    if tls.is_none() && !address.ip().is_loopback() {
        tracing::warn!(%address, "tokens travel unencrypted here: set tls-cert and tls-key, or put TLS in front");
    }
    let mut listeners = Listeners::from(listener);
    let mut listening = format!("listening on {scheme}://{address}\n");
    if let Some(vosk_listen) = vosk_listen {
        let (vosk, address) = bind(vosk_listen).await?;
        listeners = listeners.with_open_vosk(vosk);
        listening += &format!("listening on ws://{address} for clients of Vosk, without tokens\n");
    }
    if let Some(address) = wyoming_listen {
        let (wyoming, address) = bind_wyoming(&address).await?;
        listeners = listeners.with_wyoming(wyoming);
        listening += &format!("listening on {address} for Wyoming clients, without tokens\n");
    }
    if let Some(OpenAccess { project, networks }) = open {
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        let networks = networks.join(", ");
        listening +=
            &format!("clients of dialects without a token use project '{project}', from {networks}\n");
    }
    let mut signals = Signals::new()?;
    let shutdown = CancellationToken::new();
    let serving = serve(listeners, gateway, shutdown.clone());
    systemd::ready();
    // Scripts wait for the first line, which also shows the port chosen for port 0.
    say(&format!("{listening}{capacity}\n"))?;
    let stopping = async {
        signals.next().await;
        systemd::stopping();
        shutdown.cancel();
        signals.next().await
    };
    tokio::select! {
        served = serving => served.map_err(cannot)?,
        stop = stopping => {
            return Err(CliError::new(stop.exit(), "stopped before all sessions had ended"));
        }
        never = reload(&mut hangups, tls.as_deref()) => never,
    }
    Ok(Exit::Done)
}

/// Listens on an address. Returns the listener and the address with its port.
async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), CliError> {
    let cannot = |error: std::io::Error| CliError::new(Exit::Setup, format!("listen on {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let bound = listener.local_addr().map_err(cannot)?;
    Ok((listener, bound))
}

/// Listens for Wyoming clients. Returns the listener and its URI, with its port.
async fn bind_wyoming(address: &WyomingAddress) -> Result<(WyomingListener, String), CliError> {
    let cannot = |error: std::io::Error| CliError::new(Exit::Setup, format!("listen on {address}: {error}"));
    let listener = WyomingListener::bind(address).await.map_err(cannot)?;
    let bound = listener.tcp_address().map_err(cannot)?;
    let uri = bound.map_or_else(|| address.to_string(), |bound| format!("tcp://{bound}"));
    Ok((listener, uri))
}

/// Maximum number of sessions, and the measurement that it follows from.
struct Capacity {
    sessions: usize,
    threads: NonZero<usize>,
    /// Seconds of work for a second of speech, if they were measured.
    factor: Option<f64>,
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Capacity { sessions, threads, factor } = self;
        write!(f, "at most {sessions} concurrent sessions")?;
        factor.map_or(Ok(()), |factor| {
            write!(f, ": a second of speech takes {factor:.2} s on one of {threads} threads")
        })
    }
}

/// Opens the authority, loads the engines and creates the gateway. Measures the capacity for sessions unless
/// `config` limits them.
async fn load(config: Config) -> Result<(Arc<Gateway>, Capacity), CliError> {
    let mut options = config.gateway.options();
    options.languages = config.languages.clone();
    let state = config.gateway.state()?.clone();
    let measures = config.gateway.max_sessions.is_none();
    let load = move || -> Result<(Authority, Engines, Option<f64>), CliError> {
        let gateway = &config.gateway;
        let authority = Authority::open(&state, gateway.token_lifetime(), Arc::new(SystemClock::new()))?
            .with_policy(gateway.policy());
        if let Some(project) = &gateway.open_project {
            authority.check_project_name(project)?;
        }
        let recognizer = load_recognizer(&config)?;
        let voices = voxline_engines::voices::discover(&config.models);
        let factor = measures.then(|| recognizer.real_time_factor()).flatten();
        Ok((authority, Engines { recognizer: Some(recognizer), voices }, factor))
    };
    let loaded = tokio::task::spawn_blocking(load).await;
    let (authority, engines, factor) =
        loaded.map_err(|panic| CliError::new(Exit::Setup, format!("gateway: {panic}")))??;
    let threads = options.threads;
    if measures {
        options.max_sessions = measured_sessions(factor, threads);
    }
    let capacity = Capacity { sessions: options.max_sessions, threads, factor };
    Ok((Arc::new(Gateway::new(authority, engines, options)), capacity))
}

/// Returns the maximum number of sessions for a recogniser of this speed: one for each thread if the speed is
/// not known.
fn measured_sessions(factor: Option<f64>, threads: NonZero<usize>) -> usize {
    let Some(factor) = factor else {
        tracing::warn!("the speed of the recogniser can't be measured: set max-sessions");
        return threads.get();
    };
    let cores = std::thread::available_parallelism().unwrap_or(threads);
    capacity(factor, threads, cores)
}

/// Reads the files of TLS again after each SIGHUP.
async fn reload(hangups: &mut Hangups, tls: Option<&Tls>) -> ! {
    loop {
        hangups.next().await;
        systemd::reloading();
        match tls {
            Some(tls) => tls.reload(),
            None => tracing::warn!("nothing to reload: TLS is not configured"),
        }
        systemd::ready();
    }
}
