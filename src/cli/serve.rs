//! `voxline serve`: the gateway by itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::exit_code::{CliError, Exit};
use super::service::{TOKEN_LIFETIME, load_whisper};
use super::signals::Signals;
use super::{Common, say};
use crate::clock::SystemClock;
use crate::engine::Voices;
use crate::gateway::authority::{AtLimit, Authority, Policy, Refreshing};
use crate::gateway::{Engines, Gateway, Options, serve};

#[derive(Args)]
pub(super) struct Arguments {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8085")]
    listen: SocketAddr,
    /// Directory of the gateway's state: projects and tokens
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// How many seconds an access token lives
    #[arg(long, value_name = "SECONDS", default_value_t = TOKEN_LIFETIME.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    token_lifetime: u64,
    /// What happens to a refresh or access token over the limit of 25
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    token_limit: TokenLimit,
    /// Whether a refresh token stays the same when it is used, or is replaced
    #[arg(long, value_name = "WHAT", default_value = "keep")]
    refresh_tokens: RefreshTokens,
    /// Answer a bad token with status 400, as the documentation prints, instead of 401 and 403
    #[arg(long)]
    documented_status: bool,
    /// Serve no page at /
    #[arg(long)]
    no_console: bool,
    /// Answer /tts_demo and /asr_demo, which ask for no token
    #[arg(long)]
    demo: bool,
    /// How many streaming sessions may live at once
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    max_sessions: u16,
    /// How many connections may be open at once; more wait until others end
    #[arg(long, value_name = "COUNT", default_value_t = 800, value_parser = clap::value_parser!(u16).range(1..))]
    max_connections: u16,
    /// How many wrong tokens an address may send at once, and one every 3 seconds; 0 for no limit, behind a proxy
    #[arg(long, value_name = "COUNT", default_value_t = Options::default().max_failures)]
    max_failures: u32,
    /// How many seconds sessions may go on once the gateway is told to stop
    #[arg(long, value_name = "SECONDS", default_value_t = Options::default().drain.as_secs())]
    drain: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum TokenLimit {
    /// It is refused
    Refuse,
    /// The oldest makes room for it
    Evict,
}

#[derive(Clone, Copy, ValueEnum)]
enum RefreshTokens {
    /// It stays the same
    Keep,
    /// Another takes its place; the old one is good until that is used
    Rotate,
}

pub(super) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    let Arguments { listen, state, max_sessions, max_connections, max_failures, drain, .. } = arguments;
    let config = common.load(None)?;
    let lifetime = Duration::from_secs(arguments.token_lifetime);
    let policy = Policy {
        at_limit: match arguments.token_limit {
            TokenLimit::Refuse => AtLimit::Refuse,
            TokenLimit::Evict => AtLimit::Evict,
        },
        refreshing: match arguments.refresh_tokens {
            RefreshTokens::Keep => Refreshing::Keep,
            RefreshTokens::Rotate => Refreshing::Rotate,
        },
    };
    let load = move || -> Result<(Authority, Engines), CliError> {
        let authority = Authority::open(&state, lifetime, Arc::new(SystemClock::new()))?.with_policy(policy);
        let recognizer = Some(load_whisper(&config.models)?);
        Ok((authority, Engines { recognizer, voices: Voices::discover(&config.models) }))
    };
    let loaded = tokio::task::spawn_blocking(load).await;
    let (authority, engines) =
        loaded.map_err(|panic| CliError::new(Exit::Setup, format!("gateway: {panic}")))??;
    let options = Options {
        max_sessions: max_sessions.into(),
        max_connections: max_connections.into(),
        max_failures,
        drain: Duration::from_secs(drain),
        documented_status: arguments.documented_status,
        console: !arguments.no_console,
        demo: arguments.demo,
        ..Options::default()
    };
    let gateway = Arc::new(Gateway::new(authority, engines, options));

    let cannot = |error: std::io::Error| CliError::new(Exit::Setup, format!("listen on {listen}: {error}"));
    let listener = TcpListener::bind(listen).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "tokens travel unencrypted here: put TLS in front of the gateway");
    }
    let shutdown = CancellationToken::new();
    let serving = serve(listener, gateway, shutdown.clone());
    // Scripts wait for this line; with port 0 it is how they learn the port.
    say(&format!("listening on http://{address}\n"))?;
    let mut signals = Signals::new()?;
    let stopping = async {
        signals.next().await;
        shutdown.cancel();
        signals.next().await;
    };
    tokio::select! {
        served = serving => served.map_err(cannot)?,
        () = stopping => return Err(CliError::new(Exit::Interrupted, "interrupted before sessions had ended")),
    }
    Ok(Exit::Done)
}
