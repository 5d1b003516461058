//! The front door: a [`Client`] of one speech service, which transcribes recordings and live audio, and speaks.
//!
//! ```no_run
//! use voxline::Client;
//! use voxline::source::Source;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("https://speech.example").credentials("ID", "SECRET").build()?;
//! let mut transcript = client.transcribe(Source::open("call.mp3")?).language("en").start()?;
//! while let Some(event) = transcript.next().await {
//!     if let Some(text) = event?.final_text() {
//!         println!("{text}");
//!     }
//! }
//! println!("{}", transcript.ledger());
//! # Ok(())
//! # }
//! ```
//!
//! Everything that it puts together can be used by itself: the [`pipeline`](crate::pipeline) that reads a source, the
//! [`session`](crate::session) that carries audio to the service, the [`TokenProvider`] behind it, and the
//! [`SpeechClient`].

mod error;
mod live;
mod transcript;
mod transcription;

use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;

pub use self::error::{BuildError, TranscriptError};
pub use self::live::{LiveAudio, LiveTranscription, SessionEnded};
pub use self::transcript::{ChannelEvent, ChannelTranscript, Transcript};
pub use self::transcription::Transcription;
use crate::auth::{Credentials, OAuthClient, TokenProvider, Vault, VaultKey};
use crate::clock::SystemClock;
use crate::net::{Endpoint, HostName, Trust, http_client_trusting};
use crate::source::Source;
use crate::speech::{PcmStream, SpeechClient, SpeechOptions};
use crate::transport::WebSocketConnector;

/// A client of one speech service. Clones share its connections and tokens.
///
/// Its sessions run in tasks of the tokio runtime in which they are started, which needs time and I/O enabled.
#[derive(Clone, Debug)]
pub struct Client {
    service: Arc<Service>,
    speech: SpeechClient,
}

/// The parts that all sessions of a client share.
#[derive(Debug)]
struct Service {
    connector: WebSocketConnector,
    tokens: TokenProvider,
}

impl Client {
    /// A builder for the service at `endpoint`: `https://host[:port][/prefix]`, or `http` for loopback.
    pub fn builder(endpoint: &str) -> ClientBuilder {
        ClientBuilder {
            endpoint: endpoint.to_owned(),
            access: None,
            token_dir: None,
            vault_key: None,
            trust: None,
            follow_hosts: Vec::new(),
        }
    }

    /// Transcribes a recording, or a stream that is read from front to back.
    pub fn transcribe(&self, source: Source) -> Transcription {
        Transcription::new(self.service.clone(), source)
    }

    /// Transcribes audio that the caller produces, at `sample_rate` frames per second (8,000 to 48,000), mono.
    pub fn live(&self, sample_rate: u32) -> LiveTranscription {
        LiveTranscription::new(self.service.clone(), sample_rate)
    }

    /// Speaks `text`, of any length, with the service's default voice. Nothing is requested before the stream is polled.
    ///
    /// For other voices, for text that is still being written, and for MP3 and Opus see [`speech`](Client::speech).
    #[must_use]
    pub fn speak(&self, text: &str) -> PcmStream {
        self.speech.speak(text, &SpeechOptions::default())
    }

    /// The client of the service's synthesis, with all its options.
    #[must_use]
    pub fn speech(&self) -> &SpeechClient {
        &self.speech
    }

    /// The provider of the client's access tokens.
    #[must_use]
    pub fn tokens(&self) -> &TokenProvider {
        &self.service.tokens
    }
}

/// How a client authenticates.
enum Access {
    Credentials { client_id: String, client_secret: SecretString },
    ServiceToken(SecretString),
    Provider(TokenProvider),
}

/// Configures a [`Client`]; made by [`Client::builder`]. One of [`credentials`](ClientBuilder::credentials),
/// [`service_token`](ClientBuilder::service_token) and [`token_provider`](ClientBuilder::token_provider) is required.
#[must_use]
pub struct ClientBuilder {
    endpoint: String,
    access: Option<Access>,
    token_dir: Option<PathBuf>,
    vault_key: Option<VaultKey>,
    trust: Option<Trust>,
    follow_hosts: Vec<HostName>,
}

impl ClientBuilder {
    /// Authenticates with a client id and its secret, for which the service issues access tokens. They are renewed in the
    /// background and kept in the [token directory](ClientBuilder::token_dir), where other processes find them.
    pub fn credentials(self, client_id: impl Into<String>, client_secret: impl Into<SecretString>) -> ClientBuilder {
        let access = Access::Credentials { client_id: client_id.into(), client_secret: client_secret.into() };
        ClientBuilder { access: Some(access), ..self }
    }

    /// Authenticates with a service token, which needs no renewal.
    pub fn service_token(self, token: impl Into<SecretString>) -> ClientBuilder {
        ClientBuilder { access: Some(Access::ServiceToken(token.into())), ..self }
    }

    /// Authenticates with the tokens of `provider`.
    pub fn token_provider(self, provider: TokenProvider) -> ClientBuilder {
        ClientBuilder { access: Some(Access::Provider(provider)), ..self }
    }

    /// Keeps tokens in this directory, in files that only their owner can read. By default it is `voxline/tokens` in the
    /// user's data directory, which the program `voxline` uses too: a service counts refresh tokens (Cloud Voice
    /// issues 25), so they should outlive the process.
    pub fn token_dir(self, directory: impl Into<PathBuf>) -> ClientBuilder {
        ClientBuilder { token_dir: Some(directory.into()), ..self }
    }

    /// Encrypts the kept tokens with this key.
    pub fn vault_key(self, key: VaultKey) -> ClientBuilder {
        ClientBuilder { vault_key: Some(key), ..self }
    }

    /// Trusts these certificate authorities, instead of the system's.
    pub fn trust(self, trust: Trust) -> ClientBuilder {
        ClientBuilder { trust: Some(trust), ..self }
    }

    /// Lets the service move sessions to this host, which is then shown the access token. May be repeated.
    pub fn follow_host(mut self, host: HostName) -> ClientBuilder {
        self.follow_hosts.push(host);
        self
    }

    /// Builds the client. Nothing is requested from the service yet.
    ///
    /// # Errors
    /// [`BuildError`] where the endpoint, the credentials or the system's certificates are of no use.
    pub fn build(self) -> Result<Client, BuildError> {
        let endpoint: Endpoint = self.endpoint.parse()?;
        let trust = self.trust.map_or_else(Trust::system, Ok)?;
        let http = http_client_trusting(&trust)?;
        let tokens = match self.access.ok_or(BuildError::NoCredentials)? {
            Access::Provider(provider) => provider,
            Access::ServiceToken(token) => TokenProvider::service(&token)?,
            Access::Credentials { client_id, client_secret } => {
                let directory = self.token_dir.or_else(default_token_dir).ok_or(BuildError::NoTokenDirectory)?;
                let vault = Vault::new(&directory, &endpoint, &client_id);
                let vault = self.vault_key.into_iter().fold(vault, Vault::encrypted);
                let credentials = Credentials { client_id, client_secret };
                let clock = Arc::new(SystemClock::new());
                TokenProvider::oauth(OAuthClient::new(http.clone(), endpoint.clone(), credentials, clock), vault)
            }
        };
        let speech = SpeechClient::new(http, endpoint.clone(), &tokens);
        let connector = WebSocketConnector::trusting(endpoint, &trust).with_hosts(self.follow_hosts);
        Ok(Client { service: Arc::new(Service { connector, tokens }), speech })
    }
}

/// The directory in which the program `voxline` keeps tokens: in the user's data directory, by the XDG base directory
/// specification. `None` without a home directory.
#[expect(clippy::disallowed_methods, reason = "the user's directories are told by the environment")]
fn default_token_dir() -> Option<PathBuf> {
    let directory = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = if cfg!(windows) {
        directory("APPDATA")
    } else {
        directory("XDG_DATA_HOME").or_else(|| directory("HOME").map(|home| home.join(".local/share")))
    };
    data.map(|data| data.join("voxline/tokens"))
}
