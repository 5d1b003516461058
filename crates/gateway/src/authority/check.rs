//! Verification of bearer tokens.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::secrets::Fingerprint;
use super::store::{ACCESS, Access, Failure, Look, PROJECTS, Project, SERVICE, Service, View, id_of};
use super::terms::{Scope, Terms};
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
    /// Fingerprint of the token; `None` for a client that needs none.
    fingerprint: Option<Fingerprint>,
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
        let identity = self.admit(token, peer)?;
        if !identity.terms.scopes.has(scope) {
            let error = AuthorityError::Scope(scope);
            self.audit.refused(Some(&identity.token), &error, peer);
            return Err(error);
        }
        self.note_use(&identity);
        Ok(identity)
    }

    /// Verifies `token` for a client at `peer`, regardless of scope and without recording a use: for
    /// read-only requests.
    pub(crate) fn admit(&self, token: &str, peer: Option<IpAddr>) -> Result<Identity, AuthorityError> {
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
        self.read(|view| self.identify(view, Fingerprint::of(token)))
    }

    /// Records the refusal of a token that stands for another one, such as the token of a task; `id` is the
    /// id of the token that it stands for, if known.
    pub(crate) fn tell_refused(&self, id: Option<&str>, reason: &AuthorityError, peer: Option<IpAddr>) {
        self.audit.refused(id, reason, peer);
    }

    /// Verifies a token again that was valid before. The token stays valid while the store can't be read:
    /// revocations are announced again once the store is back.
    pub(crate) fn check_again(&self, identity: &Identity) -> Result<Identity, AuthorityError> {
        let Some(fingerprint) = identity.fingerprint else {
            return self.check_project(identity).map(|()| identity.clone());
        };
        match self.read(|view| self.identify(view, fingerprint)) {
            Err(AuthorityError::Unavailable { .. }) => Ok(identity.clone()),
            checked => checked,
        }
    }

    /// Returns the identity of a client at `peer` that has no token, where the operator lets such clients use
    /// the project `name` from these networks.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Address`] for a client elsewhere, [`AuthorityError::NoProject`] or
    /// [`AuthorityError::Inactive`] if the project is unknown or disabled, or [`AuthorityError::Store`] or
    /// [`AuthorityError::Unavailable`] if the store fails.
    pub(crate) fn admit_open(
        &self,
        name: &str,
        networks: &[IpNet],
        peer: Option<IpAddr>,
    ) -> Result<Identity, AuthorityError> {
        let terms = Terms { networks: networks.to_vec(), ..Terms::default() };
        if !terms.admit(peer) {
            self.audit.refused(None, &AuthorityError::Address, peer);
            return Err(AuthorityError::Address);
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
            terms,
            languages: owner.languages,
            expires_in: None,
            fingerprint: None,
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
        let fingerprint = Some(fingerprint);
        Ok(Identity { token, holder, project, terms, languages, expires_in, fingerprint })
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
        }
    }
}
