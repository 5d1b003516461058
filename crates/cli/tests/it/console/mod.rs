//! The console: its files and status, access to them, and the page itself in a browser.

mod handover;
mod page;
mod snippets;
