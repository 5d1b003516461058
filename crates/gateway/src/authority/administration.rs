//! Creation of projects, clients and service tokens.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use super::secrets::{
    CLIENT_PREFIX, Fingerprint, SERVICE_PREFIX, random_client_id, random_id, random_secret,
};
use super::store::{CLIENTS, Change, Client, Failure, Look, PROJECTS, Project, SERVICE, Service, key};
use super::terms::Terms;
use super::{Authority, AuthorityError};
use voxline::language::Languages;

/// Credentials of a new client, shown once.
#[derive(Debug, Serialize, Deserialize)]
pub struct NewClient {
    /// Client id.
    pub client_id: String,
    /// Client secret.
    #[serde(serialize_with = "exposed")]
    pub client_secret: SecretString,
}

/// A new service token, shown once.
#[derive(Debug, Serialize, Deserialize)]
pub struct NewToken {
    /// Id of the token, which is no secret.
    pub id: String,
    /// The token itself.
    #[serde(serialize_with = "exposed")]
    pub token: SecretString,
}

/// Serialises a secret in clear text, for the operator who receives it.
fn exposed<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

impl Authority {
    /// Registers a project and its first client, and returns the client's credentials. Only a hash of the
    /// secret is kept.
    ///
    /// # Errors
    /// Returns [`AuthorityError::ProjectName`] if the name is not valid, [`AuthorityError::ProjectExists`] if
    /// it is taken, or [`AuthorityError::Store`] or [`AuthorityError::Unavailable`] if the store fails.
    pub fn create_project(&self, name: &str) -> Result<NewClient, AuthorityError> {
        self.create_project_speaking(name, None)
    }

    /// Registers a project and its first client, with the candidate languages for clients that name none.
    /// Without `languages` the gateway's default applies.
    ///
    /// # Errors
    /// Returns the errors of [`Authority::create_project`].
    pub fn create_project_speaking(
        &self,
        name: &str,
        languages: Option<Languages>,
    ) -> Result<NewClient, AuthorityError> {
        if !(1..=100).contains(&name.chars().count()) || name.contains(char::is_control) {
            return Err(AuthorityError::ProjectName);
        }
        let id = random_id("pr_");
        let project = Project { name: name.to_owned(), active: true, languages, created: self.now() };
        let client = self.write(|change| {
            if change.all(&PROJECTS)?.iter().any(|(_, project)| project.name == name) {
                return Err(AuthorityError::ProjectExists(name.to_owned()).into());
            }
            change.put(&PROJECTS, &id, &project)?;
            self.add_client(change, &id)
        })?;
        self.audit.minted(&id, None, &id, None);
        self.audit.minted(&id, None, &client.client_id, None);
        Ok(client)
    }

    /// Sets the candidate languages of the project `name` for clients that name none; without `languages` the
    /// gateway's default applies. Live sessions keep their languages.
    ///
    /// # Errors
    /// Returns [`AuthorityError::NoProject`] if there is no such project, or [`AuthorityError::Store`] or
    /// [`AuthorityError::Unavailable`] if the store fails.
    pub fn set_languages(&self, name: &str, languages: Option<Languages>) -> Result<(), AuthorityError> {
        self.write(|change| {
            let (id, project) = change.project_called(name)?;
            Ok(change.put(&PROJECTS, &id, &Project { languages, ..project })?)
        })
    }

    /// Registers another client of the project `name`. All clients of a project share its limits.
    ///
    /// # Errors
    /// Returns [`AuthorityError::NoProject`] if there is no such project, or [`AuthorityError::Store`] or
    /// [`AuthorityError::Unavailable`] if the store fails.
    pub fn create_client(&self, name: &str) -> Result<NewClient, AuthorityError> {
        let (project, client) = self.write(|change| {
            let (project, _) = change.project_called(name)?;
            let client = self.add_client(change, &project)?;
            Ok((project, client))
        })?;
        self.audit.minted(&project, None, &client.client_id, None);
        Ok(client)
    }

    fn add_client(&self, change: &Change, project: &str) -> Result<NewClient, Failure> {
        let (client_id, client_secret) = (random_client_id(), random_secret(CLIENT_PREFIX));
        let secret = Fingerprint::of(client_secret.expose_secret());
        let client = Client { project: project.to_owned(), secret, created: self.now() };
        change.put(&CLIENTS, &client_id, &client)?;
        Ok(NewClient { client_id, client_secret })
    }

    /// Mints a service token for the project `name`: a bearer token that is valid under `terms`.
    ///
    /// # Errors
    /// Returns [`AuthorityError::NoScope`] if `terms` have no scope, [`AuthorityError::NoProject`] if there
    /// is no such project, or [`AuthorityError::Store`] or [`AuthorityError::Unavailable`] if the store
    /// fails.
    pub fn create_service_token(&self, name: &str, terms: Terms) -> Result<NewToken, AuthorityError> {
        if terms.scopes.iter().next().is_none() {
            return Err(AuthorityError::NoScope);
        }
        let (id, token) = (random_id("st_"), random_secret(SERVICE_PREFIX));
        let secret = Fingerprint::of(token.expose_secret());
        let project = self.write(|change| {
            let (project, _) = change.project_called(name)?;
            let (key, created) = (key(&project, &id), self.now());
            let expires_at = terms.expires_in.map(|life| created.saturating_add(life.saturating_mul(1000)));
            change.admit(&secret, &key)?;
            change.put(
                &SERVICE,
                &key,
                &Service { project: project.clone(), secret, created, expires_at, terms },
            )?;
            Ok(project)
        })?;
        self.audit.minted(&project, None, &id, None);
        Ok(NewToken { id, token })
    }
}

impl Change {
    /// Returns the id and record of the project `name`.
    pub(super) fn project_called(&self, name: &str) -> Result<(String, Project), Failure> {
        let found = self.all(&PROJECTS)?.into_iter().find(|(_, project)| project.name == name);
        Ok(found.ok_or_else(|| AuthorityError::NoProject(name.to_owned()))?)
    }
}
