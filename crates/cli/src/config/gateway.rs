//! The gateway's part of the configuration: table `[gateway]` of the file, the flags of `voxline serve`,
//! and their environment variables.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::values::{
    Bytes, Count, Dialects, Limit, Seconds, SomeSeconds, Whole, dialects, listen, listen_address, network,
    networks, wyoming, wyoming_address,
};
use super::{ConfigError, secret};
use voxline::net::Endpoint;
use voxline_gateway::authority::{AtLimit, Policy, Refreshing};
use voxline_gateway::{
    ConnectionOptions, OpenAccess, OpenAiOptions, Options, Origin, RecordingOptions, TlsFiles, UrlHost,
    VoiceAlias, WyomingAddress,
};

/// Default listening address: on loopback, since there is no certificate by default.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8085);
/// Default lifetime of access tokens in seconds: the documented hour.
const TOKEN_LIFETIME: u64 = 3600;

/// Behaviour when a refresh or access token exceeds the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TokenLimit {
    /// Refuse the new token
    Refuse,
    /// Revoke the oldest token to make room
    Evict,
}

/// Effect of a refresh on the refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RefreshTokens {
    /// Keep the same token
    Keep,
    /// Replace the token; the old one stays valid until the new one is used
    Rotate,
}

/// Settings of the gateway. Each field declares a setting once: its key in the table `[gateway]`, its flag of
/// `voxline serve` and its environment variable. A field is `None` if it is not given, or has no default.
#[derive(Args, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(rustdoc::bare_urls, reason = "the documentation is the help of the flags, too")]
pub struct GatewayConfig {
    /// Address to listen on, such as 127.0.0.1:8085, or :8085 for all addresses of the machine; port 0
    /// selects a free port [default: 127.0.0.1:8085]
    #[arg(long, value_name = "ADDR", env = "VOXLINE_GATEWAY_LISTEN", value_parser = listen_address)]
    #[serde(deserialize_with = "listen")]
    pub listen: Option<SocketAddr>,
    /// Directory of the gateway's state: projects and tokens
    #[arg(long, value_name = "DIR", env = "VOXLINE_GATEWAY_STATE")]
    pub state: Option<PathBuf>,
    /// File with the TLS certificate and its chain to the root (PEM); reloaded on SIGHUP
    #[arg(long, value_name = "FILE", env = "VOXLINE_GATEWAY_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// File with the certificate's key (PEM), which no other user may be able to read
    #[arg(long, value_name = "FILE", env = "VOXLINE_GATEWAY_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Lifetime of access tokens in seconds [default: 3600]
    #[arg(long, value_name = "SECONDS", env = "VOXLINE_GATEWAY_TOKEN_LIFETIME")]
    pub token_lifetime: Option<SomeSeconds>,
    /// Behaviour when a refresh or access token exceeds the limit of 25 [default: refuse]
    #[arg(long, value_name = "WHAT", env = "VOXLINE_GATEWAY_TOKEN_LIMIT")]
    pub token_limit: Option<TokenLimit>,
    /// Effect of a refresh on the refresh token [default: keep]
    #[arg(long, value_name = "WHAT", env = "VOXLINE_GATEWAY_REFRESH_TOKENS")]
    pub refresh_tokens: Option<RefreshTokens>,
    /// Answer a bad token with status 400, as the documentation prints, instead of 401 and 403 [default:
    /// false]
    #[arg(long, value_name = "BOOL", env = "VOXLINE_GATEWAY_DOCUMENTED_STATUS",
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub documented_status: Option<bool>,
    /// Name the addresses of clients in the audit log; set to false where they must not be stored [default:
    /// true]
    #[arg(long, value_name = "BOOL", env = "VOXLINE_GATEWAY_AUDIT_ADDRESSES",
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub audit_addresses: Option<bool>,
    /// Let a socket continue with a fresh token that its client sends in band; set to false behind a proxy
    /// that checks tokens at the handshake [default: true]
    #[arg(long, value_name = "BOOL", env = "VOXLINE_GATEWAY_IN_BAND_AUTH",
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub in_band_auth: Option<bool>,
    /// Serve /tts_demo and /asr_demo, which require no token [default: false]
    #[arg(long, value_name = "BOOL", env = "VOXLINE_GATEWAY_DEMO",
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub demo: Option<bool>,
    /// Serve the console at / [default: true]
    #[arg(long, value_name = "BOOL", env = "VOXLINE_GATEWAY_CONSOLE",
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub console: Option<bool>,
    /// Number of threads for recognition [default: as many as the machine runs at once]
    #[arg(long, value_name = "COUNT", env = "VOXLINE_GATEWAY_THREADS")]
    pub threads: Option<Count>,
    /// Maximum number of concurrent streaming sessions [default: the capacity of the threads, measured at the
    /// start]
    #[arg(long, value_name = "COUNT", env = "VOXLINE_GATEWAY_MAX_SESSIONS")]
    pub max_sessions: Option<Count>,
    /// Maximum number of recordings and texts processed at once; more are refused [default: 16]
    #[arg(long, value_name = "COUNT", env = "VOXLINE_GATEWAY_MAX_REQUESTS")]
    pub max_requests: Option<Count>,
    /// APIs of other services to speak: openai, deepgram, vosk, jambonz, or none [default: all]
    #[arg(long, value_name = "NAMES", env = "VOXLINE_GATEWAY_DIALECTS", value_parser = dialects)]
    pub dialects: Option<Dialects>,
    /// Address to speak Vosk's protocol on, at every path and without TLS, with clients that have no token;
    /// needs --open-project
    #[arg(long, value_name = "ADDR", env = "VOXLINE_GATEWAY_VOSK_LISTEN", value_parser = listen_address)]
    #[serde(deserialize_with = "listen")]
    pub vosk_listen: Option<SocketAddr>,
    /// Address, or unix:PATH, to speak the Wyoming protocol on, whose clients have no token; needs
    /// --open-project
    #[arg(long, value_name = "ADDR", env = "VOXLINE_GATEWAY_WYOMING_LISTEN", value_parser = wyoming_address)]
    #[serde(deserialize_with = "wyoming")]
    pub wyoming_listen: Option<WyomingAddress>,
    /// Project that clients of dialects without a token, or with a dummy, use: its languages hold, and its
    /// usage counts what they do
    #[arg(long, value_name = "NAME", env = "VOXLINE_GATEWAY_OPEN_PROJECT")]
    pub open_project: Option<String>,
    /// Network that clients without a token may connect from; may be repeated [default: 127.0.0.0/8 and
    /// ::1/128]
    #[arg(long, value_name = "CIDR", env = "VOXLINE_GATEWAY_OPEN_FROM", value_delimiter = ',', value_parser = network)]
    #[serde(deserialize_with = "networks")]
    pub open_from: Option<Vec<IpNet>>,
    /// Longest recording that a dialect takes, in seconds [default: 14400]
    #[arg(long, value_name = "SECONDS", env = "VOXLINE_GATEWAY_MAX_RECORDING_DURATION")]
    pub max_recording_duration: Option<SomeSeconds>,
    /// Largest recording that a dialect takes, in bytes [default: 2147483648]
    #[arg(long, value_name = "BYTES", env = "VOXLINE_GATEWAY_MAX_RECORDING_BYTES")]
    pub max_recording_bytes: Option<Bytes>,
    /// Disk space for the recordings of dialects, all together, in bytes [default: 8589934592]
    #[arg(long, value_name = "BYTES", env = "VOXLINE_GATEWAY_UPLOAD_SPACE")]
    pub upload_space: Option<Bytes>,
    /// Directory of the temporary files of these recordings [default: the system's]
    #[arg(long, value_name = "DIR", env = "VOXLINE_GATEWAY_UPLOAD_DIR")]
    pub upload_dir: Option<PathBuf>,
    /// Host, or HOST:PORT, whose addresses clients may name: recordings that are fetched, and callbacks that
    /// take results; may be repeated
    #[arg(long, value_name = "HOST", env = "VOXLINE_GATEWAY_URL_HOST", value_delimiter = ',')]
    pub url_host: Option<Vec<UrlHost>>,
    /// Name of a model that /v1/models lists; may be repeated [default: whisper-1 and others]
    #[arg(long, value_name = "NAME", env = "VOXLINE_GATEWAY_OPENAI_MODEL", value_delimiter = ',')]
    pub openai_model: Option<Vec<String>>,
    /// Voice that a name of OpenAI's API stands for, such as alloy=joe; may be repeated
    #[arg(long, value_name = "NAME=VOICE", env = "VOXLINE_GATEWAY_OPENAI_VOICE", value_delimiter = ',')]
    pub openai_voice: Option<Vec<VoiceAlias>>,
    /// Maximum number of open connections; more replace idle ones, or wait [default: 800]
    #[arg(long, value_name = "COUNT", env = "VOXLINE_GATEWAY_MAX_CONNECTIONS")]
    pub max_connections: Option<Count>,
    /// Maximum number of connections per address, fewer as connections become scarce; 0 for no limit
    /// [default: 600]
    #[arg(long, value_name = "COUNT", env = "VOXLINE_GATEWAY_MAX_CONNECTIONS_PER_ADDRESS")]
    pub max_connections_per_address: Option<Limit>,
    /// Number of wrong tokens that an address may send at once, and one more every 3 seconds; 0 for no limit
    /// [default: 20]
    #[arg(long, value_name = "COUNT", env = "VOXLINE_GATEWAY_MAX_FAILURES")]
    pub max_failures: Option<Limit>,
    /// Network such as 10.0.0.0/8 of trusted proxies, which report their clients' addresses by
    /// X-Forwarded-For, Forwarded or PROXY protocol version 2; may be repeated
    #[arg(long, value_name = "CIDR", env = "VOXLINE_GATEWAY_TRUSTED_PROXY", value_delimiter = ',',
        value_parser = network)]
    #[serde(deserialize_with = "networks")]
    pub trusted_proxy: Option<Vec<IpNet>>,
    /// Timeout in seconds for the TLS handshake, the head of a request, and the pause before the next request
    /// [default: 10]
    #[arg(long, value_name = "SECONDS", env = "VOXLINE_GATEWAY_HEADER_TIMEOUT")]
    pub header_timeout: Option<SomeSeconds>,
    /// Timeout in seconds for a whole recording or text to arrive [default: 120]
    #[arg(long, value_name = "SECONDS", env = "VOXLINE_GATEWAY_BODY_TIMEOUT")]
    pub body_timeout: Option<SomeSeconds>,
    /// Timeout in seconds for a client to accept more of a response [default: 60]
    #[arg(long, value_name = "SECONDS", env = "VOXLINE_GATEWAY_WRITE_TIMEOUT")]
    pub write_timeout: Option<SomeSeconds>,
    /// Seconds that a session outlives its socket [default: 60]
    #[arg(long, value_name = "SECONDS", env = "VOXLINE_GATEWAY_RESUME_WINDOW")]
    pub resume_window: Option<Seconds>,
    /// Seconds that sessions may continue after the gateway is told to stop [default: 30]
    #[arg(long, value_name = "SECONDS", env = "VOXLINE_GATEWAY_DRAIN")]
    pub drain: Option<Seconds>,
    /// Gateway such as https://b.speech.example that takes over this gateway's sessions when it is told to
    /// stop: each starts there while it still runs here; may be repeated, the first that answers is used
    #[arg(long, value_name = "URL", env = "VOXLINE_GATEWAY_SUCCESSOR", value_delimiter = ',')]
    pub successor: Option<Vec<Endpoint>>,
    /// Origin such as https://host:port whose pages may use the gateway from a browser; * for any; may be
    /// repeated
    #[arg(long, value_name = "ORIGIN", env = "VOXLINE_GATEWAY_CORS_ORIGIN", value_delimiter = ',')]
    pub cors_origin: Option<Vec<Origin>>,
}

impl Default for GatewayConfig {
    fn default() -> GatewayConfig {
        let options = Options::default();
        GatewayConfig {
            listen: Some(LISTEN),
            state: None,
            tls_cert: None,
            tls_key: None,
            token_lifetime: Some(Whole(TOKEN_LIFETIME)),
            token_limit: Some(TokenLimit::Refuse),
            refresh_tokens: Some(RefreshTokens::Keep),
            documented_status: Some(options.documented_status),
            audit_addresses: Some(Policy::default().audit_addresses),
            in_band_auth: Some(options.in_band_auth),
            console: Some(options.console),
            demo: Some(options.demo),
            threads: None,
            max_sessions: None,
            max_requests: Some(Whole(options.max_requests as u64)),
            dialects: Some(Dialects(options.dialects)),
            vosk_listen: None,
            wyoming_listen: None,
            open_project: None,
            open_from: Some(OpenAccess::loopback()),
            max_recording_duration: Some(Whole(options.recordings.max_duration.as_secs())),
            max_recording_bytes: Some(Whole(options.recordings.max_bytes)),
            upload_space: Some(Whole(options.recordings.disk_bytes)),
            upload_dir: options.recordings.directory,
            url_host: Some(options.url_hosts),
            openai_model: Some(options.openai.models),
            openai_voice: Some(options.openai.voices),
            max_connections: Some(Whole(options.connections.max as u64)),
            max_connections_per_address: Some(Whole(options.connections.max_per_address as u64)),
            max_failures: Some(Whole(options.max_failures.into())),
            trusted_proxy: Some(options.connections.trusted_proxies),
            header_timeout: Some(Whole(options.connections.header_timeout.as_secs())),
            body_timeout: Some(Whole(options.connections.body_timeout.as_secs())),
            write_timeout: Some(Whole(options.connections.write_timeout.as_secs())),
            resume_window: Some(Whole(options.resume_window.as_secs())),
            drain: Some(Whole(options.drain.as_secs())),
            successor: Some(options.successors),
            cors_origin: Some(options.cors_origins),
        }
    }
}

impl GatewayConfig {
    /// Returns the options of the gateway.
    #[must_use]
    pub fn options(&self) -> Options {
        let options = Options::default();
        let threads = self.threads.and_then(|threads| NonZero::new(threads.count()));
        let max_failures = self.max_failures.map(|count| u32::try_from(count.0).unwrap_or(u32::MAX));
        Options {
            threads: threads.unwrap_or(options.threads),
            max_sessions: self.max_sessions.map_or(options.max_sessions, Whole::count),
            max_requests: self.max_requests.map_or(options.max_requests, Whole::count),
            connections: self.connections(),
            dialects: self.dialects.clone().map_or(options.dialects, |dialects| dialects.0),
            recordings: self.recordings(),
            url_hosts: self.url_host.clone().unwrap_or(options.url_hosts),
            openai: self.openai(),
            open: self.open(),
            max_failures: max_failures.unwrap_or(options.max_failures),
            resume_window: self.resume_window.map_or(options.resume_window, Whole::seconds),
            drain: self.drain.map_or(options.drain, Whole::seconds),
            successors: self.successor.clone().unwrap_or(options.successors),
            cors_origins: self.cors_origin.clone().unwrap_or(options.cors_origins),
            in_band_auth: self.in_band_auth.unwrap_or(options.in_band_auth),
            console: self.console.unwrap_or(options.console),
            demo: self.demo.unwrap_or(options.demo),
            documented_status: self.documented_status.unwrap_or(options.documented_status),
            ..options
        }
    }

    fn connections(&self) -> ConnectionOptions {
        let options = ConnectionOptions::default();
        ConnectionOptions {
            max: self.max_connections.map_or(options.max, Whole::count),
            max_per_address: self.max_connections_per_address.map_or(options.max_per_address, Whole::count),
            header_timeout: self.header_timeout.map_or(options.header_timeout, Whole::seconds),
            body_timeout: self.body_timeout.map_or(options.body_timeout, Whole::seconds),
            write_timeout: self.write_timeout.map_or(options.write_timeout, Whole::seconds),
            trusted_proxies: self.trusted_proxy.clone().unwrap_or(options.trusted_proxies),
        }
    }

    fn recordings(&self) -> RecordingOptions {
        let options = RecordingOptions::default();
        RecordingOptions {
            max_duration: self.max_recording_duration.map_or(options.max_duration, Whole::seconds),
            max_bytes: self.max_recording_bytes.map_or(options.max_bytes, |bytes| bytes.0),
            disk_bytes: self.upload_space.map_or(options.disk_bytes, |bytes| bytes.0),
            directory: self.upload_dir.clone(),
        }
    }

    /// Returns the access of clients without tokens, if there is any.
    pub(crate) fn open(&self) -> Option<OpenAccess> {
        let networks = self.open_from.clone().unwrap_or_else(OpenAccess::loopback);
        self.open_project.clone().map(|project| OpenAccess { project, networks })
    }

    fn openai(&self) -> OpenAiOptions {
        let options = OpenAiOptions::default();
        OpenAiOptions {
            models: self.openai_model.clone().unwrap_or(options.models),
            voices: self.openai_voice.clone().unwrap_or(options.voices),
        }
    }

    /// Returns the address to listen on.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen.unwrap_or(LISTEN)
    }

    /// Returns the address to listen on for clients of Vosk without a token, if there is one.
    ///
    /// # Errors
    /// Returns [`ConfigError::Incomplete`] if no project is named for them.
    pub fn vosk_listen(&self) -> Result<Option<SocketAddr>, ConfigError> {
        if self.vosk_listen.is_some() && self.open_project.is_none() {
            return Err(ConfigError::Incomplete {
                key: "gateway.open_project",
                reason: "vosk_listen needs a project for its clients, who have no token: --open-project, or \
                         open_project in [gateway] of the configuration file",
            });
        }
        Ok(self.vosk_listen)
    }

    /// Returns the address to speak the Wyoming protocol on, if there is one.
    ///
    /// # Errors
    /// Returns [`ConfigError::Incomplete`] if no project is named for its clients.
    pub fn wyoming_listen(&self) -> Result<Option<&WyomingAddress>, ConfigError> {
        if self.wyoming_listen.is_some() && self.open_project.is_none() {
            return Err(ConfigError::Incomplete {
                key: "gateway.open_project",
                reason: "wyoming_listen needs a project for its clients, who have no token: --open-project, \
                         or open_project in [gateway] of the configuration file",
            });
        }
        Ok(self.wyoming_listen.as_ref())
    }

    /// Returns the policy of the gateway's authority.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let policy = Policy::default();
        Policy {
            at_limit: match self.token_limit {
                Some(TokenLimit::Evict) => AtLimit::Evict,
                Some(TokenLimit::Refuse) | None => AtLimit::Refuse,
            },
            refreshing: match self.refresh_tokens {
                Some(RefreshTokens::Rotate) => Refreshing::Rotate,
                Some(RefreshTokens::Keep) | None => Refreshing::Keep,
            },
            audit_addresses: self.audit_addresses.unwrap_or(policy.audit_addresses),
        }
    }

    /// Returns the lifetime of access tokens.
    #[must_use]
    pub fn token_lifetime(&self) -> Duration {
        self.token_lifetime.map_or(Duration::from_secs(TOKEN_LIFETIME), Whole::seconds)
    }

    /// Returns the directory of the gateway's projects and tokens.
    ///
    /// # Errors
    /// Returns [`ConfigError::Incomplete`] if no directory is configured.
    pub fn state(&self) -> Result<&PathBuf, ConfigError> {
        self.state.as_ref().ok_or(ConfigError::Incomplete {
            key: "gateway.state",
            reason: "the gateway needs a directory for its state: --state, or state in [gateway] of the \
                     configuration file",
        })
    }

    /// Returns the files of the certificate and its key, if TLS is configured.
    ///
    /// # Errors
    /// Returns [`ConfigError::Incomplete`] if only one of the two is given.
    pub fn tls_files(&self) -> Result<Option<TlsFiles>, ConfigError> {
        match (&self.tls_cert, &self.tls_key) {
            (None, None) => Ok(None),
            (Some(certificates), Some(key)) => Ok(Some(TlsFiles {
                certificates: certificates.clone(),
                key: key.clone(),
                key_is_guarded: secret::is_systemd_credential(key),
            })),
            (given, _) => Err(ConfigError::Incomplete {
                key: if given.is_some() { "gateway.tls_key" } else { "gateway.tls_cert" },
                reason: "tls_cert and tls_key go together",
            }),
        }
    }
}
