//! The flag `--ledger`: an account of each session, on standard error.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::terminal::one_line;
use voxline::session::Ledger;

/// Output format of ledgers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// A sentence
    Text,
    /// A JSON object
    Json,
}

#[derive(Serialize)]
struct LedgerRecord<'a> {
    recording: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    speaker: Option<&'a str>,
    #[serde(flatten)]
    ledger: &'a Ledger,
}

impl Form {
    /// Prints the ledger of the session of `speaker` in `recording`, on one line.
    pub(super) fn show(self, recording: &str, speaker: Option<&str>, ledger: &Ledger) {
        let line = match (self, speaker) {
            (Form::Json, _) => serde_json::to_string(&LedgerRecord { recording, speaker, ledger })
                .expect("a ledger is strings and numbers"),
            (Form::Text, Some(speaker)) => format!("{recording}, {speaker}: {ledger}"),
            (Form::Text, None) => format!("{recording}: {ledger}"),
        };
        // If standard error is closed, the ledger has no reader.
        let _ = writeln!(io::stderr(), "{}", one_line(&line));
    }
}
