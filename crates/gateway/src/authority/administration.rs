//! How projects, clients and service tokens begin.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use super::secrets::{
    CLIENT_PREFIX, Fingerprint, SERVICE_PREFIX, random_client_id, random_id, random_secret,
};
use super::store::{CLIENTS, Change, Client, Failure, Look, PROJECTS, Project, SERVICE, Service, key};
use super::terms::Terms;
use super::{Authority, AuthorityError};
use voxline::language::Languages;

/// A new client's credentials, shown once.
#[derive(Debug, Serialize, Deserialize)]
pub struct NewClient {
    /// The client id.
    pub client_id: String,
    /// Its secret.
    #[serde(serialize_with = "exposed")]
    pub client_secret: SecretString,
}

/// A new service token, shown once.
#[derive(Debug, Serialize, Deserialize)]
pub struct NewToken {
    /// Its id: no secret.
    pub id: String,
    /// The token.
    #[serde(serialize_with = "exposed")]
    pub token: SecretString,
}

/// On its way to the operator a secret is text.
fn exposed<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

impl Authority {
    /// Registers a project and its first client, whose credentials it returns. They are not kept in clear.
    ///
    /// # Errors
    /// [`AuthorityError::ProjectName`], [`AuthorityError::ProjectExists`], or [`AuthorityError::Store`].
    pub fn create_project(&self, name: &str) -> Result<NewClient, AuthorityError> {
        self.create_project_speaking(name, None)
    }

    /// The same, with the languages of which one is spoken where a client names none; those of the gateway
    /// where absent.
    ///
    /// # Errors
    /// As of [`Authority::create_project`].
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

    /// Sets the languages of which one is spoken where a client of the project called `name` names none;
    /// those of the gateway where absent. Sessions that live keep theirs.
    ///
    /// # Errors
    /// [`AuthorityError::NoProject`], or [`AuthorityError::Store`].
    pub fn set_languages(&self, name: &str, languages: Option<Languages>) -> Result<(), AuthorityError> {
        self.write(|change| {
            let (id, project) = change.project_called(name)?;
            Ok(change.put(&PROJECTS, &id, &Project { languages, ..project })?)
        })
    }

    /// Registers another client of the project called `name`. All clients of a project share its limits.
    ///
    /// # Errors
    /// [`AuthorityError::NoProject`], or [`AuthorityError::Store`].
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

    /// Mints a service token for the project called `name`: a bearer token that is good for what `terms` say.
    ///
    /// # Errors
    /// [`AuthorityError::NoScope`], [`AuthorityError::NoProject`], or [`AuthorityError::Store`].
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
    /// The project called `name`, and its id.
    pub(super) fn project_called(&self, name: &str) -> Result<(String, Project), Failure> {
        let found = self.all(&PROJECTS)?.into_iter().find(|(_, project)| project.name == name);
        Ok(found.ok_or_else(|| AuthorityError::NoProject(name.to_owned()))?)
    }
}
