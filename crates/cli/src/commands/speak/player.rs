//! Playback through the first audio player that is installed.

use std::io::{self, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::exit_code::{CliError, Exit};

/// Programs that play raw PCM from standard input, in the order they are tried: PipeWire, PulseAudio, ALSA.
const PLAYERS: &[(&str, &[&str])] = &[
    ("pw-play", &["--raw", "--format=s16", "--channels=1", "--rate", "RATE", "-"]),
    ("paplay", &["--raw", "--format=s16le", "--channels=1", "--rate", "RATE"]),
    ("aplay", &["-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", "RATE"]),
];

/// Interval between checks whether the player has finished.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A running player.
pub(super) struct Player {
    program: &'static str,
    child: Arc<Mutex<Child>>,
    input: ChildStdin,
}

/// A handle that stops a player from another task.
pub(super) struct Stopper(Arc<Mutex<Child>>);

impl Player {
    /// Starts the first available player, for mono 16-bit PCM.
    pub(super) fn start(rate: u32) -> Result<Player, CliError> {
        let rate = rate.to_string();
        for (program, arguments) in PLAYERS {
            let arguments =
                arguments.iter().map(|argument| if *argument == "RATE" { &rate } else { *argument });
            let mut player = Command::new(program);
            player.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            match player.spawn() {
                Ok(mut child) => {
                    let input = child.stdin.take().expect("its input is piped");
                    return Ok(Player { program, child: Arc::new(Mutex::new(child)), input });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(CliError::output(program, &error)),
            }
        }
        let names: Vec<&str> = PLAYERS.iter().map(|(program, _)| *program).collect();
        let reason = format!("no player found ({}): write to a file with --output", names.join(", "));
        Err(CliError::new(Exit::Output, reason))
    }

    pub(super) fn stopper(&self) -> Stopper {
        Stopper(self.child.clone())
    }

    /// Writes PCM. Blocks until the player has room, which sets the pace.
    pub(super) fn write(&mut self, pcm: &[u8]) -> Result<(), CliError> {
        match self.input.write_all(pcm) {
            Ok(()) => Ok(()),
            // The player's exit status is more informative than the write error.
            Err(error) => Err(ended(self.program, &self.child)
                .err()
                .unwrap_or_else(|| CliError::output(self.program, &error))),
        }
    }

    /// Waits until everything is played.
    pub(super) fn finish(self) -> Result<(), CliError> {
        let Player { program, child, input } = self;
        drop(input);
        ended(program, &child)
    }
}

impl Stopper {
    pub(super) fn stop(&self) {
        // The player may have ended already.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }
}

/// Waits for the player to end, without holding the lock during the wait.
#[expect(clippy::disallowed_methods, reason = "a wait for the process would lock out who stops it")]
fn ended(program: &str, child: &Mutex<Child>) -> Result<(), CliError> {
    loop {
        let status = child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
        match status.map_err(|error| CliError::output(program, &error))? {
            None => thread::sleep(LOOK_AGAIN),
            Some(status) if status.success() => return Ok(()),
            Some(status) => {
                let reason = format!("{program}: {status}; is there a sound device?");
                return Err(CliError::new(Exit::Output, reason));
            }
        }
    }
}
