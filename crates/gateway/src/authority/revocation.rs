//! Revocation of tokens, clients and projects.

use std::net::IpAddr;

use secrecy::{ExposeSecret, SecretString};

use super::secrets::Fingerprint;
use super::store::{
    ACCESS, Access, CLIENTS, Change, Client, Failure, Look, PROJECTS, Project, REFRESH, Refresh, SERVICE,
    Service, id_of,
};
use super::{Authority, AuthorityError};

impl Authority {
    /// Revokes the token that a client presents, as RFC 7009 says: a refresh token with its access tokens, or
    /// one access token. An unknown token, or a token of another client, is left alone. Returns whether a
    /// token was revoked.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Store`] or [`AuthorityError::Unavailable`] if the store fails.
    pub fn revoke_shown(&self, client_id: &str, token: &SecretString) -> Result<bool, AuthorityError> {
        self.revoke_shown_for(None, client_id, token)
    }

    /// Performs [`Authority::revoke_shown`] for a client at `peer`, which the audit log names.
    pub(crate) fn revoke_shown_for(
        &self,
        peer: Option<IpAddr>,
        client_id: &str,
        token: &SecretString,
    ) -> Result<bool, AuthorityError> {
        let secret = Fingerprint::of(token.expose_secret());
        let Some(key) = self.read(|view| shown(view, client_id, &secret))? else { return Ok(false) };
        self.write(|change| change.end_token(&key))
            .map(|project| self.tell_revoked(&project, id_of(&key), peer))?;
        Ok(true)
    }

    /// Revokes the token with this id: a refresh token with its access tokens, an access token, or a service
    /// token.
    ///
    /// # Errors
    /// Returns [`AuthorityError::NoToken`] if there is no such token, or [`AuthorityError::Store`] or
    /// [`AuthorityError::Unavailable`] if the store fails.
    pub fn revoke_token(&self, id: &str) -> Result<(), AuthorityError> {
        let project = self.write(|change| {
            let key = key_of_id(change, id)?.ok_or_else(|| AuthorityError::NoToken(id.to_owned()))?;
            change.end_token(&key)
        })?;
        self.tell_revoked(&project, id, None);
        Ok(())
    }

    /// Revokes a client with all its tokens.
    ///
    /// # Errors
    /// Returns [`AuthorityError::NoClient`] if there is no such client, or [`AuthorityError::Store`] or
    /// [`AuthorityError::Unavailable`] if the store fails.
    pub fn revoke_client(&self, client_id: &str) -> Result<(), AuthorityError> {
        let project = self.write(|change| {
            let client: Option<Client> = change.find(&CLIENTS, client_id)?;
            let project = client.ok_or_else(|| AuthorityError::NoClient(client_id.to_owned()))?.project;
            change.end_client(&project, client_id)?;
            Ok(project)
        })?;
        self.tell_revoked(&project, client_id, None);
        Ok(())
    }

    /// Revokes a project with its clients and all their tokens. The usage of the project is kept.
    ///
    /// # Errors
    /// Returns [`AuthorityError::NoProject`] if there is no such project, or [`AuthorityError::Store`] or
    /// [`AuthorityError::Unavailable`] if the store fails.
    pub fn revoke_project(&self, name: &str) -> Result<(), AuthorityError> {
        let project = self.write(|change| {
            let (project, _) = change.project_called(name)?;
            for (client_id, client) in change.all::<Client>(&CLIENTS)? {
                if client.project == project {
                    change.end_client(&project, &client_id)?;
                }
            }
            for (key, service) in change.under::<Service>(&SERVICE, &project)? {
                change.end_service(&key, &service)?;
            }
            change.remove(&PROJECTS, &project)?;
            Ok(project)
        })?;
        self.tell_revoked(&project, &project, None);
        Ok(())
    }

    /// Disables or enables a project. A disabled project keeps its tokens, which are refused until it is
    /// enabled again.
    ///
    /// # Errors
    /// Returns [`AuthorityError::NoProject`] if there is no such project, or [`AuthorityError::Store`] or
    /// [`AuthorityError::Unavailable`] if the store fails.
    pub fn set_active(&self, name: &str, active: bool) -> Result<(), AuthorityError> {
        let project = self.write(|change| {
            let (id, project) = change.project_called(name)?;
            change.put(&PROJECTS, &id, &Project { active, ..project })?;
            Ok(id)
        })?;
        self.audit.switched(&project, active);
        self.revoked.send_replace(());
        Ok(())
    }

    fn tell_revoked(&self, project: &str, id: &str, peer: Option<IpAddr>) {
        self.audit.revoked(project, id, "revoked", peer);
        self.revoked.send_replace(());
    }
}

impl Change {
    /// Revokes the token with this key, of any kind, and returns the id of its project.
    fn end_token(&self, key: &str) -> Result<String, Failure> {
        let gone = || AuthorityError::NoToken(id_of(key).to_owned());
        if let Some(refresh) = self.find::<Refresh>(&REFRESH, key)? {
            self.close_slot(key)?;
            Ok(refresh.project)
        } else if let Some(access) = self.find::<Access>(&ACCESS, key)? {
            self.end_access(key, &access)?;
            Ok(access.project)
        } else {
            let service: Service = self.find(&SERVICE, key)?.ok_or_else(gone)?;
            self.end_service(key, &service)?;
            Ok(service.project)
        }
    }

    fn end_client(&self, project: &str, client_id: &str) -> Result<(), redb::Error> {
        for (slot, refresh) in self.under::<Refresh>(&REFRESH, project)? {
            if refresh.client == client_id {
                self.close_slot(&slot)?;
            }
        }
        self.remove(&CLIENTS, client_id)
    }

    /// Revokes a refresh token with its access tokens.
    pub(super) fn close_slot(&self, slot: &str) -> Result<(), redb::Error> {
        let Some(refresh) = self.find::<Refresh>(&REFRESH, slot)? else { return Ok(()) };
        for secret in [Some(refresh.secret), refresh.next, refresh.previous].iter().flatten() {
            self.forget(secret)?;
        }
        for (key, access) in self.under::<Access>(&ACCESS, id_of(slot))? {
            self.end_access(&key, &access)?;
        }
        self.remove(&REFRESH, slot)
    }

    pub(super) fn end_access(&self, key: &str, access: &Access) -> Result<(), redb::Error> {
        self.forget(&access.secret)?;
        self.remove(&ACCESS, key)
    }

    fn end_service(&self, key: &str, service: &Service) -> Result<(), redb::Error> {
        self.forget(&service.secret)?;
        self.remove(&SERVICE, key)
    }
}

/// Returns the key of the token with this hash, if the token is the client's.
fn shown(look: &impl Look, client_id: &str, secret: &Fingerprint) -> Result<Option<String>, Failure> {
    let Some(key) = look.key_of(secret)? else { return Ok(None) };
    let refresh: Option<Refresh> = look.find(&REFRESH, &key)?;
    let access: Option<Access> = look.find(&ACCESS, &key)?;
    let owner = refresh.map(|refresh| refresh.client).or(access.map(|access| access.client));
    Ok(owner.filter(|owner| owner == client_id).map(|_| key))
}

/// Returns the key of the token with this id.
fn key_of_id(look: &impl Look, id: &str) -> Result<Option<String>, redb::Error> {
    let mut keys = look.keys(&REFRESH)?;
    keys.extend(look.keys(&ACCESS)?);
    keys.extend(look.keys(&SERVICE)?);
    Ok(keys.into_iter().find(|key| id_of(key) == id))
}
