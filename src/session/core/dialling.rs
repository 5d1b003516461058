//! Establishing a connection: token, dial, and opening message.

use std::time::Duration;

use super::Core;
use crate::auth::{AccessToken, TokenGeneration};
use crate::protocol::{ClientMessage, Secret, Start};
use crate::session::events::{ConnectionId, Output};
use crate::session::links::{Attempt, Call, Link, Swap};

impl Core {
    pub(super) fn need_token(&mut self, newer_than: Option<TokenGeneration>) {
        if !std::mem::replace(&mut self.fetching, true) {
            self.outputs.push_back(Output::NeedToken { newer_than });
        }
    }

    pub(super) fn take_token(&mut self, token: &AccessToken, now: Duration) {
        self.fetching = false;
        let generation = token.generation();
        match (&self.link, self.swap) {
            (Link::Attempting(Attempt::Fetching { .. }), _) => match self.refused {
                // The token was requested before the refusal.
                Some(refused) if generation <= refused => self.need_token(self.refused),
                _ => {
                    let call = self.dial(token, false, false, now);
                    self.link = Link::Attempting(Attempt::Dialing(call));
                }
            },
            (Link::Live(live), Some(Swap::Attempt(motive, Attempt::Fetching { .. }))) => {
                let (id, in_force) = (live.id, live.generation);
                if motive.newer && generation <= in_force {
                    self.need_token(Some(in_force));
                } else if motive.in_band {
                    let access_token = Secret::from(token.expose().to_owned());
                    self.outputs.push_back(Output::Send(id, ClientMessage::Auth { access_token }));
                    self.swap = Some(Swap::Authenticating { generation, since: now });
                } else {
                    let call = self.dial(token, true, self.restart, now);
                    self.swap = Some(Swap::Attempt(motive, Attempt::Dialing(call)));
                }
            }
            _ => {}
        }
    }

    fn dial(&mut self, token: &AccessToken, moving: bool, anew: bool, now: Duration) -> Call {
        let id = ConnectionId(self.dialled);
        self.dialled += 1;
        let (session, endpoints) = match self.server.as_ref().filter(|_| !anew) {
            Some(server) => (Some(server.name.clone()), server.endpoints.clone()),
            None => (None, self.successors.clone()),
        };
        self.outputs.push_back(Output::Dial { id, token: token.clone(), session, endpoints });
        let token_ends = token.life().map(|life| now.saturating_add(life));
        Call { id, generation: token.generation(), token_ends, since: now, moving, anew }
    }

    /// Sends `start` or `resume` on a new connection.
    pub(super) fn open(&mut self, id: ConnectionId, now: Duration) {
        let attempt = match (&mut self.link, &mut self.swap) {
            (Link::Attempting(attempt), _) | (_, Some(Swap::Attempt(_, attempt))) => attempt,
            _ => return,
        };
        let anew = match attempt {
            Attempt::Dialing(call) if call.id == id => {
                let anew = call.anew;
                *attempt = Attempt::Opening(Call { since: now, ..*call });
                anew
            }
            _ => return,
        };
        let opening = match self.server.as_ref().filter(|_| !anew) {
            Some(server) => ClientMessage::Resume {
                session: server.name.clone(),
                resume_key: server.resume_key.clone(),
                finals_seen: self.finals_seen(),
            },
            None => ClientMessage::Start(Start {
                sample_rate: self.settings.sample_rate,
                language: self.settings.language.clone(),
                partials: self.settings.partials,
                latency: self.settings.latency,
                origin: self.final_pos(),
                context: self.context.clone(),
            }),
        };
        self.outputs.push_back(Output::Send(id, opening));
    }
}
