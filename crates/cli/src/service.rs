//! The service that a command uses: a remote one, or a gateway inside this process. Both are used through the
//! same requests, by sockets or in memory.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::exit_code::{CliError, Exit};
use crate::config::{Access, Config, Service};
use voxline::Client;
use voxline::client::ClientBuilder;
use voxline::engine::{EngineError, RecognitionRequest, Recognizer};
use voxline::language::closest;
use voxline::net::{Endpoint, Trust, in_process};
use voxline_engines::Whisper;
use voxline_engines::models::{WHISPER_BASE, WHISPER_TINY_EN, catalogue};
use voxline_gateway::authority::{Authority, NewClient};
use voxline_gateway::{Engines, Gateway, Listener, Options, serve};
use voxline_support::clock::SystemClock;

/// Lifetime of access tokens: the documented hour.
pub(crate) const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// Longest time that a finished command waits for its gateway to stop.
const FAREWELL: Duration = Duration::from_secs(5);

/// Engine that a command needs in the embedded gateway: loading a recogniser takes time and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Recognition,
    Speech,
}

/// A service ready for use.
pub(crate) struct Connection {
    pub(crate) client: Client,
    embedded: Option<Embedded>,
}

/// A gateway inside this process, with its own tokens.
struct Embedded {
    threads: NonZero<usize>,
    stop: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
    /// Directory of the vault; deleted with the gateway, since no other gateway knows its tokens.
    directory: TempDir,
}

impl Connection {
    /// Opens the service of `config`; starts an embedded gateway if no service is configured.
    pub(crate) async fn open(config: &Config, need: Need) -> Result<Connection, CliError> {
        Connection::open_with(config, need, Options::default()).await
    }

    /// Opens the service of `config`, with these options for an embedded gateway.
    pub(crate) async fn open_with(
        config: &Config,
        need: Need,
        options: Options,
    ) -> Result<Connection, CliError> {
        let service = config.service()?;
        let trust = config.ca_file.as_deref().map_or_else(Trust::system, Trust::with_file)?;
        match service {
            Service::Embedded => Connection::embed(config, need, options).await,
            Service::Remote { endpoint, access } => {
                let builder = Client::builder(endpoint).trust(trust);
                let builder = match access {
                    Access::ServiceToken(token) => builder.service_token(token),
                    Access::Client { id, secret } => {
                        let builder = builder.credentials(id, secret).token_dir(&config.tokens);
                        config.vault_key()?.into_iter().fold(builder, ClientBuilder::vault_key)
                    }
                };
                let builder = config.follow_hosts.iter().cloned().fold(builder, ClientBuilder::follow_host);
                Ok(Connection { client: builder.build()?, embedded: None })
            }
        }
    }

    /// Starts a gateway inside this process, registers a project there, and becomes its client.
    async fn embed(config: &Config, need: Need, options: Options) -> Result<Connection, CliError> {
        let setup = |error: std::io::Error| CliError::new(Exit::Setup, format!("embedded gateway: {error}"));
        let (config, threads) = (config.clone(), options.threads);
        let load = move || -> Result<(Gateway, NewClient), CliError> {
            let engines = match need {
                Need::Recognition => {
                    Engines { recognizer: Some(load_recognizer(&config)?), ..Engines::default() }
                }
                Need::Speech => Engines {
                    voices: voxline_engines::voices::discover(&config.models),
                    ..Engines::default()
                },
            };
            let authority = Authority::in_memory(TOKEN_LIFETIME, Arc::new(SystemClock::new()))?;
            let project = authority.create_project("embedded")?;
            // The only client is this process, so rate limiting of failures would only let other users of the
            // machine lock it out.
            let languages = config.languages.clone();
            let options = Options { max_failures: 0, languages, ..options };
            Ok((Gateway::new(authority, engines, options), project))
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        let (gateway, project) = loaded.map_err(|panic| CliError::new(Exit::Setup, panic.to_string()))??;

        let (address, listener) = in_process();
        // A name for messages and for the vault: nothing is looked up.
        let endpoint: Endpoint = "http://localhost".parse().expect("it is one");
        let stop = CancellationToken::new();
        let server = start(serve(Listener::from(listener), Arc::new(gateway), stop.clone()));
        let directory = tempfile::tempdir().map_err(setup)?;
        let NewClient { client_id, client_secret } = project;
        let builder = Client::builder(endpoint).credentials(client_id, client_secret);
        let client = builder.token_dir(directory.path()).in_process(address).build()?;
        Ok(Connection { client, embedded: Some(Embedded { threads, stop, server, directory }) })
    }

    /// Returns the number of threads that an embedded gateway recognises on; `None` for a remote service.
    pub(crate) fn threads(&self) -> Option<NonZero<usize>> {
        self.embedded.as_ref().map(|embedded| embedded.threads)
    }

    /// Closes the tokens, and stops the embedded gateway, if there is one.
    pub(crate) async fn close(self) {
        self.client.close().await;
        if let Some(Embedded { stop, server, directory, .. }) = self.embedded {
            stop.cancel();
            // The work is done: the server's result doesn't matter, and a hanging engine is not waited for.
            let _ = timeout(FAREWELL, server).await;
            drop(directory);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "joined when the connection is closed")]
fn start(
    server: impl Future<Output = std::io::Result<()>> + Send + 'static,
) -> JoinHandle<std::io::Result<()>> {
    tokio::spawn(server)
}

/// Loads the configured recogniser, and checks that it supports the configured language.
pub(crate) fn load_recognizer(config: &Config) -> Result<Arc<dyn Recognizer>, CliError> {
    let error = match Whisper::load(&config.recognizer()) {
        Ok(whisper) => {
            // Without this check a recording's session would be refused for its language after its output was
            // truncated.
            let asked = RecognitionRequest::from(&config.languages);
            whisper
                .start(&asked)
                .map_err(|error| CliError::from(error).with(&format!(": model {}", config.model)))?;
            return Ok(Arc::new(whisper));
        }
        Err(error) => error,
    };
    // Replace the engine's hint, which knows neither the directory of models nor the catalogue.
    let known = catalogue();
    let names = || known.iter().map(|model| &*model.name);
    match error {
        EngineError::Model { path, reason, .. } => {
            let hint = if names().any(|name| name == config.model) {
                format!("run `{}`", config.pull(&config.model))
            } else if let Some(near) = closest(&config.model, names()).filter(|_| !config.model_is_path()) {
                format!("did you mean --model {near}?")
            } else {
                format!(
                    "--model takes the name of a model ({WHISPER_BASE}, {WHISPER_TINY_EN}) or a directory with \
                     model.bin, vocabulary.txt or vocabulary.json, and config.json"
                )
            };
            Err(EngineError::Model { path, reason, hint }.into())
        }
        error => Err(error.into()),
    }
}
