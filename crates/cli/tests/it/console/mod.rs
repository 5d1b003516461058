//! The console: what it serves and to whom, and the page itself in a browser.

mod files;
mod handover;
mod handshake;
mod page;
mod status;
