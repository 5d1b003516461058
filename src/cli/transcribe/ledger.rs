//! `--ledger`: the account of each session, on standard error.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::audio::FramePos;
use crate::cli::one_line;
use crate::session::Ledger;
use crate::spool::Recovered;
use crate::transcript::TranscriptEvent;

/// How ledgers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// A sentence.
    Text,
    /// A JSON object.
    Json,
}

#[derive(Serialize)]
struct Line<'a> {
    recording: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    speaker: Option<&'a str>,
    #[serde(flatten)]
    ledger: &'a Ledger,
}

impl Form {
    /// Shows the ledger of the session of `speaker` in `recording`, in one line.
    pub(super) fn show(self, recording: &str, speaker: Option<&str>, ledger: &Ledger) {
        let line = match (self, speaker) {
            (Form::Json, _) => serde_json::to_string(&Line { recording, speaker, ledger })
                .expect("a ledger is strings and numbers"),
            (Form::Text, Some(speaker)) => format!("{recording}, {speaker}: {ledger}"),
            (Form::Text, None) => format!("{recording}: {ledger}"),
        };
        // Where standard error is closed nobody wants it.
        let _ = writeln!(io::stderr(), "{}", one_line(&line));
    }
}

/// The ledger of a session that an earlier process brought to its end.
pub(super) fn of(recovered: &Recovered) -> Ledger {
    let checkpoint = &recovered.checkpoint;
    Ledger {
        accepted: recovered.accepted.0,
        recognised: checkpoint.final_.0.saturating_sub(checkpoint.gaps),
        gaps: checkpoint.gaps,
        finals: checkpoint.next_index,
        ..Ledger::default()
    }
}

/// Adds what a session told.
pub(super) fn count(ledger: &mut Ledger, event: &TranscriptEvent) {
    match event {
        TranscriptEvent::Final(segment) => {
            ledger.recognised += segment.range.len();
            ledger.finals += 1;
        }
        TranscriptEvent::Gap { range } => ledger.gaps += range.len(),
        TranscriptEvent::Reconnected { .. } => ledger.reconnects += 1,
        TranscriptEvent::Partial { .. } | TranscriptEvent::End { .. } => {}
    }
}

/// The ledger of a session that was broken off when it had been handed the audio up to `end`, by what it told.
pub(super) fn broken_off(told: Ledger, end: FramePos) -> Ledger {
    let accounted = told.recognised + told.gaps;
    let accepted = end.0.max(accounted);
    Ledger { accepted, unfinished: accepted - accounted, ..told }
}
