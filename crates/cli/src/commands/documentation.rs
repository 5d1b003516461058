//! Documentation that is made from the definition of the command line: examples in the help, completions of
//! shells (`voxline completions`), and manual pages (`voxline man`).

use std::fs;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::command;
use crate::exit_code::{CliError, Exit};
use crate::terminal::say;

/// Examples, in the order in which the help of each command shows those that begin with its name.
const EXAMPLES: &str = include_str!("examples.txt");

#[derive(Args)]
pub(crate) struct Completions {
    /// Shell whose completions to print
    shell: Shell,
}

#[derive(Args)]
pub(crate) struct Man {
    /// Directory for the pages, one per command; created if missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Completions {
    pub(crate) fn run(self) -> Result<Exit, CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command(), "voxline", &mut script);
        say(&String::from_utf8(script).expect("the names of flags are text"))?;
        Ok(Exit::Done)
    }
}

impl Man {
    pub(crate) fn run(self) -> Result<Exit, CliError> {
        let written = fs::create_dir_all(&self.directory)
            .and_then(|()| clap_mangen::generate_to(command(), &self.directory));
        written.map_err(|error| CliError::output(&self.directory.display().to_string(), &error))?;
        Ok(Exit::Done)
    }
}

/// Adds its examples to the help of every command.
pub(crate) fn with_examples(command: Command) -> Command {
    let name = command.get_name().to_owned();
    command.mut_subcommands(|subcommand| add_examples(subcommand, &name))
}

/// Adds its examples to the help of a command whose name `prefix` begins, and to its subcommands.
fn add_examples(command: Command, prefix: &str) -> Command {
    let name = format!("{prefix} {}", command.get_name());
    let examples = EXAMPLES.lines().filter(|line| line.contains(&name)).collect::<Vec<_>>();
    let shown = match examples.len() {
        0 => String::new(),
        _ => format!("Examples:\n  {}", examples.join("\n  ")),
    };
    command.after_help(shown).mut_subcommands(|subcommand| add_examples(subcommand, &name))
}
