//! The console without a browser: its files, its handshake and its figures.

mod files;
mod handshake;
mod status;
