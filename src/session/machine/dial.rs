//! Establishing a connection: token, dial, and opening message.

use std::time::Duration;

use super::Machine;
use super::connection::{Attempt, Connection, Handover, Pending};
use super::io::{ConnectionId, Output};
use crate::auth::{AccessToken, TokenGeneration};
use crate::protocol::{ClientMessage, Secret, Start};
use crate::session::settings::RequestSettings;

impl Machine {
    pub(super) fn need_token(&mut self, newer_than: Option<TokenGeneration>) {
        if !std::mem::replace(&mut self.connections.fetching, true) {
            self.outputs.push_back(Output::NeedToken { newer_than });
        }
    }

    pub(super) fn receive_token(&mut self, token: &AccessToken, now: Duration) {
        self.connections.fetching = false;
        let generation = token.generation();
        match (&self.connections.current, self.connections.handover) {
            (Connection::Attempting(Attempt::Fetching { .. }), _) => match self.tokens.refused {
                // The token was requested before the refusal.
                Some(refused) if generation <= refused => self.need_token(self.tokens.refused),
                _ => {
                    let pending = self.dial(token, false, false, now);
                    self.connections.current = Connection::Attempting(Attempt::Dialling(pending));
                }
            },
            (Connection::Live(live), Some(Handover::Attempt(motive, Attempt::Fetching { .. }))) => {
                let (id, in_force) = (live.id, live.generation);
                if motive.newer && generation <= in_force {
                    self.need_token(Some(in_force));
                } else if motive.in_band {
                    let access_token = Secret::from(token.expose().to_owned());
                    self.outputs.push_back(Output::Send(id, ClientMessage::Auth { access_token }));
                    self.connections.handover = Some(Handover::Authenticating { generation, since: now });
                } else {
                    let pending = self.dial(token, true, self.server.restart, now);
                    self.connections.handover = Some(Handover::Attempt(motive, Attempt::Dialling(pending)));
                }
            }
            _ => {}
        }
    }

    fn dial(&mut self, token: &AccessToken, is_handover: bool, new_session: bool, now: Duration) -> Pending {
        // A session that can't be resumed is replaced by one that starts at `final`.
        let new_session = new_session || !self.capabilities.resume;
        let id = self.connections.next_id();
        let (session, endpoints) = match self.server.session.as_ref().filter(|_| !new_session) {
            Some(server) => (Some(server.name.clone()), server.endpoints.clone()),
            None => (None, self.server.successors.clone()),
        };
        self.outputs.push_back(Output::Dial { id, token: token.clone(), session, endpoints });
        let token_expiry = token.lifetime().map(|lifetime| now.saturating_add(lifetime));
        Pending { id, generation: token.generation(), token_expiry, since: now, is_handover, new_session }
    }

    /// Sends `start` or `resume` on a new connection.
    pub(super) fn open(&mut self, id: ConnectionId, now: Duration) {
        let attempt = match (&mut self.connections.current, &mut self.connections.handover) {
            (Connection::Attempting(attempt), _) | (_, Some(Handover::Attempt(_, attempt))) => attempt,
            _ => return,
        };
        let new_session = match attempt {
            Attempt::Dialling(pending) if pending.id == id => {
                let new_session = pending.new_session;
                *attempt = Attempt::Opening(Pending { since: now, ..*pending });
                new_session
            }
            _ => return,
        };
        let starts = new_session || self.server.session.is_none();
        if starts && !self.capabilities.gaps {
            // The new session starts after a gap that the peer can't skip.
            self.report_gaps(self.replay.end());
        }
        let opening = match self.server.session.as_ref().filter(|_| !new_session) {
            Some(server) => ClientMessage::Resume {
                session: server.name.clone(),
                resume_key: server.resume_key.clone(),
                finals_seen: self.finals_seen(),
            },
            None => ClientMessage::Start(self.start_message()),
        };
        self.outputs.push_back(Output::Send(id, opening));
    }

    /// Returns the request for a session that starts at `final`.
    fn start_message(&self) -> Start {
        let RequestSettings { language, partials, latency, task, prompt, keywords, accuracy } =
            self.settings.request.clone();
        Start {
            sample_rate: self.settings.sample_rate,
            language,
            partials,
            latency,
            task,
            prompt,
            keywords,
            accuracy,
            origin: self.final_pos(),
            context: self.results.context.clone(),
        }
    }
}
