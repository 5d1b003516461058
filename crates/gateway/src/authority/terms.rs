//! What a token may be used for: scopes, and the terms of a service token.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A service that a token may open, by its documented name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// `/tts`.
    Tts,
    /// `/asr`.
    AsrShort,
    /// `/asr_stream/ws` and `/asr_stream/create_task`.
    AsrStream,
}

impl Scope {
    const ALL: [Scope; 3] = [Scope::Tts, Scope::AsrShort, Scope::AsrStream];

    /// Its documented name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scope::Tts => "tts",
            Scope::AsrShort => "asr_short",
            Scope::AsrStream => "asr_stream",
        }
    }
}

/// A name that is no scope's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("scope '{0}' is none of tts, asr_short, asr_stream")]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(name: &str) -> Result<Scope, UnknownScope> {
        let known = Scope::ALL.into_iter().find(|scope| scope.name() == name);
        known.ok_or_else(|| UnknownScope(name.to_owned()))
    }
}

/// A set of scopes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    /// What an access token opens: everything.
    #[must_use]
    pub fn all() -> Scopes {
        Scope::ALL.into_iter().collect()
    }

    /// Whether `scope` is among them.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = Scope> {
        self.0.iter().copied()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Scopes {
        Scopes(scopes.into_iter().collect())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iter().map(Scope::name).collect::<Vec<_>>().join(","))
    }
}

/// How much of something a token may use; no number is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// In a day of UTC.
    pub per_day: Option<u64>,
    /// In all.
    pub total: Option<u64>,
}

/// What a service token is good for. The original service knows the scopes only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// What it opens.
    pub scopes: Scopes,
    /// How many seconds it lives; for ever where absent.
    pub expires_in: Option<u64>,
    /// Seconds of audio that it may have recognised.
    pub audio: Budget,
    /// Characters of text that it may have spoken.
    pub characters: Budget,
    /// The networks that it may be used from; any where empty. The address is that of the connection, or what
    /// a trusted proxy says of it.
    pub networks: Vec<IpNet>,
    /// How many streaming sessions of it may live at once.
    pub max_sessions: Option<u32>,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms {
            scopes: Scopes::all(),
            expires_in: None,
            audio: Budget::default(),
            characters: Budget::default(),
            networks: Vec::new(),
            max_sessions: None,
        }
    }
}

impl Terms {
    /// Whether it may be used from this address. An IPv4 address in IPv6's clothes is an IPv4 address.
    #[must_use]
    pub fn admit(&self, peer: Option<IpAddr>) -> bool {
        let peer = peer.map(|peer| peer.to_canonical());
        self.networks.is_empty()
            || peer.is_some_and(|peer| self.networks.iter().any(|network| network.contains(&peer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_admit_their_addresses_only() {
        let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap());
        let terms = Terms { networks: networks.into(), ..Terms::default() };
        for (peer, admitted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.1.2.3", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(terms.admit(Some(peer.parse().unwrap())), admitted, "{peer}");
        }
        assert!(!terms.admit(None));
        assert!(Terms::default().admit(None));
    }

    #[test]
    fn scopes_have_the_documented_names() {
        for scope in Scope::ALL {
            assert_eq!(scope.name().parse(), Ok(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.name());
        }
        assert_eq!("asr".parse::<Scope>(), Err(UnknownScope("asr".to_owned())));
    }
}
