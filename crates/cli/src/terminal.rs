//! Standard input and output: results, errors, and what must not be mixed there.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use crate::config::Config;
use crate::exit_code::{CliError, Exit};

/// Reports the error to the user in one line.
pub(crate) fn complain(error: &CliError) {
    if error.unread {
        return;
    }
    // If standard error is closed too, the exit code remains.
    let _ = writeln!(io::stderr(), "voxline: {}", one_line(&error.to_string()));
}

/// Replaces control characters by spaces, so that a file name can't break the line.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Refuses to read both a secret and the input from standard input.
pub(crate) fn keep_stdin_apart(config: &Config, is_work: bool) -> Result<(), CliError> {
    if is_work && config.reads_stdin() {
        return Err(CliError::new(Exit::Setup, "standard input can't be both a secret and the input"));
    }
    Ok(())
}

/// Writes a command's result to standard output.
pub(crate) fn say(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| CliError::stdout(&error))
}

/// Refuses to write binary data to a terminal, which would interpret control sequences in it.
pub(crate) fn keep_binary_off_terminal(output: &Path) -> Result<(), CliError> {
    if output.as_os_str() == "-" && io::stdout().is_terminal() {
        let reason = "standard output is a terminal: name a file with --output, or send the audio to a pipe";
        return Err(CliError::new(Exit::Setup, reason));
    }
    Ok(())
}

/// Formats a number of bytes in megabytes.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
