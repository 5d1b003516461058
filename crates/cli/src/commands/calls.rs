//! `voxline calls`: takes telephone calls and prints what is said in them.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::future::OptionFuture;
use ipnet::IpNet;
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::arguments::{Common, RecognitionOptions};
use crate::config::values::{Count, SomeSeconds, listen_address};
use crate::config::{Config, SecretSource};
use crate::exit_code::{CliError, Exit};
use crate::service::{Connection, Need};
use crate::signals::Signals;
use crate::systemd;
use crate::terminal::say;
use voxline::error::chain;
use voxline_calls::event::CallEvent;
use voxline_calls::{CallSettings, Calls, CallsOptions, EventFiles, Webhook};
use voxline_gateway::{ConnectionOptions, Options, serve_router};

/// Arguments of `voxline calls`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Address for telephone systems that connect by WebSocket, at /calls/twilio and so on [default:
    /// 127.0.0.1:8086, unless --audiosocket is given]
    #[arg(long, value_name = "ADDR", env = "VOXLINE_CALLS_LISTEN", value_parser = listen_address)]
    listen: Option<SocketAddr>,
    /// Address for Asterisk's AudioSocket, such as 127.0.0.1:9092
    #[arg(long, value_name = "ADDR", env = "VOXLINE_CALLS_AUDIOSOCKET", value_parser = listen_address)]
    audiosocket: Option<SocketAddr>,
    /// File with a secret: telephone systems that know it may connect from anywhere, at
    /// /calls/twilio/SECRET and so on [default: the variable VOXLINE_CALLS_SECRET]
    #[arg(long, value_name = "FILE", env = "VOXLINE_CALLS_SECRET_FILE")]
    secret_file: Option<PathBuf>,
    /// Network of telephone systems that need no secret; may be repeated [default: loopback]
    #[arg(long, value_name = "CIDR", env = "VOXLINE_CALLS_FROM", value_delimiter = ',')]
    from: Vec<IpNet>,
    /// Leg that a telephone system calls inbound: the audio that it hears from the far end
    #[arg(long, value_name = "LEG", env = "VOXLINE_CALLS_INBOUND", default_value = "customer")]
    inbound: Inbound,
    /// Directory for the events, a file of JSON lines for each call, instead of standard output
    #[arg(long, value_name = "DIR", env = "VOXLINE_CALLS_EVENTS")]
    events: Option<PathBuf>,
    /// Address that the events are posted to, from the directory of --events: in order, and at least once
    #[arg(long, value_name = "URL", env = "VOXLINE_CALLS_WEBHOOK", requires = "events")]
    webhook: Option<String>,
    /// File with the secret that signs what is posted [default: the variable VOXLINE_CALLS_WEBHOOK_SECRET]
    #[arg(long, value_name = "FILE", env = "VOXLINE_CALLS_WEBHOOK_SECRET_FILE", requires = "webhook")]
    webhook_secret_file: Option<PathBuf>,
    /// Directory for a recording of each call: WAV, the agent on the left and the customer on the right
    #[arg(long, value_name = "DIR", env = "VOXLINE_CALLS_RECORD")]
    record: Option<PathBuf>,
    /// Directory for the sessions of calls, so that the next start finishes the calls of a process that was
    /// killed
    #[arg(long, value_name = "DIR", env = "VOXLINE_CALLS_SPOOL")]
    spool: Option<PathBuf>,
    /// Leave out partial results
    #[arg(long)]
    no_partials: bool,
    /// Most calls at a time; further ones are refused
    #[arg(long, value_name = "N", env = "VOXLINE_CALLS_MAX", default_value = "1000")]
    max_calls: Count,
    /// Longest time in seconds that calls may go on after a request to stop
    #[arg(long, value_name = "SECONDS", env = "VOXLINE_CALLS_DRAIN", default_value = "3600")]
    drain: SomeSeconds,
    #[command(flatten)]
    recognition: RecognitionOptions,
}

/// Leg of the inbound track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Inbound {
    Customer,
    Agent,
}

/// Default address, on loopback, since there is no secret by default.
const LISTEN: &str = "127.0.0.1:8086";

/// Longest time for the last events to be posted. What is left is posted by the next start.
const LAST_POSTS: Duration = Duration::from_secs(10);

/// First line of the output: where the doors are, for scripts that let the system choose the ports.
#[derive(Serialize)]
#[serde(tag = "event", rename = "listening")]
struct Listening {
    #[serde(skip_serializing_if = "Option::is_none")]
    websocket: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audiosocket: Option<SocketAddr>,
}

pub(crate) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    let config = common.load(Some(arguments.recognition.clone()))?;
    let options = arguments.options(&config)?;
    let usual = || arguments.audiosocket.is_none().then(|| LISTEN.parse().expect("an address"));
    // Loading the model takes longest, so an address that is taken is told before.
    let websocket = bind(arguments.listen.or_else(usual)).await?;
    let audiosocket = bind(arguments.audiosocket).await?;
    let legs = Options { max_sessions: 2 * arguments.max_calls.count(), ..Options::default() };
    let connection = Connection::open_with(&config, Need::Recognition, legs).await?;
    let mut signals = Signals::new()?;
    let record = cannot_use(arguments.record.as_deref());
    let (calls, events) = Calls::new(connection.client.clone(), options).map_err(record)?;
    let webhook = arguments.webhook()?;
    let files = arguments.events.as_deref().map(|directory| {
        let files = EventFiles::create(directory)?;
        webhook.iter().cloned().try_fold(files, EventFiles::post_to)
    });
    let files = files.transpose().map_err(cannot_use(arguments.events.as_deref()))?;
    let address = |listener: &Option<TcpListener>| listener.as_ref().and_then(|open| open.local_addr().ok());
    let listening = Listening { websocket: address(&websocket), audiosocket: address(&audiosocket) };
    systemd::ready();
    say(&format!("{}\n", json!(listening)))?;

    calls.finish_left().map_err(cannot_use(arguments.spool.as_deref()))?;
    let mut writing = spawn_blocking(move || write(events, files));
    let stopping = async {
        signals.next().await;
        systemd::stopping();
        let drained = calls.drain();
        tokio::select! {
            () = drained => None,
            stop = signals.next() => Some(stop),
        }
    };
    let ended = tokio::select! {
        () = serve(&calls, websocket, audiosocket) => Ok(None),
        stop = stopping => Ok(stop),
        written = &mut writing => written.expect("the writer of events does not panic").map(|()| None),
    };
    calls.stop();
    calls.drain().await;
    drop(calls);
    connection.close().await;
    let stop = ended?;
    if stop.is_none() {
        writing.await.expect("the writer of events does not panic")?;
    }
    if let Some(webhook) = webhook {
        webhook.finish(LAST_POSTS).await;
    }
    stop.map_or(Ok(Exit::Done), |stop| Err(CliError::new(stop.exit(), "stopped before all calls had ended")))
}

impl Arguments {
    fn webhook(&self) -> Result<Option<Webhook>, CliError> {
        let Some(url) = &self.webhook else { return Ok(None) };
        let secret = SecretSource::named(self.webhook_secret_file.clone(), "VOXLINE_CALLS_WEBHOOK_SECRET");
        let secret = secret.map(|secret| secret.read()).transpose()?;
        let webhook = Webhook::new(url, secret);
        webhook.map(Some).map_err(|error| CliError::new(Exit::Setup, format!("--webhook {}", chain(&error))))
    }

    fn options(&self, config: &Config) -> Result<CallsOptions, CliError> {
        let mut options = CallsOptions::default();
        options.settings = CallSettings {
            language: config.language.clone(),
            inbound_is_agent: self.inbound == Inbound::Agent,
        };
        options.partials = !self.no_partials;
        options.max_calls = self.max_calls.count();
        options.record.clone_from(&self.record);
        options.spool.clone_from(&self.spool);
        options.drain = self.drain.seconds();
        if !self.from.is_empty() {
            options.from.clone_from(&self.from);
        }
        let secret = SecretSource::named(self.secret_file.clone(), "VOXLINE_CALLS_SECRET");
        options.secret = secret.map(|secret| secret.read()).transpose()?;
        Ok(options)
    }
}

/// Takes calls until they are drained.
async fn serve(calls: &Arc<Calls>, websocket: Option<TcpListener>, audiosocket: Option<TcpListener>) {
    let websocket = websocket.map(|listener| {
        let options = ConnectionOptions::default();
        let (router, draining) = (calls.router(), calls.draining());
        async move { serve_router(listener.into(), router, &options, draining).await }
    });
    let audiosocket = audiosocket.map(|listener| calls.clone().serve_audiosocket(listener));
    tokio::join!(OptionFuture::from(websocket), OptionFuture::from(audiosocket));
    // The calls themselves go on.
    std::future::pending::<()>().await;
}

/// Writes events to the files of their calls, or to standard output, a line for each, until there are no
/// more.
fn write(mut events: mpsc::Receiver<CallEvent>, mut files: Option<EventFiles>) -> Result<(), CliError> {
    while let Some(event) = events.blocking_recv() {
        match &mut files {
            // The call goes on, and its next event may find room on the disk.
            Some(files) => {
                if let Err(error) = files.write(&event) {
                    tracing::error!(call = %event.call, %error, "event of a call can't be written");
                }
            }
            None => say(&format!("{}\n", json!(event)))?,
        }
    }
    Ok(())
}

/// Returns the error for a directory that can't be used.
fn cannot_use(directory: Option<&Path>) -> impl FnOnce(io::Error) -> CliError {
    let directory = directory.unwrap_or(Path::new("")).display().to_string();
    move |error| CliError::new(Exit::Output, format!("{directory}: {error}"))
}

async fn bind(address: Option<SocketAddr>) -> Result<Option<TcpListener>, CliError> {
    let Some(address) = address else { return Ok(None) };
    let cannot = |error| CliError::new(Exit::Setup, format!("listen on {address}: {error}"));
    TcpListener::bind(address).await.map(Some).map_err(cannot)
}
