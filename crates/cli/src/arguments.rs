//! Command line arguments that several commands have.

use std::path::PathBuf;

use clap::Args;
use clap::builder::Resettable;

use crate::config::{Config, SecretSource, Settings};
use crate::exit_code::CliError;
use crate::log::LogFormat;
use voxline::net::HostName;

/// The options of every command.
#[derive(Args, Clone)]
#[command(next_help_heading = "General options")]
pub(crate) struct General {
    /// Configuration file [default: voxline/config.toml in the user's configuration directory]
    #[arg(long, global = true, value_name = "FILE", env = "VOXLINE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Log filter for standard error: error, warn, info, debug, trace, or a filter such as
    /// voxline::session=debug [default: warn; for serve also the audit log and the events of operation,
    /// voxline::audit=info,voxline::operation=info]
    #[arg(long, global = true, value_name = "FILTER", env = "VOXLINE_LOG")]
    pub(crate) log: Option<String>,
    /// Log format: lines of text for people, or one JSON object per line
    #[arg(long, global = true, value_name = "FORMAT", env = "VOXLINE_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// The arguments of a command that uses a service.
#[derive(Args)]
pub(crate) struct WithService<A: Args> {
    #[command(flatten)]
    pub(crate) arguments: A,
    #[command(flatten)]
    pub(crate) service: ServiceOptions,
}

/// The arguments of a command that uses models.
#[derive(Args)]
pub(crate) struct WithModels<A: Args> {
    #[command(flatten)]
    pub(crate) arguments: A,
    // A flattened structure before leaves its heading behind.
    /// Directory of models [default: voxline/models in the user's cache directory]
    #[arg(
        long, global = true, value_name = "DIR", env = "VOXLINE_MODELS",
        help_heading = Resettable::Reset
    )]
    pub(crate) models: Option<PathBuf>,
}

/// The service and its credentials.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Connection options")]
pub(crate) struct ServiceOptions {
    /// Service to use [default: a gateway inside this process]
    #[arg(long, global = true, value_name = "URL", env = "VOXLINE_ENDPOINT")]
    pub(crate) endpoint: Option<String>,
    /// Client id of the project at the service
    #[arg(long, global = true, value_name = "ID", env = "VOXLINE_CLIENT_ID")]
    pub(crate) client_id: Option<String>,
    /// Profile in the configuration file [default: the settings outside of any profile]
    #[arg(long, global = true, value_name = "NAME", env = "VOXLINE_PROFILE")]
    pub(crate) profile: Option<String>,
    /// File with the client secret, `-` for standard input [default: the variable VOXLINE_CLIENT_SECRET]
    #[arg(long, global = true, value_name = "FILE", env = "VOXLINE_CLIENT_SECRET_FILE")]
    pub(crate) client_secret_file: Option<PathBuf>,
    /// File with a service token, instead of a client id and secret; `-` for standard input [default: the
    /// variable VOXLINE_TOKEN]
    #[arg(long, global = true, value_name = "FILE", env = "VOXLINE_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// File of certificates (PEM) to trust in addition to the system's
    #[arg(long, global = true, value_name = "FILE", env = "VOXLINE_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Additional host of the service, to which it may move sessions and which may receive its tokens; may be
    /// repeated
    #[arg(long, global = true, value_name = "HOST", env = "VOXLINE_FOLLOW_HOST", value_delimiter = ',')]
    pub(crate) follow_host: Vec<HostName>,
    /// File with the key that encrypts tokens on disk: 32 bytes, or 64 hexadecimal digits
    #[arg(long, global = true, value_name = "FILE", env = "VOXLINE_VAULT_KEY_FILE")]
    pub(crate) vault_key_file: Option<PathBuf>,
}

/// The options that commands share, as far as a command has them.
#[derive(Clone, Default)]
pub(crate) struct Common {
    pub(crate) config: Option<PathBuf>,
    pub(crate) service: ServiceOptions,
    pub(crate) models: Option<PathBuf>,
}

/// The spoken language and the recogniser.
#[derive(Args, Clone, Default)]
pub(crate) struct RecognitionOptions {
    /// Spoken language: a code such as en or ru-RU, a name such as english, several candidates for detection
    /// (ru,en), or auto to detect any; for a gateway, the default of clients that name none [default: auto]
    #[arg(long, value_name = "LANGUAGE", env = "VOXLINE_LANGUAGE")]
    pub(crate) language: Option<String>,
    #[command(flatten)]
    pub(crate) chosen: ModelChoice,
}

/// The recogniser of a gateway inside this process.
#[derive(Args, Clone, Default)]
pub(crate) struct ModelChoice {
    /// Recognition model of the gateway inside this process: a model name such as whisper-tiny.en, or a
    /// directory with a CTranslate2 Whisper model such as ./whisper-small [default: whisper-base]
    #[arg(long, value_name = "NAME|DIR", env = "VOXLINE_MODEL")]
    pub(crate) model: Option<String>,
}

impl Common {
    pub(crate) fn load(self, recognition: Option<RecognitionOptions>) -> Result<Config, CliError> {
        Ok(Config::load(self.settings(recognition.unwrap_or_default()))?)
    }

    /// Returns whether the flags name a service or credentials.
    pub(crate) fn names_a_service(&self) -> bool {
        let ServiceOptions { endpoint, client_id, client_secret_file, token_file, .. } = &self.service;
        endpoint.is_some() || client_id.is_some() || client_secret_file.is_some() || token_file.is_some()
    }

    pub(crate) fn settings(self, recognition: RecognitionOptions) -> Settings {
        // A variable set to an empty string counts as unset.
        let text = |given: Option<String>| given.filter(|text| !text.is_empty());
        let file = |given: Option<PathBuf>| given.filter(|path| !path.as_os_str().is_empty());
        let service = self.service;
        Settings {
            config: file(self.config),
            endpoint: text(service.endpoint),
            client_id: text(service.client_id),
            profile: text(service.profile),
            client_secret: SecretSource::named(file(service.client_secret_file), "VOXLINE_CLIENT_SECRET"),
            token: SecretSource::named(file(service.token_file), "VOXLINE_TOKEN"),
            ca_file: file(service.ca_file),
            follow_hosts: service.follow_host,
            vault_key_file: file(service.vault_key_file),
            models: file(self.models),
            model: text(recognition.chosen.model),
            language: text(recognition.language),
            gateway: toml::Table::new(),
        }
    }

    /// Adds the options of a service, and returns the command's other arguments.
    pub(crate) fn with_service<A: Args>(self, with: WithService<A>) -> (A, Common) {
        (with.arguments, Common { service: with.service, ..self })
    }

    /// Adds the directory of models, and returns the command's other arguments.
    pub(crate) fn with_models<A: Args>(self, with: WithModels<A>) -> (A, Common) {
        (with.arguments, Common { models: with.models, ..self })
    }

    /// Adds the options of a service and the directory of models, and returns the command's other arguments.
    pub(crate) fn with_both<A: Args>(self, with: WithService<WithModels<A>>) -> (A, Common) {
        let (arguments, common) = self.with_service(with);
        common.with_models(arguments)
    }
}
