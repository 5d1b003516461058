//! The two OAuth grants: `client_credentials` yields a refresh token, and `refresh_token` yields access
//! tokens.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::secrets::{ACCESS_PREFIX, Fingerprint, Seed, random_bytes, random_id, random_secret};
use super::store::{
    ACCESS, Access, CLIENTS, Change, Client, Failure, Look, PROJECTS, REFRESH, Refresh, encode, id_of, key,
};
use super::terms::Scopes;
use super::{AtLimit, Authority, AuthorityError, MAX_TOKENS, Refreshing};

/// Response of the token endpoint.
#[derive(Debug)]
pub struct Granted {
    /// Refresh token, which obtains further access tokens.
    pub refresh_token: SecretString,
    /// Access token, valid for `scopes`.
    pub access_token: SecretString,
    /// Lifetime of the access token.
    pub lifetime: Duration,
    /// Scopes of the access token.
    pub scopes: Scopes,
}

/// A granted access token, with the record of its refresh token.
struct Minted {
    refresh_token: SecretString,
    access_token: SecretString,
    /// Key of the refresh token's record.
    slot: String,
    refresh: Refresh,
    access_id: String,
    /// Ids of the tokens that were evicted to make room.
    evicted: Vec<String>,
}

impl Authority {
    /// Performs the grant `client_credentials`: a new refresh token and its first access token.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Client`] if the client or secret is wrong or the project is disabled,
    /// [`AuthorityError::Limit`] if the project has too many refresh tokens, or [`AuthorityError::Store`] or
    /// [`AuthorityError::Unavailable`] if the store fails.
    pub fn client_credentials(
        &self,
        client_id: &str,
        secret: &SecretString,
    ) -> Result<Granted, AuthorityError> {
        self.client_credentials_for(None, client_id, secret)
    }

    /// Performs [`Authority::client_credentials`] for a client at `peer`, which the audit log names.
    pub(crate) fn client_credentials_for(
        &self,
        peer: Option<IpAddr>,
        client_id: &str,
        secret: &SecretString,
    ) -> Result<Granted, AuthorityError> {
        let secret = Fingerprint::of(secret.expose_secret());
        let known = self
            .read(|view| admit(view, client_id, &secret))
            .inspect_err(|error| self.audit.refused(None, error, peer))?;
        // Check the limit in a read transaction first, so that an authenticated client that gets no token
        // costs no write.
        let room = self.read(|view| {
            let held = view.under::<Refresh>(&REFRESH, &known.project)?;
            Ok(self.oldest_over(&held).map(drop)?)
        });
        room.and_then(|()| self.write(|change| self.open_slot(change, client_id, &secret)))
            .map(|minted| self.tell(minted, true, peer))
            .inspect_err(|error| self.audit.refused(Some(client_id), error, peer))
    }

    /// Performs the grant `refresh_token`: a new access token. The [`Policy`](super::Policy) says whether the
    /// refresh token is kept or rotated.
    ///
    /// A refresh token that is presented after its successor was used is held by two parties, and the gateway
    /// can't tell which of them is the client. All tokens of the grant are revoked (RFC 9700, section
    /// 4.14.2).
    ///
    /// # Errors
    /// Returns [`AuthorityError::RefreshToken`] if the token is not one of the client's,
    /// [`AuthorityError::Replaced`] if the successor of the token was used, [`AuthorityError::Client`] if the
    /// project is disabled, [`AuthorityError::Limit`] if the refresh token has too many live access tokens,
    /// or [`AuthorityError::Unavailable`] or [`AuthorityError::Store`] if the store fails.
    pub fn refresh(&self, client_id: &str, refresh_token: SecretString) -> Result<Granted, AuthorityError> {
        self.refresh_for(None, client_id, refresh_token)
    }

    /// Performs [`Authority::refresh`] for a client at `peer`, which the audit log names.
    pub(crate) fn refresh_for(
        &self,
        peer: Option<IpAddr>,
        client_id: &str,
        refresh_token: SecretString,
    ) -> Result<Granted, AuthorityError> {
        let (slot, _) = self
            .read(|view| find_slot(view, client_id, &refresh_token))
            .inspect_err(|error| self.audit.refused(None, error, peer))?;
        let room = self.read(|view| {
            usable_slot(view, client_id, &refresh_token)?;
            Ok(self.oldest_over(&self.live(view, id_of(&slot))?).map(drop)?)
        });
        room.and_then(|()| self.write(|change| self.use_slot(change, client_id, refresh_token)))
            .map(|minted| self.tell(minted, false, peer))
            .map_err(|error| match error {
                AuthorityError::Replaced => self.end_reused(&slot, peer).err().unwrap_or(error),
                error => error,
            })
            .inspect_err(|error| self.audit.refused(Some(id_of(&slot)), error, peer))
    }

    /// Revokes a refresh token, with its access tokens, after one of its predecessors was reused.
    fn end_reused(&self, slot: &str, peer: Option<IpAddr>) -> Result<(), AuthorityError> {
        let ended = self.write(|change| {
            let refresh: Option<Refresh> = change.find(&REFRESH, slot)?;
            change.close_slot(slot)?;
            Ok(refresh)
        })?;
        // `None` if another request has revoked the token first.
        if let Some(refresh) = ended {
            self.audit.revoked(&refresh.project, id_of(slot), "refresh token reused", peer);
            self.revoked.send_replace(());
        }
        Ok(())
    }

    /// Creates a refresh token for the client, with its first access token.
    fn open_slot(&self, change: &Change, client_id: &str, secret: &Fingerprint) -> Result<Minted, Failure> {
        let project = admit(change, client_id, secret)?.project;
        let mut evicted = Vec::new();
        if let Some(oldest) = self.oldest_over(&change.under::<Refresh>(&REFRESH, &project)?)? {
            change.close_slot(&oldest)?;
            evicted.push(id_of(&oldest).to_owned());
        }
        let seed = Seed::random();
        let refresh_token = seed.first();
        let slot = key(&project, &random_id("rt_"));
        let now = self.now();
        let refresh = Refresh {
            project,
            client: client_id.to_owned(),
            number: change.next_number()?,
            created: now,
            last_used: now,
            seed,
            secret: Fingerprint::of(refresh_token.expose_secret()),
            next: None,
            previous: None,
        };
        change.admit(&refresh.secret, &slot)?;
        self.mint(change, slot, refresh, refresh_token, evicted)
    }

    /// Creates an access token for an existing refresh token.
    fn use_slot(&self, change: &Change, client_id: &str, token: SecretString) -> Result<Minted, Failure> {
        let secret = Fingerprint::of(token.expose_secret());
        let (slot, mut refresh) = usable_slot(change, client_id, &token)?;
        if refresh.next == Some(secret) {
            // The client has received the response with the successor: drop the predecessor.
            if let Some(older) = refresh.previous.replace(refresh.secret) {
                change.forget(&older)?;
            }
            (refresh.secret, refresh.next) = (secret, None);
        }
        let answer = match self.policy.refreshing {
            Refreshing::Keep => token,
            Refreshing::Rotate => {
                let successor = refresh.seed.successor(&token);
                let next = Fingerprint::of(successor.expose_secret());
                change.admit(&next, &slot)?;
                refresh.next = Some(next);
                successor
            }
        };
        refresh.last_used = self.now();
        self.mint(change, slot, refresh, answer, Vec::new())
    }

    /// Creates an access token under `slot` and stores `refresh` there, after removing expired access tokens.
    fn mint(
        &self,
        change: &Change,
        slot: String,
        refresh: Refresh,
        refresh_token: SecretString,
        mut evicted: Vec<String>,
    ) -> Result<Minted, Failure> {
        let now = self.now();
        for (old, access) in change.under::<Access>(&ACCESS, id_of(&slot))? {
            if access.expires_at <= now {
                change.end_access(&old, &access)?;
            }
        }
        let live = self.live(change, id_of(&slot))?;
        if let Some(oldest) = self.oldest_over(&live)?
            && let Some((_, access)) = live.iter().find(|(key, _)| *key == oldest)
        {
            change.end_access(&oldest, access)?;
            evicted.push(id_of(&oldest).to_owned());
        }
        let access_token = random_secret(ACCESS_PREFIX);
        let access_id = random_id("at_");
        let lifetime = u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX);
        let access = Access {
            project: refresh.project.clone(),
            client: refresh.client.clone(),
            number: change.next_number()?,
            secret: Fingerprint::of(access_token.expose_secret()),
            created: now,
            expires_at: now.saturating_add(lifetime),
        };
        let place = key(id_of(&slot), &access_id);
        change.admit(&access.secret, &place)?;
        change.put(&ACCESS, &place, &access)?;
        change.put(&REFRESH, &slot, &refresh)?;
        Ok(Minted { refresh_token, access_token, slot, refresh, access_id, evicted })
    }

    /// Returns the unexpired access tokens of the refresh token with this id.
    fn live(&self, look: &impl Look, refresh_id: &str) -> Result<Vec<(String, Access)>, Failure> {
        let mut tokens = look.under::<Access>(&ACCESS, refresh_id)?;
        let now = self.now();
        tokens.retain(|(_, access)| access.expires_at > now);
        Ok(tokens)
    }

    /// Returns the key of the token in `held` to evict before another is added; `None` if there is room.
    fn oldest_over<T: Numbered>(&self, held: &[(String, T)]) -> Result<Option<String>, AuthorityError> {
        match self.policy.at_limit {
            _ if held.len() < MAX_TOKENS => Ok(None),
            AtLimit::Refuse => Err(AuthorityError::Limit(T::NAME)),
            AtLimit::Evict => {
                let oldest = held.iter().min_by_key(|(_, token)| token.number());
                Ok(oldest.map(|(key, _)| key.clone()))
            }
        }
    }

    /// Writes the audit log of a grant, and builds the response.
    fn tell(&self, minted: Minted, with_slot: bool, peer: Option<IpAddr>) -> Granted {
        let Minted { refresh_token, access_token, slot, refresh, access_id, evicted } = minted;
        for id in &evicted {
            self.audit.revoked(&refresh.project, id, "evicted", peer);
        }
        if !evicted.is_empty() {
            self.revoked.send_replace(());
        }
        if with_slot {
            self.audit.minted(&refresh.project, Some(&refresh.client), id_of(&slot), peer);
        }
        self.audit.minted(&refresh.project, Some(&refresh.client), &access_id, peer);
        Granted { refresh_token, access_token, lifetime: self.lifetime, scopes: Scopes::all() }
    }
}

/// Tokens subject to a limit, numbered in the order of minting.
trait Numbered {
    const NAME: &str;

    fn number(&self) -> u64;
}

impl Numbered for Refresh {
    const NAME: &str = "refresh tokens";

    fn number(&self) -> u64 {
        self.number
    }
}

impl Numbered for Access {
    const NAME: &str = "access tokens";

    fn number(&self) -> u64 {
        self.number
    }
}

/// Record compared in place of an unknown client, so that an unknown id takes the same path and time as a
/// wrong secret.
static NOBODY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    encode(&Client {
        project: random_id("pr_"),
        secret: Fingerprint(random_bytes()),
        created: 1_700_000_000_000,
    })
});

/// Returns the client with this id and secret, if its project is enabled.
fn admit(look: &impl Look, client_id: &str, secret: &Fingerprint) -> Result<Client, Failure> {
    let client = look.find_or(&CLIENTS, client_id, &NOBODY)?;
    if !client.secret.is(secret) {
        return Err(AuthorityError::Client.into());
    }
    require_active(look, &client.project)?;
    Ok(client)
}

fn require_active(look: &impl Look, project: &str) -> Result<(), Failure> {
    match look.find(&PROJECTS, project)? {
        Some(project) if project.active => Ok(()),
        _ => Err(AuthorityError::Client.into()),
    }
}

/// Returns the grant of the client's refresh token, whether or not the token is still valid.
fn find_slot(look: &impl Look, client_id: &str, token: &SecretString) -> Result<(String, Refresh), Failure> {
    let key = look.key_of(&Fingerprint::of(token.expose_secret()))?;
    let key = key.filter(|key| id_of(key).starts_with("rt_"));
    let known = match key {
        Some(key) => look.find::<Refresh>(&REFRESH, &key)?.map(|refresh| (key, refresh)),
        // Only the last predecessor's hash is kept. At most 25 grants may have issued an older token.
        None => match look.find::<Client>(&CLIENTS, client_id)? {
            Some(client) => {
                let slots = look.under::<Refresh>(&REFRESH, &client.project)?;
                slots.into_iter().find(|(_, refresh)| refresh.seed.has_made(token))
            }
            None => None,
        },
    };
    let slot = known.filter(|(_, refresh)| refresh.client == client_id);
    Ok(slot.ok_or(AuthorityError::RefreshToken)?)
}

/// Returns the grant of the client's refresh token, if the token is still valid and its project enabled.
fn usable_slot(
    look: &impl Look,
    client_id: &str,
    token: &SecretString,
) -> Result<(String, Refresh), Failure> {
    let (key, refresh) = find_slot(look, client_id, token)?;
    let secret = Fingerprint::of(token.expose_secret());
    if refresh.secret != secret && refresh.next != Some(secret) {
        return Err(AuthorityError::Replaced.into());
    }
    require_active(look, &refresh.project)?;
    Ok((key, refresh))
}
