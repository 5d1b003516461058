//! Tokens and projects of a gateway, as its operator handles them with the program.

mod admin;
mod backup;
mod program;
