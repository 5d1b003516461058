//! The console: its files and status, access to them, and the page itself in a browser.

mod files;
mod handover;
mod handshake;
mod page;
mod status;
