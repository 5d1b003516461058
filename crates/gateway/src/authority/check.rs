//! Verification of bearer tokens.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::secrets::{Fingerprint, SHORT_LIVED_PREFIX};
use super::short_lived::{Claims, ShortLivedKey};
use super::store::{ACCESS, Access, Failure, Look, PROJECTS, Project, SERVICE, Service, View, id_of};
use super::terms::{Scope, Terms, admits};
use super::{Authority, AuthorityError};
use voxline::language::Languages;

/// A verified token: its project, and the terms of its use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id of the token, which is no secret; `open_` and the id of the project for a client that needs none.
    pub token: String,
    /// Id that usage is charged to: the client that the token was minted for, or the service token itself.
    pub holder: String,
    /// Id of the project.
    pub project: String,
    /// Terms of use; unlimited for an access token.
    pub terms: Terms,
    /// Candidate languages for a client that names none; the gateway's default if absent.
    pub languages: Option<Languages>,
    /// Remaining lifetime; `None` for a service token that does not expire.
    pub expires_in: Option<Duration>,
    /// Fingerprint of the token, for a short-lived key that of the token that it was made with; `None` for a
    /// client that needs none.
    fingerprint: Option<Fingerprint>,
    /// Remaining lifetime of the token behind the fingerprint.
    token_expires_in: Option<Duration>,
    /// Expiry time of a short-lived key, in milliseconds since the Unix epoch; `None` for any other token.
    short_lived_until: Option<u64>,
    /// Settings of the streams that a short-lived key opens.
    settings: Option<Arc<str>>,
}

impl Identity {
    /// Returns whether the client has a short-lived key.
    pub(crate) fn is_short_lived(&self) -> bool {
        self.short_lived_until.is_some()
    }

    /// Returns the remaining lifetime of the token that the client has, or had for its short-lived key.
    pub(crate) fn token_expires_in(&self) -> Option<Duration> {
        self.token_expires_in
    }

    /// Returns the settings of the streams that a short-lived key opens, if it has some.
    pub(crate) fn settings(&self) -> Option<&str> {
        self.settings.as_deref().filter(|settings| !settings.is_empty())
    }

    /// Returns the identity of the holder of a key that was made with this token.
    fn short_lived(mut self, until: u64, settings: Option<Arc<str>>, now: u64) -> Identity {
        self.terms.scopes = self.terms.scopes.iter().filter(|scope| *scope == Scope::AsrStream).collect();
        self.expires_in = Some(Duration::from_millis(until.saturating_sub(now)));
        (self.short_lived_until, self.settings) = (Some(until), settings);
        self
    }
}

impl Authority {
    /// Verifies `token` for the service `scope` and a client at `peer`, and records the use of the token.
    ///
    /// # Errors
    /// Returns the errors of [`Authority::check`], and [`AuthorityError::Address`] or
    /// [`AuthorityError::Scope`] if the token is not valid for the client's address or for the service.
    pub fn authorise(
        &self,
        token: &str,
        scope: Scope,
        peer: Option<IpAddr>,
    ) -> Result<Identity, AuthorityError> {
        let identity = self.admit_any(token, peer)?;
        if !identity.terms.scopes.has(scope) {
            let error = AuthorityError::Scope(scope);
            self.audit.refused(Some(&identity.token), &error, peer);
            return Err(error);
        }
        self.note_use(&identity);
        Ok(identity)
    }

    /// Verifies `token` for a client at `peer`, regardless of scope and without recording a use: for
    /// read-only requests. A short-lived key, which may be anyone's who has seen a page, reads nothing.
    pub(crate) fn admit(&self, token: &str, peer: Option<IpAddr>) -> Result<Identity, AuthorityError> {
        let identity = self.admit_any(token, peer)?;
        if identity.is_short_lived() {
            self.audit.refused(Some(&identity.token), &AuthorityError::ShortLived, peer);
            return Err(AuthorityError::ShortLived);
        }
        Ok(identity)
    }

    fn admit_any(&self, token: &str, peer: Option<IpAddr>) -> Result<Identity, AuthorityError> {
        let identity = self.check(token).inspect_err(|error| self.audit.refused(None, error, peer))?;
        if !identity.terms.admit(peer) {
            self.audit.refused(Some(&identity.token), &AuthorityError::Address, peer);
            return Err(AuthorityError::Address);
        }
        Ok(identity)
    }

    /// Verifies `token`. Tokens are looked up by their hash, so the time of the look-up reveals nothing about
    /// them.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Token`] if the token is unknown, expired or revoked,
    /// [`AuthorityError::Inactive`] if its project is disabled, or [`AuthorityError::Store`] or
    /// [`AuthorityError::Unavailable`] if the store fails.
    pub fn check(&self, token: &str) -> Result<Identity, AuthorityError> {
        if !token.starts_with(SHORT_LIVED_PREFIX) {
            return self.read(|view| self.identify(view, Fingerprint::of(token)));
        }
        let now = self.now();
        let claims = self.signer.verify(token).filter(|claims| claims.expires_at > now);
        let Claims { record, expires_at, settings } = claims.ok_or(AuthorityError::Token)?;
        let identity = self.read(|view| self.identify_record(view, &record))?;
        Ok(identity.short_lived(expires_at, Some(settings.into()), now))
    }

    /// Makes a key for streams that lives for `lifetime`, and no longer than the token of `identity`, for a
    /// client at `peer`. The `settings` are signed, and are those of the streams.
    ///
    /// # Errors
    /// Returns [`AuthorityError::ShortLived`] if the token is such a key itself, [`AuthorityError::Token`] if
    /// it was revoked, or [`AuthorityError::Store`] or [`AuthorityError::Unavailable`] if the store fails.
    pub fn make_short_lived(
        &self,
        identity: &Identity,
        lifetime: Duration,
        settings: &str,
        peer: Option<IpAddr>,
    ) -> Result<ShortLivedKey, AuthorityError> {
        let fingerprint = identity.fingerprint.as_ref().filter(|_| !identity.is_short_lived());
        let fingerprint = fingerprint.ok_or(AuthorityError::ShortLived)?;
        let record = self.read(|view| Ok(view.key_of(fingerprint)?))?.ok_or(AuthorityError::Token)?;
        let lifetime = identity.expires_in.map_or(lifetime, |left| left.min(lifetime));
        let lifetime = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let expires_at = self.now().saturating_add(lifetime);
        self.audit.minted_key(&identity.project, &identity.token, peer);
        let key = self.signer.sign(&Claims { record, expires_at, settings: settings.to_owned() });
        Ok(ShortLivedKey { key, expires_at })
    }

    /// Records the refusal of a token that stands for another one, such as the token of a task; `id` is the
    /// id of the token that it stands for, if known.
    pub(crate) fn tell_refused(&self, id: Option<&str>, reason: &AuthorityError, peer: Option<IpAddr>) {
        self.audit.refused(id, reason, peer);
    }

    /// Verifies a token again that was valid before. Of a short-lived key, the token that it was made with is
    /// verified, whether or not the key itself has expired. The token stays valid while the store can't be
    /// read: revocations are announced again once the store is back.
    pub(crate) fn check_again(&self, identity: &Identity) -> Result<Identity, AuthorityError> {
        let Some(fingerprint) = identity.fingerprint else {
            return self.check_project(identity).map(|()| identity.clone());
        };
        match self.read(|view| self.identify(view, fingerprint)) {
            Err(AuthorityError::Unavailable { .. }) => Ok(identity.clone()),
            checked => checked.map(|token| match identity.short_lived_until {
                Some(until) => token.short_lived(until, identity.settings.clone(), self.now()),
                None => token,
            }),
        }
    }

    /// Returns the identity of a client at `peer` that has no token, where the operator lets such clients use
    /// the project `name` from these networks.
    ///
    /// # Errors
    /// Returns [`AuthorityError::NotOpen`] for a client elsewhere, [`AuthorityError::NoProject`] or
    /// [`AuthorityError::Inactive`] if the project is unknown or disabled, or [`AuthorityError::Store`] or
    /// [`AuthorityError::Unavailable`] if the store fails.
    pub(crate) fn admit_open(
        &self,
        name: &str,
        networks: &[IpNet],
        peer: Option<IpAddr>,
    ) -> Result<Identity, AuthorityError> {
        let admitted = self.identify_open(name, networks, peer);
        admitted.inspect_err(|error| self.audit.refused(None, error, peer))
    }

    fn identify_open(
        &self,
        name: &str,
        networks: &[IpNet],
        peer: Option<IpAddr>,
    ) -> Result<Identity, AuthorityError> {
        if !admits(networks, peer) {
            return Err(AuthorityError::NotOpen);
        }
        let projects: Vec<(String, Project)> = self.read(|view| Ok(view.all(&PROJECTS)?))?;
        let found = projects.into_iter().find(|(_, project)| project.name == name);
        let (project, owner) = found.ok_or_else(|| AuthorityError::NoProject(name.to_owned()))?;
        if !owner.active {
            return Err(AuthorityError::Inactive);
        }
        // All of them share one account, which is that of no token.
        let holder = format!("open_{project}");
        let identity = Identity {
            token: holder.clone(),
            holder,
            project,
            terms: Terms { networks: networks.to_vec(), ..Terms::default() },
            languages: owner.languages,
            expires_in: None,
            fingerprint: None,
            token_expires_in: None,
            short_lived_until: None,
            settings: None,
        };
        self.note_use(&identity);
        Ok(identity)
    }

    /// Checks that there is a project of that name.
    ///
    /// # Errors
    /// Returns [`AuthorityError::NoProject`] if there is none, or [`AuthorityError::Store`] or
    /// [`AuthorityError::Unavailable`] if the store fails.
    pub fn check_project_name(&self, name: &str) -> Result<(), AuthorityError> {
        self.clients(Some(name)).map(drop)
    }

    /// Verifies that the project of `identity` is active, whatever became of the token. The project counts as
    /// active while the store can't be read.
    pub(crate) fn check_project(&self, identity: &Identity) -> Result<(), AuthorityError> {
        let checked = self.read(|view| {
            let owner: Option<Project> = view.find(&PROJECTS, &identity.project)?;
            match owner {
                Some(Project { active: true, .. }) => Ok(()),
                Some(_) => Err(AuthorityError::Inactive.into()),
                None => Err(AuthorityError::Token.into()),
            }
        });
        match checked {
            Err(AuthorityError::Unavailable { .. }) => Ok(()),
            checked => checked,
        }
    }

    fn identify(&self, view: &View, fingerprint: Fingerprint) -> Result<Identity, Failure> {
        let key = view.key_of(&fingerprint)?.ok_or(AuthorityError::Token)?;
        self.identify_record(view, &key)
    }

    /// Verifies the token whose record has this key.
    fn identify_record(&self, view: &View, key: &str) -> Result<Identity, Failure> {
        let token = id_of(key).to_owned();
        let (project, holder, terms, expires_at, secret) = if token.starts_with("at_") {
            let access: Option<Access> = view.find(&ACCESS, key)?;
            let Access { project, client, expires_at, secret, .. } = access.ok_or(AuthorityError::Token)?;
            (project, client, Terms::default(), Some(expires_at), secret)
        } else if token.starts_with("st_") {
            let service: Option<Service> = view.find(&SERVICE, key)?;
            let Service { project, terms, expires_at, secret, .. } = service.ok_or(AuthorityError::Token)?;
            (project, token.clone(), terms, expires_at, secret)
        } else {
            // A refresh token is no bearer token.
            return Err(AuthorityError::Token.into());
        };
        let left = |expires_at: u64| Duration::from_millis(expires_at.saturating_sub(self.now()));
        let expires_in = expires_at.map(left);
        if expires_in == Some(Duration::ZERO) {
            return Err(AuthorityError::Token.into());
        }
        let owner: Option<Project> = view.find(&PROJECTS, &project)?;
        let Project { active, languages, .. } = owner.ok_or(AuthorityError::Token)?;
        if !active {
            return Err(AuthorityError::Inactive.into());
        }
        Ok(Identity {
            token,
            holder,
            project,
            terms,
            languages,
            expires_in,
            fingerprint: Some(secret),
            token_expires_in: expires_in,
            short_lived_until: None,
            settings: None,
        })
    }
}

#[cfg(test)]
impl Identity {
    /// Returns a placeholder identity, for tests that don't depend on one.
    pub(crate) fn of_nobody() -> Identity {
        Identity {
            token: "at_nobody".to_owned(),
            holder: "nobody".to_owned(),
            project: "pr_nobody".to_owned(),
            terms: Terms::default(),
            languages: None,
            expires_in: None,
            fingerprint: Some(Fingerprint([0; 32])),
            token_expires_in: None,
            short_lived_until: None,
            settings: None,
        }
    }
}
