//! Lists of projects, clients, tokens and usage for operators. Entries contain no secrets, and come oldest
//! first, except usage.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::store::{
    ACCESS, Access, CLIENTS, Client, Failure, Look, PROJECTS, Project, REFRESH, Refresh, SERVICE, Service,
    View, id_of,
};
use super::terms::{Scopes, Terms};
use super::usage::Amount;
use super::{Authority, AuthorityError, rfc3339};
use voxline::language::Languages;

/// A project. Times are in milliseconds since the Unix epoch, here and in the other entries; in JSON they are
/// strings of RFC 3339 in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectEntry {
    /// Id of the project.
    pub id: String,
    /// Name of the project.
    pub name: String,
    /// `true` if the project is enabled, so that its tokens are valid.
    pub active: bool,
    /// Candidate languages for a client that names none; the gateway's default if absent.
    #[serde(default)]
    pub languages: Option<Languages>,
    /// Time of registration.
    #[serde(with = "rfc3339")]
    pub created: u64,
    /// Number of clients.
    pub clients: usize,
    /// Number of refresh tokens, of at most 25.
    pub refresh_tokens: usize,
    /// Number of service tokens.
    pub service_tokens: usize,
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientEntry {
    /// Client id.
    pub id: String,
    /// Name of the client's project.
    pub project: String,
    /// Time of registration.
    #[serde(with = "rfc3339")]
    pub created: u64,
    /// Time of the last use of any of the client's tokens.
    #[serde(with = "rfc3339::optional")]
    pub last_used: Option<u64>,
    /// Number of refresh tokens.
    pub refresh_tokens: usize,
}

/// A refresh token or an access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenEntry {
    /// Id of the token: `rt_…` or `at_…`.
    pub id: String,
    /// Name of the token's project.
    pub project: String,
    /// Id of the client that the token was granted to.
    pub client: String,
    /// Id of the refresh token that an access token was granted with.
    pub refresh_token: Option<String>,
    /// Time of the grant.
    #[serde(with = "rfc3339")]
    pub created: u64,
    /// Time of the last use of a refresh token.
    #[serde(with = "rfc3339::optional")]
    pub last_used: Option<u64>,
    /// Expiry time of an access token.
    #[serde(with = "rfc3339::optional")]
    pub expires: Option<u64>,
    /// Scopes of the token.
    pub scopes: Scopes,
}

/// A service token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTokenEntry {
    /// Id of the token: `st_…`.
    pub id: String,
    /// Name of the token's project.
    pub project: String,
    /// Time of minting.
    #[serde(with = "rfc3339")]
    pub created: u64,
    /// Time of the last use.
    #[serde(with = "rfc3339::optional")]
    pub last_used: Option<u64>,
    /// Expiry time.
    #[serde(with = "rfc3339::optional")]
    pub expires: Option<u64>,
    /// Terms of use.
    pub terms: Terms,
}

/// Usage of a client or service token, including those revoked since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageEntry {
    /// Client id, id of the service token, or `open_` and the id of the project for clients without a token.
    pub id: String,
    /// Name of the project; its id if the project has been revoked since.
    pub project: String,
    /// Usage on the current UTC day.
    pub today: Amount,
    /// Total usage.
    pub total: Amount,
    /// Total usage by API: `stream`, `chunks`, `asr`, `tts`, or the name of a dialect. Usage of a store that
    /// an earlier version wrote is in none of them.
    #[serde(default)]
    pub apis: BTreeMap<String, Amount>,
    /// Time of the last use.
    #[serde(with = "rfc3339")]
    pub last_used: u64,
}

/// Projects by id.
type Projects = HashMap<String, Project>;

impl Authority {
    /// Lists all projects.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Store`] or [`AuthorityError::Unavailable`] if the store fails.
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

    /// Returns the name of the project with this id.
    pub(crate) fn project_name(&self, id: &str) -> Result<String, AuthorityError> {
        let project: Option<Project> = self.read(|view| Ok(view.find(&PROJECTS, id)?))?;
        project.map(|project| project.name).ok_or(AuthorityError::Token)
    }

    /// Lists the clients of the project `name`, or of all projects.
    ///
    /// # Errors
    /// Returns [`AuthorityError::NoProject`] if there is no such project, or [`AuthorityError::Store`] or
    /// [`AuthorityError::Unavailable`] if the store fails.
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

    /// Lists the refresh and access tokens of the project `name`, or of all projects, without expired access
    /// tokens.
    ///
    /// # Errors
    /// Returns [`AuthorityError::NoProject`] if there is no such project, or [`AuthorityError::Store`] or
    /// [`AuthorityError::Unavailable`] if the store fails.
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

    /// Lists the service tokens of the project `name`, or of all projects.
    ///
    /// # Errors
    /// Returns [`AuthorityError::NoProject`] if there is no such project, or [`AuthorityError::Store`] or
    /// [`AuthorityError::Unavailable`] if the store fails.
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

    /// Lists the usage of the clients and service tokens of the project `name`, or of all projects.
    ///
    /// # Errors
    /// Returns [`AuthorityError::NoProject`] if there is no such project, or [`AuthorityError::Store`] or
    /// [`AuthorityError::Unavailable`] if the store fails.
    pub fn usage(&self, name: Option<&str>) -> Result<Vec<UsageEntry>, AuthorityError> {
        let projects = self.read(|view| projects(view, name))?;
        let now = self.now();
        let used = self.meter.all().into_iter().filter_map(|(id, usage)| {
            let project = projects.get(&usage.project).map(|project| project.name.clone());
            Some(UsageEntry {
                id,
                today: usage.today(now),
                total: usage.total,
                apis: usage.apis,
                last_used: usage.last_used,
                project: if name.is_some() { project? } else { project.unwrap_or(usage.project) },
            })
        });
        Ok(used.collect())
    }
}

/// Returns the project `name`, or all projects.
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
