//! `voxline serve`: runs the gateway.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use ipnet::IpNet;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::gateway::{
    Count, Limit, RefreshTokens, Seconds, SomeSeconds, TokenLimit, listen_address, network,
};
use crate::config::{Config, ConfigError, Settings};
use crate::exit_code::{CliError, Exit};
use crate::service::load_recognizer;
use crate::signals::{Hangups, Signals};
use crate::{Common, Hearing, say, systemd};
use voxline::net::Endpoint;
use voxline_gateway::authority::Authority;
use voxline_gateway::{Engines, Gateway, Listener, Origin, Tls, capacity, serve};
use voxline_support::clock::SystemClock;

/// Arguments of `voxline serve`. Each flag except the model and the language has a key of the same name in
/// the table `[gateway]` of the configuration file, which applies if neither the flag nor its variable is
/// given.
#[derive(Args, Serialize)]
pub(crate) struct Arguments {
    #[command(flatten)]
    #[serde(skip)]
    hearing: Hearing,
    /// Address to listen on, such as 127.0.0.1:8085, or :8085 for all addresses of the machine; port 0
    /// selects a free port [default: 127.0.0.1:8085]
    #[arg(long, value_name = "ADDR", env = "VOXLINE_GATEWAY_LISTEN", value_parser = listen_address)]
    listen: Option<SocketAddr>,
    /// Directory of the gateway's state: projects and tokens
    #[arg(long, value_name = "DIR", env = "VOXLINE_GATEWAY_STATE")]
    state: Option<PathBuf>,
    /// File with the TLS certificate and its chain to the root (PEM); reloaded on SIGHUP
    #[arg(long, value_name = "FILE", env = "VOXLINE_GATEWAY_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// File with the certificate's key (PEM), which no other user may be able to read
    #[arg(long, value_name = "FILE", env = "VOXLINE_GATEWAY_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// Lifetime of access tokens in seconds [default: 3600]
    #[arg(long, value_name = "SECONDS", env = "VOXLINE_GATEWAY_TOKEN_LIFETIME")]
    token_lifetime: Option<SomeSeconds>,
    /// Behaviour when a refresh or access token exceeds the limit of 25 [default: refuse]
    #[arg(long, value_name = "WHAT", env = "VOXLINE_GATEWAY_TOKEN_LIMIT")]
    token_limit: Option<TokenLimit>,
    /// Effect of a refresh on the refresh token [default: keep]
    #[arg(long, value_name = "WHAT", env = "VOXLINE_GATEWAY_REFRESH_TOKENS")]
    refresh_tokens: Option<RefreshTokens>,
    /// Answer a bad token with status 400, as the documentation prints, instead of 401 and 403 [default:
    /// false]
    #[arg(long, value_name = "BOOL", env = "VOXLINE_GATEWAY_DOCUMENTED_STATUS",
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    documented_status: Option<bool>,
    /// Let a socket continue with a fresh token that its client sends in band; set to false behind a proxy
    /// that checks tokens at the handshake [default: true]
    #[arg(long, value_name = "BOOL", env = "VOXLINE_GATEWAY_IN_BAND_AUTH",
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    in_band_auth: Option<bool>,
    /// Serve /tts_demo and /asr_demo, which require no token [default: false]
    #[arg(long, value_name = "BOOL", env = "VOXLINE_GATEWAY_DEMO",
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    demo: Option<bool>,
    /// Serve the console at / [default: true]
    #[arg(long, value_name = "BOOL", env = "VOXLINE_GATEWAY_CONSOLE",
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    console: Option<bool>,
    /// Number of threads for recognition [default: as many as the machine runs at once]
    #[arg(long, value_name = "COUNT", env = "VOXLINE_GATEWAY_THREADS")]
    threads: Option<Count>,
    /// Maximum number of concurrent streaming sessions [default: the capacity of the threads, measured at the
    /// start]
    #[arg(long, value_name = "COUNT", env = "VOXLINE_GATEWAY_MAX_SESSIONS")]
    max_sessions: Option<Count>,
    /// Maximum number of recordings and texts processed at once; more are refused [default: 16]
    #[arg(long, value_name = "COUNT", env = "VOXLINE_GATEWAY_MAX_REQUESTS")]
    max_requests: Option<Count>,
    /// Maximum number of open connections; more replace idle ones, or wait [default: 800]
    #[arg(long, value_name = "COUNT", env = "VOXLINE_GATEWAY_MAX_CONNECTIONS")]
    max_connections: Option<Count>,
    /// Maximum number of connections per address, fewer as connections become scarce; 0 for no limit
    /// [default: 600]
    #[arg(long, value_name = "COUNT", env = "VOXLINE_GATEWAY_MAX_CONNECTIONS_PER_ADDRESS")]
    max_connections_per_address: Option<Limit>,
    /// Number of wrong tokens that an address may send at once, and one more every 3 seconds; 0 for no limit
    /// [default: 20]
    #[arg(long, value_name = "COUNT", env = "VOXLINE_GATEWAY_MAX_FAILURES")]
    max_failures: Option<Limit>,
    /// Network such as 10.0.0.0/8 of trusted proxies, which report their clients' addresses by
    /// X-Forwarded-For, Forwarded or PROXY protocol version 2; may be repeated
    #[arg(long, value_name = "CIDR", env = "VOXLINE_GATEWAY_TRUSTED_PROXY", value_delimiter = ',',
        value_parser = network)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trusted_proxy: Vec<IpNet>,
    /// Timeout in seconds for the TLS handshake, the head of a request, and the pause before the next request
    /// [default: 10]
    #[arg(long, value_name = "SECONDS", env = "VOXLINE_GATEWAY_HEADER_TIMEOUT")]
    header_timeout: Option<SomeSeconds>,
    /// Timeout in seconds for a whole recording or text to arrive [default: 120]
    #[arg(long, value_name = "SECONDS", env = "VOXLINE_GATEWAY_BODY_TIMEOUT")]
    body_timeout: Option<SomeSeconds>,
    /// Timeout in seconds for a client to accept more of a response [default: 60]
    #[arg(long, value_name = "SECONDS", env = "VOXLINE_GATEWAY_WRITE_TIMEOUT")]
    write_timeout: Option<SomeSeconds>,
    /// Seconds that a session outlives its socket [default: 60]
    #[arg(long, value_name = "SECONDS", env = "VOXLINE_GATEWAY_RESUME_WINDOW")]
    resume_window: Option<Seconds>,
    /// Seconds that sessions may continue after the gateway is told to stop [default: 30]
    #[arg(long, value_name = "SECONDS", env = "VOXLINE_GATEWAY_DRAIN")]
    drain: Option<Seconds>,
    /// Gateway such as https://b.speech.example that takes over this gateway's sessions when it is told to
    /// stop: each starts there while it still runs here; may be repeated, the first that answers is used
    #[arg(long, value_name = "URL", env = "VOXLINE_GATEWAY_SUCCESSOR", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    successor: Vec<Endpoint>,
    /// Origin such as https://host:port whose pages may use the gateway from a browser; * for any; may be
    /// repeated
    #[arg(long, value_name = "ORIGIN", env = "VOXLINE_GATEWAY_CORS_ORIGIN", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cors_origin: Vec<Origin>,
}

impl Arguments {
    /// Loads the configuration with these arguments.
    pub(crate) fn load(&self, common: Common) -> Result<Config, CliError> {
        Ok(Config::load(self.settings(common)?)?)
    }

    /// Loads what is valid of the configuration with these arguments, and returns the problems of its file.
    pub(crate) fn examine(&self, common: Common) -> Result<(Config, Vec<ConfigError>), CliError> {
        Ok(Config::examine(self.settings(common)?)?)
    }

    fn settings(&self, common: Common) -> Result<Settings, CliError> {
        let mut settings = common.settings(self.hearing.clone());
        settings.gateway = toml::Table::try_from(self)
            .map_err(|error| CliError::new(Exit::Setup, format!("gateway: {error}")))?;
        Ok(settings)
    }
}

pub(crate) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    let config = arguments.load(common)?;
    // An early SIGHUP must not end the process.
    let mut hangups = Hangups::new()?;
    let gateway = config.gateway.clone();
    let tls = gateway.tls_files()?.map(Tls::load).transpose()?.map(Arc::new);
    let (listen, mut options) = (gateway.listen, gateway.options());
    options.languages = config.languages.clone();
    let (threads, measures) = (options.threads, gateway.max_sessions.is_none());
    let state = gateway.state()?.clone();
    let load = move || -> Result<(Authority, Engines, Option<f64>), CliError> {
        let authority = Authority::open(&state, gateway.token_lifetime(), Arc::new(SystemClock::new()))?
            .with_policy(gateway.policy());
        let recognizer = load_recognizer(&config)?;
        let voices = voxline_engines::voices::discover(&config.models);
        let factor = measures.then(|| recognizer.real_time_factor()).flatten();
        Ok((authority, Engines { recognizer: Some(recognizer), voices }, factor))
    };
    let loaded = tokio::task::spawn_blocking(load).await;
    let (authority, engines, factor) =
        loaded.map_err(|panic| CliError::new(Exit::Setup, format!("gateway: {panic}")))??;
    match factor {
        Some(factor) => {
            let cores = std::thread::available_parallelism().unwrap_or(threads);
            options.max_sessions = capacity(factor, threads, cores);
        }
        None if measures => {
            tracing::warn!("the recogniser can't be measured: set max-sessions");
            options.max_sessions = threads.get();
        }
        None => {}
    }
    let sessions = options.max_sessions;
    let gateway = Arc::new(Gateway::new(authority, engines, options));

    let cannot = |error: std::io::Error| CliError::new(Exit::Setup, format!("listen on {listen}: {error}"));
    let listener = TcpListener::bind(listen).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    let (scheme, listener) = match tls.clone() {
        Some(tls) => ("https", Listener::with_tls(listener, tls)),
        None => ("http", Listener::from(listener)),
    };
    if tls.is_none() && !address.ip().is_loopback() {
        tracing::warn!(%address, "tokens travel unencrypted here: set tls-cert and tls-key, or put TLS in front");
    }
    let mut signals = Signals::new()?;
    let shutdown = CancellationToken::new();
    let serving = serve(listener, gateway, shutdown.clone());
    systemd::ready();
    // Scripts wait for this line, which also shows the port chosen for port 0.
    let measured =
        factor.map(|factor| format!(": a second of speech takes {factor:.2} s on one of {threads} threads"));
    let measured = measured.unwrap_or_default();
    say(&format!("listening on {scheme}://{address}\ntakes {sessions} sessions at once{measured}\n"))?;
    let reloading = async {
        loop {
            hangups.next().await;
            systemd::reloading();
            match &tls {
                Some(tls) => tls.reload(),
                None => tracing::warn!("nothing to read again: there is no TLS"),
            }
            systemd::ready();
        }
    };
    let stopping = async {
        signals.next().await;
        systemd::stopping();
        shutdown.cancel();
        signals.next().await
    };
    tokio::select! {
        served = serving => served.map_err(cannot)?,
        stop = stopping => {
            return Err(CliError::new(stop.exit(), "stopped before sessions had ended"));
        }
        never = reloading => never,
    }
    Ok(Exit::Done)
}
