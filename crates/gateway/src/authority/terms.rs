//! Terms of a token's use: scopes, budgets, networks and the other limits of a service token.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A scope: a service that a token may use, by its documented name.
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

    /// Returns the documented name of the scope.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scope::Tts => "tts",
            Scope::AsrShort => "asr_short",
            Scope::AsrStream => "asr_stream",
        }
    }
}

/// An unknown scope name.
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
    /// Returns all scopes, which is what an access token has.
    #[must_use]
    pub fn all() -> Scopes {
        Scope::ALL.into_iter().collect()
    }

    /// Returns whether the set contains `scope`.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    /// Iterates over the scopes.
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

/// The budget of a token for one resource; an absent number is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Budget per UTC day.
    pub per_day: Option<u64>,
    /// Total budget.
    pub total: Option<u64>,
}

/// The terms of use of a service token. The original service knows the scopes only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Scopes of the token.
    pub scopes: Scopes,
    /// Lifetime in seconds; unlimited if absent.
    pub expires_in: Option<u64>,
    /// Seconds of audio for recognition.
    pub audio: Budget,
    /// Characters of text for synthesis.
    pub characters: Budget,
    /// Networks that the token may be used from; any network if empty. The client's address is that of the
    /// connection, or the one that a trusted proxy reports.
    pub networks: Vec<IpNet>,
    /// Maximum number of concurrent streaming sessions.
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
    /// Returns whether the token may be used from this address. An IPv4-mapped IPv6 address counts as IPv4.
    #[must_use]
    pub fn admit(&self, peer: Option<IpAddr>) -> bool {
        admits(&self.networks, peer)
    }
}

/// Returns whether an address is of one of these networks, or there are none. An IPv4-mapped IPv6 address
/// counts as IPv4.
pub(crate) fn admits(networks: &[IpNet], peer: Option<IpAddr>) -> bool {
    let peer = peer.map(|peer| peer.to_canonical());
    networks.is_empty() || peer.is_some_and(|peer| networks.iter().any(|network| network.contains(&peer)))
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
