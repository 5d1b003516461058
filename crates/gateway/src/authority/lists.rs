//! What there is, as told to an operator: the oldest first. No secret is known here.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::store::{
    ACCESS, Access, CLIENTS, Client, Failure, Look, PROJECTS, Project, REFRESH, Refresh, SERVICE, Service,
    View, id_of,
};
use super::terms::{Scopes, Terms};
use super::usage::Amount;
use super::{Authority, AuthorityError};
use voxline::language::Languages;

/// A project. Times are milliseconds since the Unix epoch, here and in what follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectEntry {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether its tokens are good.
    pub active: bool,
    /// The languages of which one is spoken where a client names none; those of the gateway where absent.
    #[serde(default)]
    pub languages: Option<Languages>,
    /// When it was registered.
    pub created: u64,
    /// How many clients it has.
    pub clients: usize,
    /// How many refresh tokens it has, of 25.
    pub refresh_tokens: usize,
    /// How many service tokens it has.
    pub service_tokens: usize,
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientEntry {
    /// The client id.
    pub id: String,
    /// The name of its project.
    pub project: String,
    /// When it was registered.
    pub created: u64,
    /// When a token of it was last used.
    pub last_used: Option<u64>,
    /// How many refresh tokens it has.
    pub refresh_tokens: usize,
}

/// A refresh token or an access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenEntry {
    /// Its id: `rt_…` or `at_…`.
    pub id: String,
    /// The name of its project.
    pub project: String,
    /// The client it was granted to.
    pub client: String,
    /// The refresh token that an access token was bought with.
    pub refresh_token: Option<String>,
    /// When it was granted.
    pub created: u64,
    /// When a refresh token was last used.
    pub last_used: Option<u64>,
    /// When an access token expires.
    pub expires: Option<u64>,
    /// What it opens.
    pub scopes: Scopes,
}

/// A service token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTokenEntry {
    /// Its id: `st_…`.
    pub id: String,
    /// The name of its project.
    pub project: String,
    /// When it was minted.
    pub created: u64,
    /// When it was last used.
    pub last_used: Option<u64>,
    /// When it expires.
    pub expires: Option<u64>,
    /// What it is good for.
    pub terms: Terms,
}

/// What a client or a service token has used, also where it has been revoked since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageEntry {
    /// The client id, or the id of the service token.
    pub id: String,
    /// The name of its project; its id, where the project has been revoked since.
    pub project: String,
    /// On this day of UTC.
    pub today: Amount,
    /// In all.
    pub total: Amount,
    /// When it last used anything.
    pub last_used: u64,
}

/// Projects by id.
type Projects = HashMap<String, Project>;

impl Authority {
    /// All projects.
    ///
    /// # Errors
    /// [`AuthorityError::Store`].
    pub fn projects(&self) -> Result<Vec<ProjectEntry>, AuthorityError> {
        self.read(|view| {
            let clients = view.all::<Client>(&CLIENTS)?;
            let count = |keys: Vec<String>, project: &str| {
                keys.iter()
                    .filter(|key| key.split_once('/').is_some_and(|(owner, _)| owner == project))
                    .count()
            };
            let entry = |(id, project): (String, Project)| {
                Ok(ProjectEntry {
                    clients: clients.iter().filter(|(_, client)| client.project == id).count(),
                    refresh_tokens: count(view.keys(&REFRESH)?, &id),
                    service_tokens: count(view.keys(&SERVICE)?, &id),
                    name: project.name,
                    active: project.active,
                    languages: project.languages,
                    created: project.created,
                    id,
                })
            };
            let mut entries =
                view.all(&PROJECTS)?.into_iter().map(entry).collect::<Result<Vec<_>, Failure>>()?;
            entries.sort_by_key(|entry| entry.created);
            Ok(entries)
        })
    }

    /// The name of the project with that id.
    pub(crate) fn project_name(&self, id: &str) -> Result<String, AuthorityError> {
        let project: Option<Project> = self.read(|view| Ok(view.find(&PROJECTS, id)?))?;
        project.map(|project| project.name).ok_or(AuthorityError::Token)
    }

    /// The clients of the project called `name`, or of all.
    ///
    /// # Errors
    /// [`AuthorityError::NoProject`], or [`AuthorityError::Store`].
    pub fn clients(&self, name: Option<&str>) -> Result<Vec<ClientEntry>, AuthorityError> {
        self.read(|view| {
            let projects = projects(view, name)?;
            let slots = view.all::<Refresh>(&REFRESH)?;
            let entry = |(id, client): (String, Client)| {
                Some(ClientEntry {
                    project: projects.get(&client.project)?.name.clone(),
                    created: client.created,
                    last_used: self.meter.last_used(&id),
                    refresh_tokens: slots.iter().filter(|(_, refresh)| refresh.client == id).count(),
                    id,
                })
            };
            let mut entries: Vec<_> = view.all(&CLIENTS)?.into_iter().filter_map(entry).collect();
            entries.sort_by_key(|entry| entry.created);
            Ok(entries)
        })
    }

    /// The refresh and access tokens of the project called `name`, or of all. Access tokens that have expired are gone.
    ///
    /// # Errors
    /// [`AuthorityError::NoProject`], or [`AuthorityError::Store`].
    pub fn tokens(&self, name: Option<&str>) -> Result<Vec<TokenEntry>, AuthorityError> {
        let now = self.now();
        self.read(|view| {
            let projects = projects(view, name)?;
            let mut entries = Vec::new();
            for (slot, refresh) in view.all::<Refresh>(&REFRESH)? {
                let Some(project) = projects.get(&refresh.project) else { continue };
                entries.push(TokenEntry {
                    id: id_of(&slot).to_owned(),
                    project: project.name.clone(),
                    client: refresh.client,
                    refresh_token: None,
                    created: refresh.created,
                    last_used: Some(refresh.last_used),
                    expires: None,
                    scopes: Scopes::all(),
                });
                for (key, access) in view.under::<Access>(&ACCESS, id_of(&slot))? {
                    if access.expires_at > now {
                        entries.push(TokenEntry {
                            id: id_of(&key).to_owned(),
                            project: project.name.clone(),
                            client: access.client,
                            refresh_token: Some(id_of(&slot).to_owned()),
                            created: access.created,
                            last_used: None,
                            expires: Some(access.expires_at),
                            scopes: Scopes::all(),
                        });
                    }
                }
            }
            entries.sort_by_key(|entry| entry.created);
            Ok(entries)
        })
    }

    /// The service tokens of the project called `name`, or of all.
    ///
    /// # Errors
    /// [`AuthorityError::NoProject`], or [`AuthorityError::Store`].
    pub fn service_tokens(&self, name: Option<&str>) -> Result<Vec<ServiceTokenEntry>, AuthorityError> {
        self.read(|view| {
            let projects = projects(view, name)?;
            let entry = |(key, service): (String, Service)| {
                let id = id_of(&key).to_owned();
                Some(ServiceTokenEntry {
                    project: projects.get(&service.project)?.name.clone(),
                    created: service.created,
                    last_used: self.meter.last_used(&id),
                    expires: service.expires_at,
                    terms: service.terms,
                    id,
                })
            };
            let mut entries: Vec<_> = view.all(&SERVICE)?.into_iter().filter_map(entry).collect();
            entries.sort_by_key(|entry| entry.created);
            Ok(entries)
        })
    }

    /// What was used by the clients and service tokens of the project called `name`, or of all.
    ///
    /// # Errors
    /// [`AuthorityError::NoProject`], or [`AuthorityError::Store`].
    pub fn usage(&self, name: Option<&str>) -> Result<Vec<UsageEntry>, AuthorityError> {
        let projects = self.read(|view| projects(view, name))?;
        let now = self.now();
        let used = self.meter.all().into_iter().filter_map(|(id, usage)| {
            let project = projects.get(&usage.project).map(|project| project.name.clone());
            Some(UsageEntry {
                id,
                today: usage.today(now),
                total: usage.total,
                last_used: usage.last_used,
                project: if name.is_some() { project? } else { project.unwrap_or(usage.project) },
            })
        });
        Ok(used.collect())
    }
}

/// The project called `name`, or all.
fn projects(view: &View, name: Option<&str>) -> Result<Projects, Failure> {
    let mut all: Projects = view.all(&PROJECTS)?.into_iter().collect();
    if let Some(name) = name {
        all.retain(|_, project| project.name == name);
        if all.is_empty() {
            return Err(AuthorityError::NoProject(name.to_owned()).into());
        }
    }
    Ok(all)
}
