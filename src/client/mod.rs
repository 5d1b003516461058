//! High-level client of one speech service: a [`Client`] transcribes recordings and live audio, and speaks.
//!
//! The [front page](crate#first-use) has a first transcript. The parts of the client can be used by
//! themselves: the `pipeline` that reads a source, the [`session`](crate::session) that carries audio to the
//! service, the [`TokenProvider`], and the `SpeechClient`.

#[cfg(feature = "decode")]
mod channels;
mod error;
mod input;
mod live;
#[cfg(feature = "decode")]
mod opened;
#[cfg(feature = "decode")]
mod reading;
#[cfg(feature = "decode")]
mod recorded;
#[cfg(feature = "decode")]
mod recording;
mod spool_file;
mod transcript;
mod transcription;

#[cfg(feature = "oauth")]
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;

#[cfg(feature = "decode")]
pub use self::channels::{ChannelError, ChannelEvent, ChannelTranscript};
pub use self::error::{BuildError, StartError, TranscriptError};
pub use self::live::{Live, LiveAudio, SessionEnded};
#[cfg(feature = "decode")]
pub use self::opened::OpenedRecording;
#[cfg(feature = "decode")]
pub use self::recording::Recorded;
#[cfg(feature = "decode")]
use self::recording::Recording;
pub use self::spool_file::SpoolFile;
pub use self::transcript::Transcript;
pub use self::transcription::Transcription;
use crate::auth::TokenProvider;
#[cfg(feature = "oauth")]
use crate::auth::{Credentials, OAuthClient, Vault, VaultKey};
#[cfg(feature = "oauth")]
use crate::clock::SystemClock;
#[cfg(any(feature = "oauth", feature = "speech"))]
use crate::net::HttpClient;
use crate::net::{Endpoint, EndpointError, HostName, InProcess, Trust, Way};
#[cfg(feature = "decode")]
use crate::source::{Source, SourceError};
#[cfg(feature = "speech")]
use crate::speech::{PcmStream, SpeechClient, SpeechOptions};
use crate::transport::WebSocketConnector;

/// A client of one speech service. Clones share its connections and tokens.
///
/// Sessions run in tasks of the tokio runtime in which they are started, which needs time and I/O enabled.
#[derive(Clone, Debug)]
pub struct Client {
    service: Arc<Service>,
    #[cfg(feature = "speech")]
    speech: SpeechClient,
}

/// The parts that all sessions of a client share.
#[derive(Debug)]
struct Service {
    endpoint: Endpoint,
    connector: WebSocketConnector,
    tokens: TokenProvider,
}

impl Client {
    /// Returns a builder for the service at `endpoint`: an [`Endpoint`], or the text of one, such as
    /// `https://host[:port][/prefix]`, or `http` for loopback. [`build`](ClientBuilder::build) returns the
    /// error of a text that is none.
    pub fn builder<E>(endpoint: E) -> ClientBuilder
    where
        Endpoint: TryFrom<E>,
        EndpointError: From<<Endpoint as TryFrom<E>>::Error>,
    {
        ClientBuilder {
            endpoint: Endpoint::try_from(endpoint).map_err(EndpointError::from),
            access: None,
            #[cfg(feature = "oauth")]
            token_dir: None,
            #[cfg(feature = "oauth")]
            vault_key: None,
            trust: None,
            in_process: None,
            follow_hosts: Vec::new(),
        }
    }

    /// Prepares the transcription of a recording, or of a stream that is read from front to back.
    #[cfg(feature = "decode")]
    pub fn transcribe(&self, source: Source) -> Transcription<Recorded> {
        Transcription::of_recording(self.service.clone(), Recording::Source(source))
    }

    /// Prepares the transcription of a recording that `open` opens when the transcription starts, on a thread
    /// for blocking work: a download, say. It is not opened if a [spool](Transcription::spool) of an earlier
    /// process has all audio. Until it is opened, messages call it `name`.
    #[cfg(feature = "decode")]
    pub fn transcribe_with(
        &self,
        name: impl Into<String>,
        open: impl FnOnce() -> Result<Source, SourceError> + Send + 'static,
    ) -> Transcription<Recorded> {
        let recording = Recording::Deferred { name: name.into(), open: Box::new(open) };
        Transcription::of_recording(self.service.clone(), recording)
    }

    /// Prepares the transcription of audio that the caller produces: mono, at `sample_rate` frames per second
    /// (8,000 to 48,000).
    pub fn live(&self, sample_rate: u32) -> Transcription<Live> {
        Transcription::of_live_audio(self.service.clone(), sample_rate)
    }

    /// Synthesises `text`, of any length, by the service's default voice. No request is sent before the
    /// stream is polled.
    ///
    /// For other voices, for text that is still being written, and for MP3 and Opus see
    /// [`speech`](Client::speech).
    #[cfg(feature = "speech")]
    #[must_use]
    pub fn speak(&self, text: &str) -> PcmStream {
        self.speech.speak(text, &SpeechOptions::default())
    }

    /// Returns the client of the service's synthesis, with all its options.
    #[cfg(feature = "speech")]
    #[must_use]
    pub fn speech(&self) -> &SpeechClient {
        &self.speech
    }

    /// Waits until a renewal of the access token that is under way has ended. Its answer may hold the only
    /// copy of a refresh token: a program that ends before may have to sign in again.
    pub async fn close(self) {
        self.service.tokens.clone().close().await;
    }

    /// Returns the provider of the client's access tokens.
    #[must_use]
    pub fn tokens(&self) -> &TokenProvider {
        &self.service.tokens
    }
}

/// Means by which a client authenticates.
enum Access {
    #[cfg(feature = "oauth")]
    Credentials {
        client_id: String,
        client_secret: SecretString,
    },
    ServiceToken(SecretString),
    Provider(TokenProvider),
}

/// Builder of a [`Client`]; created by [`Client::builder`].
///
/// One of `credentials`, [`service_token`](ClientBuilder::service_token) and
/// [`token_provider`](ClientBuilder::token_provider) is required; the last one given applies.
#[must_use]
pub struct ClientBuilder {
    endpoint: Result<Endpoint, EndpointError>,
    access: Option<Access>,
    #[cfg(feature = "oauth")]
    token_dir: Option<PathBuf>,
    #[cfg(feature = "oauth")]
    vault_key: Option<VaultKey>,
    trust: Option<Trust>,
    in_process: Option<InProcess>,
    follow_hosts: Vec<HostName>,
}

impl ClientBuilder {
    /// Authenticates with a client id and its secret, for which the service issues access tokens. The tokens
    /// are renewed in the background, and stored in the [token directory](ClientBuilder::token_dir), where
    /// other processes find them.
    #[cfg(feature = "oauth")]
    pub fn credentials(
        self,
        client_id: impl Into<String>,
        client_secret: impl Into<SecretString>,
    ) -> ClientBuilder {
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

    /// Stores tokens in this directory, in files that only their owner can read. The default is
    /// `voxline/tokens` in the user's data directory, as in the program `voxline`. A service limits the
    /// number of refresh tokens (Cloud Voice issues 25), so they should outlive the process.
    #[cfg(feature = "oauth")]
    pub fn token_dir(self, directory: impl Into<PathBuf>) -> ClientBuilder {
        ClientBuilder { token_dir: Some(directory.into()), ..self }
    }

    /// Encrypts the stored tokens with this key.
    #[cfg(feature = "oauth")]
    pub fn vault_key(self, key: VaultKey) -> ClientBuilder {
        ClientBuilder { vault_key: Some(key), ..self }
    }

    /// Trusts the certificate authorities of `trust`. By default it is [`Trust::system`].
    #[cfg(feature = "tls")]
    pub fn trust(self, trust: Trust) -> ClientBuilder {
        ClientBuilder { trust: Some(trust), ..self }
    }

    /// Reaches the service within this process, whatever host its endpoint names. No certificate is checked.
    pub fn in_process(self, service: InProcess) -> ClientBuilder {
        ClientBuilder { in_process: Some(service), ..self }
    }

    /// Allows the service to move sessions to this host, which then receives the access token. May be
    /// repeated.
    pub fn follow_host(mut self, host: HostName) -> ClientBuilder {
        self.follow_hosts.push(host);
        self
    }

    /// Builds the client. No request is sent yet.
    ///
    /// # Errors
    /// Returns [`BuildError`] if the endpoint or the credentials can't be used, or if TLS can't be set up.
    pub fn build(self) -> Result<Client, BuildError> {
        let endpoint = self.endpoint?;
        let way = match self.in_process {
            Some(service) => Way::InProcess(service),
            None => Way::Network(self.trust.map_or_else(Trust::system, Ok)?),
        };
        #[cfg(any(feature = "oauth", feature = "speech"))]
        let http = HttpClient::by(way.clone());
        let tokens = match self.access.ok_or(BuildError::NoCredentials)? {
            Access::Provider(provider) => provider,
            Access::ServiceToken(token) => TokenProvider::service(&token)?,
            #[cfg(feature = "oauth")]
            Access::Credentials { client_id, client_secret } => {
                let directory =
                    self.token_dir.or_else(default_token_dir).ok_or(BuildError::NoTokenDirectory)?;
                let vault = Vault::new(&directory, &endpoint, &client_id);
                let vault = self.vault_key.into_iter().fold(vault, Vault::encrypted);
                let credentials = Credentials { client_id, client_secret };
                let clock = Arc::new(SystemClock::new());
                let client = OAuthClient::new(http.clone(), endpoint.clone(), credentials, clock);
                TokenProvider::oauth(client, vault)
            }
        };
        #[cfg(feature = "speech")]
        let speech = SpeechClient::new(http, endpoint.clone(), &tokens);
        let connector = WebSocketConnector::by(way, endpoint.clone()).with_hosts(self.follow_hosts);
        Ok(Client {
            service: Arc::new(Service { endpoint, connector, tokens }),
            #[cfg(feature = "speech")]
            speech,
        })
    }
}

/// Returns the directory in which the program `voxline` stores tokens: in the user's data directory, which on
/// Unix follows the XDG base directory specification. `None` without a home directory.
#[cfg(feature = "oauth")]
#[expect(clippy::disallowed_methods, reason = "the environment names the user's directories")]
fn default_token_dir() -> Option<PathBuf> {
    let (variable, usual) =
        if cfg!(windows) { ("APPDATA", "AppData/Roaming") } else { ("XDG_DATA_HOME", ".local/share") };
    let named = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = named.or_else(|| Some(std::env::home_dir()?.join(usual)));
    data.map(|data| data.join("voxline/tokens"))
}
