//! `voxline token`: manages this machine's tokens at a service.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, Subcommand};
use humantime::{format_duration, format_rfc3339_seconds};
use serde_json::{Value, json};

use crate::arguments::Common;
use crate::config::{Access, Service};
use crate::exit_code::{CliError, Exit};
use crate::terminal::say;
use voxline::auth::{
    AccessToken, Account, AuthError, Credentials, LoggedOut, MAX_SLOTS, OAuthClient, SlotState,
    TokenProvider, Vault, log_out,
};
use voxline::net::{Endpoint, HttpClient, Trust};
use voxline_support::clock::{Clock, Moment, SystemClock};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Ensure that there is a valid token, and show when it expires
    Login,
    /// Show the tokens, their lifetime and scope, and which of the project's slots are taken
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Obtain a new access token now
    Refresh,
    /// Print a valid access token, for scripts; anyone who sees it can use it
    Print,
    /// Revoke the tokens at the service, and delete them here
    #[command(visible_alias = "revoke")]
    Logout {
        /// Delete the tokens without asking the service, which continues to count them
        #[arg(long)]
        local: bool,
        /// Also forget which of the project's slots this machine has taken; for use once they are free at the
        /// service
        #[arg(long)]
        forget: bool,
    },
}

/// A client of a service, and the vault of its tokens.
struct Login {
    endpoint: Endpoint,
    client: OAuthClient,
    vault: Vault,
}

pub(crate) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    let config = common.load(None)?;
    let (endpoint, access) = match config.service()? {
        Service::Embedded => {
            let no_service =
                "no service is configured, and the embedded gateway has no tokens: name an --endpoint";
            return Err(CliError::new(Exit::Setup, no_service));
        }
        Service::Remote { endpoint, access } => (endpoint, access),
    };
    let (id, secret) = match access {
        Access::Client { id, secret } => (id, secret),
        Access::ServiceToken(token) => return service_token(&arguments.action, &endpoint, token).await,
    };
    let trust = config.ca_file.as_deref().map_or_else(Trust::system, Trust::with_file)?;
    let vault = config.vault(&endpoint, &id)?;
    let credentials = Credentials { client_id: id, client_secret: secret };
    let (http, clock) = (HttpClient::trusting(&trust)?, Arc::new(SystemClock::new()));
    let client = OAuthClient::new(http, endpoint.clone(), credentials, clock);
    let login = Login { endpoint, client, vault };
    match arguments.action {
        Action::Status { json } => say(&login.status(json)?)?,
        Action::Login => {
            login.token(false).await?;
            say(&login.status(false)?)?;
        }
        Action::Refresh => {
            login.token(true).await?;
            say(&login.status(false)?)?;
        }
        Action::Print => say(&format!("{}\n", login.token(false).await?.expose()))?,
        Action::Logout { local, forget } => {
            let said = match log_out(&login.client, &login.vault, local).await? {
                LoggedOut::Nothing => "no tokens are stored",
                LoggedOut::Revoked => "tokens revoked at the service and deleted here",
                LoggedOut::Abandoned => {
                    "tokens deleted here; the service was not told and may count their slot as taken"
                }
            };
            if forget {
                let vault = login.vault.lock().await.map_err(AuthError::from)?;
                vault.remove().await.map_err(AuthError::from)?;
            }
            say(&format!("{said}\n"))?;
        }
    }
    Ok(Exit::Done)
}

/// Runs the command for a service token, which is not stored here, and whose lifetime only the service knows.
async fn service_token(
    action: &Action,
    endpoint: &Endpoint,
    token: secrecy::SecretString,
) -> Result<Exit, CliError> {
    let tokens = TokenProvider::service(&token)?;
    match action {
        Action::Print => say(&format!("{}\n", tokens.token().await?.expose()))?,
        Action::Login | Action::Status { json: false } => {
            say(&format!(
                "service        {endpoint}\nservice token  configured; only the service knows its lifetime\n"
            ))?;
        }
        Action::Status { json: true } => {
            say(&format!("{}\n", json!({ "endpoint": endpoint.to_string(), "service_token": true })))?;
        }
        Action::Refresh | Action::Logout { .. } => {
            let message = "a service token can be replaced or revoked only at the gateway that created it";
            return Err(CliError::new(Exit::Setup, message));
        }
    }
    Ok(Exit::Done)
}

impl Login {
    /// Returns a valid token; a new one if `renewed`.
    async fn token(&self, renewed: bool) -> Result<AccessToken, AuthError> {
        let now = SystemClock::new().moment();
        let lives = |account: Account| account.tokens.is_some_and(|tokens| !tokens.is_expired(&now));
        let lived = self.vault.load().is_ok_and(lives);
        let tokens = TokenProvider::oauth(self.client.clone(), self.vault.clone());
        let token = match tokens.token().await {
            // A token that was obtained just now is new.
            Ok(old) if renewed && lived => tokens.newer_than(old.generation()).await,
            token => token,
        };
        tokens.close().await;
        token
    }

    fn status(&self, json: bool) -> Result<String, CliError> {
        let account = self.vault.load().map_err(AuthError::from)?;
        let now = SystemClock::new().moment();
        Ok(if json { format!("{}\n", self.as_json(&account, &now)) } else { self.as_text(&account, &now) })
    }

    fn as_json(&self, account: &Account, now: &Moment) -> Value {
        let slots =
            account.slots.iter().map(|slot| json!({ "asked": time(slot.asked.unix), "state": slot.state }));
        let access_token = account.tokens.as_ref().map(|tokens| {
            let expires = tokens.granted.unix.saturating_add(tokens.lifetime);
            json!({ "expires_in": tokens.left(now).as_secs(), "expires": time(expires), "scope": tokens.scope })
        });
        json!({
            "endpoint": self.endpoint.to_string(),
            "client_id": self.client.client_id(),
            "access_token": access_token,
            "refresh_token": account.tokens.as_ref().is_some_and(|tokens| tokens.refresh.is_some()),
            "slots": slots.collect::<Vec<_>>(),
            "file": self.vault.path(),
            "encrypted": self.vault.is_encrypted(),
        })
    }

    fn as_text(&self, account: &Account, now: &Moment) -> String {
        let tokens = account.tokens.as_ref();
        let access = match tokens.map(|tokens| (tokens, tokens.left(now))) {
            None => "none".to_owned(),
            Some((_, left)) if left.is_zero() => "expired".to_owned(),
            Some((tokens, left)) => {
                let opens = tokens.scope.as_ref().map(|scope| format!("; scope {scope}")).unwrap_or_default();
                let whole = Duration::from_secs(left.as_secs());
                format!("valid for {}, until {}{opens}", format_duration(whole), time(now.unix + left))
            }
        };
        let refresh = if tokens.is_some_and(|tokens| tokens.refresh.is_some()) { "held" } else { "none" };
        let encrypted = if self.vault.is_encrypted() { ", encrypted" } else { "" };
        let mut text = format!(
            "service        {}\nclient         {}\naccess token   {access}\nrefresh token  {refresh}\n\
             slots          {} of {MAX_SLOTS} taken by this machine\n",
            self.endpoint,
            self.client.client_id(),
            account.slots.taken(),
        );
        for slot in account.slots.iter().filter(|slot| slot.state != SlotState::Free) {
            let state = match slot.state {
                SlotState::Held => "held",
                SlotState::Unanswered => "unanswered: the service may count it as taken",
                _ => "abandoned: the service may count it as taken",
            };
            text.push_str(&format!("               {} {state}\n", time(slot.asked.unix)));
        }
        text.push_str(&format!("file           {}{encrypted}\n", self.vault.path().display()));
        text
    }
}

/// Formats a time since the Unix epoch as RFC 3339.
fn time(unix: Duration) -> String {
    UNIX_EPOCH
        .checked_add(unix)
        .map_or_else(|| "never".to_owned(), |time| format_rfc3339_seconds(time).to_string())
}
