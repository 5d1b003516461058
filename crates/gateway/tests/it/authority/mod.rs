//! The life of tokens at the gateway: who is granted them, what they give access to, how they end, and what
//! survives a crash.

mod audit;
mod budgets;
mod crashes;
mod documented;
mod files;
mod limits;
mod outage;
mod revocation;
mod rotation;
mod scopes;
