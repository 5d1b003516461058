//! Whose a bearer token is.

use std::net::IpAddr;
use std::time::Duration;

use super::secrets::Fingerprint;
use super::store::{ACCESS, Access, Failure, Look, PROJECTS, Project, SERVICE, Service, View, id_of};
use super::terms::{Scope, Terms};
use super::{Authority, AuthorityError};
use voxline::language::Languages;

/// Whose token it is, and what it is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The token's id: no secret.
    pub token: String,
    /// Whom its use is charged to: the client it was minted for, or the service token itself.
    pub holder: String,
    /// The project's id.
    pub project: String,
    /// What it is good for; everything, where it is no service token.
    pub terms: Terms,
    /// The languages of which one is spoken where the client names none; those of the gateway where absent.
    pub languages: Option<Languages>,
    /// How long it still lives; `None` for a service token without an end.
    pub expires_in: Option<Duration>,
    fingerprint: Fingerprint,
}

impl Authority {
    /// Whose `token` it is, where that opens `scope` for a client at `peer`. From here on it counts as used.
    ///
    /// # Errors
    /// As of [`Authority::check`], and [`AuthorityError::Address`] or [`AuthorityError::Scope`].
    pub fn authorise(
        &self,
        token: &str,
        scope: Scope,
        peer: Option<IpAddr>,
    ) -> Result<Identity, AuthorityError> {
        let identity = self.admit(token, peer)?;
        if !identity.terms.scopes.has(scope) {
            let error = AuthorityError::Scope(scope);
            self.audit.refused(Some(&identity.token), &error, peer);
            return Err(error);
        }
        self.note_use(&identity);
        Ok(identity)
    }

    /// Whose `token` it is, whatever it opens, for a client at `peer` that only looks: it doesn't count as used.
    pub(crate) fn admit(&self, token: &str, peer: Option<IpAddr>) -> Result<Identity, AuthorityError> {
        let identity = self.check(token).inspect_err(|error| self.audit.refused(None, error, peer))?;
        if !identity.terms.admit(peer) {
            self.audit.refused(Some(&identity.token), &AuthorityError::Address, peer);
            return Err(AuthorityError::Address);
        }
        Ok(identity)
    }

    /// Whose `token` it is. Tokens are found by their hash, so the time it takes says nothing about them.
    ///
    /// # Errors
    /// [`AuthorityError::Token`] where it is unknown, expired or revoked, [`AuthorityError::Inactive`] where its
    /// project is disabled, or [`AuthorityError::Store`].
    pub fn check(&self, token: &str) -> Result<Identity, AuthorityError> {
        self.read(|view| self.identify(view, Fingerprint::of(token)))
    }

    /// The same of a token that was good before. While the store can't be read it stays good: revocations are
    /// told again once it can.
    pub(crate) fn check_again(&self, identity: &Identity) -> Result<Identity, AuthorityError> {
        match self.read(|view| self.identify(view, identity.fingerprint)) {
            Err(AuthorityError::Unavailable { .. }) => Ok(identity.clone()),
            checked => checked,
        }
    }

    fn identify(&self, view: &View, fingerprint: Fingerprint) -> Result<Identity, Failure> {
        let key = view.key_of(&fingerprint)?.ok_or(AuthorityError::Token)?;
        let token = id_of(&key).to_owned();
        let (project, holder, terms, expires_at) = if token.starts_with("at_") {
            let access: Option<Access> = view.find(&ACCESS, &key)?;
            let Access { project, client, expires_at, .. } = access.ok_or(AuthorityError::Token)?;
            (project, client, Terms::default(), Some(expires_at))
        } else if token.starts_with("st_") {
            let service: Option<Service> = view.find(&SERVICE, &key)?;
            let Service { project, terms, expires_at, .. } = service.ok_or(AuthorityError::Token)?;
            (project, token.clone(), terms, expires_at)
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
        Ok(Identity { token, holder, project, terms, languages, expires_in, fingerprint })
    }
}

#[cfg(test)]
impl Identity {
    /// Whoever it is, for tests that don't ask.
    pub(crate) fn of_nobody() -> Identity {
        Identity {
            token: "at_nobody".to_owned(),
            holder: "nobody".to_owned(),
            project: "pr_nobody".to_owned(),
            terms: Terms::default(),
            languages: None,
            expires_in: None,
            fingerprint: Fingerprint([0; 32]),
        }
    }
}
