//! Dialects of the gateway, and their settings.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// A dialect: the API of another service, which the gateway speaks beside its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// The audio API of OpenAI: `/v1/audio` and `/v1/models`.
    OpenAi,
    /// Deepgram's API: `/v1/listen`, `/v1/speak` and `/v1/status`.
    Deepgram,
    /// The WebSocket protocol of Vosk's server: `/vosk`.
    Vosk,
    /// jambonz' custom speech recognition: `/jambonz`.
    Jambonz,
}

impl Dialect {
    /// All dialects.
    pub const ALL: [Dialect; 4] = [Dialect::OpenAi, Dialect::Deepgram, Dialect::Vosk, Dialect::Jambonz];

    /// Returns the name of the dialect, which is also its label in the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Dialect::OpenAi => "openai",
            Dialect::Deepgram => "deepgram",
            Dialect::Vosk => "vosk",
            Dialect::Jambonz => "jambonz",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Error of a name that no dialect has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("dialect '{0}' is none of {known}", known = Dialect::ALL.map(Dialect::name).join(", "))]
pub struct UnknownDialect(String);

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(name: &str) -> Result<Dialect, UnknownDialect> {
        let known = Dialect::ALL.into_iter().find(|dialect| dialect.name() == name);
        known.ok_or_else(|| UnknownDialect(name.to_owned()))
    }
}

/// Address to speak the Wyoming protocol on, written as `ADDRESS:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum WyomingAddress {
    /// An address of TCP.
    Tcp(SocketAddr),
    /// A path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for WyomingAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WyomingAddress::Tcp(address) => address.fmt(f),
            WyomingAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<WyomingAddress> for String {
    fn from(address: WyomingAddress) -> String {
        address.to_string()
    }
}

/// Access for clients without tokens: those of protocols that know none, and of dialects.
#[derive(Clone, Debug)]
pub struct OpenAccess {
    /// Name of the project that these clients use: its languages hold, and its usage counts what they do.
    pub project: String,
    /// Networks that they may connect from. The client's address is that of the connection, or the one that a
    /// trusted proxy reports. Clients of a Unix socket have none: its file says who may connect.
    pub networks: Vec<IpNet>,
}

impl OpenAccess {
    /// Returns the networks of the machine itself.
    #[must_use]
    pub fn loopback() -> Vec<IpNet> {
        vec![
            Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8).trunc().into(),
            Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128).into(),
        ]
    }
}

/// Settings of the dialect of OpenAI.
#[derive(Clone, Debug)]
pub struct OpenAiOptions {
    /// Names of models that `/v1/models` lists. Each stands for the recogniser and the voices of the gateway,
    /// and so does any other name that a client sends: programs let their users type any.
    pub models: Vec<String>,
    /// Names of voices that stand for others, beside those of OpenAI.
    pub voices: Vec<VoiceAlias>,
}

impl Default for OpenAiOptions {
    fn default() -> OpenAiOptions {
        let models = [
            "whisper-1",
            "gpt-4o-transcribe",
            "gpt-4o-mini-transcribe",
            "gpt-transcribe",
            "tts-1",
            "tts-1-hd",
            "gpt-4o-mini-tts",
        ];
        let voices = Vec::new();
        OpenAiOptions { models: models.map(str::to_owned).into(), voices }
    }
}

/// A name that stands for a voice, written as `NAME=VOICE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VoiceAlias {
    /// Name that clients send, such as `alloy`.
    pub name: String,
    /// Name of a voice of the gateway.
    pub voice: String,
}

/// Error of a text that is no [`VoiceAlias`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected NAME=VOICE, such as alloy=joe")]
pub struct BadVoiceAlias;

impl FromStr for VoiceAlias {
    type Err = BadVoiceAlias;

    fn from_str(text: &str) -> Result<VoiceAlias, BadVoiceAlias> {
        let (name, voice) = text.split_once('=').ok_or(BadVoiceAlias)?;
        let (name, voice) = (name.trim().to_owned(), voice.trim().to_owned());
        if name.is_empty() || voice.is_empty() { Err(BadVoiceAlias) } else { Ok(VoiceAlias { name, voice }) }
    }
}

impl TryFrom<String> for VoiceAlias {
    type Error = BadVoiceAlias;

    fn try_from(text: String) -> Result<VoiceAlias, BadVoiceAlias> {
        text.parse()
    }
}

impl From<VoiceAlias> for String {
    fn from(alias: VoiceAlias) -> String {
        alias.to_string()
    }
}

impl fmt::Display for VoiceAlias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.voice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialects_have_one_name_everywhere() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.name().parse(), Ok(dialect));
            assert_eq!(serde_json::to_value(dialect).unwrap(), dialect.name());
        }
        let error = "wit".parse::<Dialect>().unwrap_err().to_string();
        assert_eq!(error, "dialect 'wit' is none of openai, deepgram, vosk, jambonz");
    }

    #[test]
    fn an_alias_has_two_names() {
        let alias: VoiceAlias = " alloy = joe ".parse().unwrap();
        assert_eq!((alias.name.as_str(), alias.voice.as_str()), ("alloy", "joe"));
        assert_eq!(String::from(alias), "alloy=joe");
        for bad in ["alloy", "=joe", "alloy="] {
            assert_eq!(bad.parse::<VoiceAlias>(), Err(BadVoiceAlias), "{bad}");
        }
    }
}
