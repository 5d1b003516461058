//! The `voxline` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    voxline_cli::run()
}
