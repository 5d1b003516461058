//! External programs: text goes in by stdin, the answer comes out by stdout, within a deadline.
//!
//! espeak-ng and festival are under licences, or of a build, that voxline does not link; pip is a
//! separate program altogether. All three are asked the same way: without a shell, without text on the
//! command line (where it could be taken for an option), and with a deadline, so that the caller always
//! gets its thread back.

mod confinement;
mod pool;

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read, Write};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use voxline::engine::ProgramFault;
use voxline_support::clock::now;

pub(crate) use self::confinement::Limits;
pub(crate) use self::pool::{ProcessPool, Processes};

/// Largest answer of a program, in bytes. Ten minutes of 44.1 kHz speech are 53 MB; more than this is not
/// an answer.
const MAX_OUTPUT: u64 = 64 << 20;

/// Number of bytes of a program's stderr that are kept for the error message.
const MAX_COMPLAINT: u64 = 4096;

/// First wait before polling again for the end of a program that has closed its outputs. Of 300 runs of
/// espeak-ng half had ended at the first poll, and all a quarter of a millisecond later.
const LOOK_AGAIN: Duration = Duration::from_micros(100);
/// Longest wait between polls; the wait doubles each time up to this one.
const LOOK_SELDOM: Duration = Duration::from_millis(5);

/// A program, the packages that provide it, and its deadline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    /// Name of the executable.
    pub(crate) name: &'static str,
    /// Debian packages that provide the program, as `apt-get install` takes them.
    pub(crate) packages: &'static str,
    /// Time after which the program is killed.
    pub(crate) deadline: Duration,
}

/// Reason why a program gave no answer.
#[derive(Debug)]
pub(crate) enum ProgramError {
    /// The program is not installed.
    Missing { packages: &'static str },
    /// The program could not be started, or its output could not be read.
    Io(io::Error),
    /// The program was still running at its deadline, and was killed.
    Deadline(Duration),
    /// The program ended with an error. `said` is the last line that it wrote to stderr.
    Failed { status: ExitStatus, said: String },
    /// A signal ended the program, or the question did; another question may succeed. `said` is as in
    /// `Failed`.
    Crashed { status: ExitStatus, said: String },
    /// The answer was longer than [`MAX_OUTPUT`].
    TooMuch,
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProgramError::Missing { packages } => {
                write!(f, "not installed; on Debian: apt-get install {packages}")
            }
            ProgramError::Io(error) => write!(f, "cannot be run: {error}"),
            ProgramError::Deadline(limit) => write!(f, "no answer within {limit:?}; killed"),
            ProgramError::Failed { status, said } | ProgramError::Crashed { status, said } => {
                let colon = if said.is_empty() { "" } else { ": " };
                write!(f, "{status}{colon}{said}")
            }
            ProgramError::TooMuch => write!(f, "answered with more than {} MiB", MAX_OUTPUT >> 20),
        }
    }
}

impl From<ProgramError> for ProgramFault {
    fn from(error: ProgramError) -> ProgramFault {
        match error {
            ProgramError::Missing { packages } => ProgramFault::Missing { packages: packages.to_owned() },
            ProgramError::Io(error) => ProgramFault::Io(error),
            ProgramError::Deadline(limit) => ProgramFault::Deadline(limit),
            ProgramError::Failed { status, said } | ProgramError::Crashed { status, said } => {
                ProgramFault::Exit { status, message: said }
            }
            error @ ProgramError::TooMuch => ProgramFault::Answer(error.to_string()),
        }
    }
}

impl ProgramError {
    /// Attributes the end of a process that answered before to the current question.
    fn of_the_question(self) -> ProgramError {
        match self {
            ProgramError::Failed { status, said } => ProgramError::Crashed { status, said },
            other => other,
        }
    }
}

impl Program {
    /// Runs the program with `args` and `input` on stdin, and returns its stdout.
    ///
    /// Blocks for at most the deadline. Separate threads write the input and read both outputs, so a full
    /// pipe on one side cannot hold up the others. A killed program is also waited for, so that no zombie
    /// remains.
    pub(crate) fn run(&self, args: &[&str], input: &[u8]) -> Result<Vec<u8>, ProgramError> {
        self.run_as(Command::spawn, args, input)
    }

    /// Runs the program as [`run`](Program::run) does, in a confined process that may write no file.
    pub(crate) fn run_confined(
        &self,
        limits: &Limits,
        args: &[&str],
        input: &[u8],
    ) -> Result<Vec<u8>, ProgramError> {
        self.run_as(|command| limits.spawn(command, None), args, input)
    }

    fn run_as(
        &self,
        spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
        args: &[&str],
        input: &[u8],
    ) -> Result<Vec<u8>, ProgramError> {
        let deadline = now() + self.deadline;
        let mut child = spawn(&mut self.command(args)).map_err(|error| self.unstarted(error))?;
        let mut stdin = child.stdin.take().expect("stdin was asked to be a pipe");
        let stdout = child.stdout.take().expect("stdout was asked to be a pipe");
        let stderr = child.stderr.take().expect("stderr was asked to be a pipe");
        let input = input.to_vec();
        // A program may end before it has read all its input; its status shows whether that was a
        // failure.
        thread::spawn(move || stdin.write_all(&input));
        let outputs = listen(stdout, stderr).recv_timeout(self.deadline);
        let status = ended(&mut child, deadline).map_err(ProgramError::Io)?;
        match (outputs, status) {
            (Ok((Ok(stdout), _)), _) if stdout.len() as u64 > MAX_OUTPUT => Err(ProgramError::TooMuch),
            (Ok((Ok(stdout), _)), Some(status)) if status.success() => Ok(stdout),
            (Ok((Err(error), _)), _) => Err(ProgramError::Io(error)),
            (Ok((_, stderr)), Some(status)) => {
                let said = last_line(&stderr);
                // A status without a code is that of a signal.
                Err(if status.code().is_none() {
                    ProgramError::Crashed { status, said }
                } else {
                    ProgramError::Failed { status, said }
                })
            }
            (_, None) | (Err(RecvTimeoutError::Timeout), _) => Err(ProgramError::Deadline(self.deadline)),
            (Err(RecvTimeoutError::Disconnected), _) => {
                Err(ProgramError::Io(io::Error::other("the thread that reads it died")))
            }
        }
    }

    /// Returns the command with pipes for stdin, stdout and stderr.
    fn command<T: AsRef<OsStr>>(&self, args: &[T]) -> Command {
        let mut command = Command::new(self.name);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn unstarted(&self, error: io::Error) -> ProgramError {
        match error.kind() {
            io::ErrorKind::NotFound => ProgramError::Missing { packages: self.packages },
            _ => ProgramError::Io(error),
        }
    }
}

/// Reads both outputs to their end, and then sends them.
fn listen(mut stdout: ChildStdout, mut stderr: ChildStderr) -> Receiver<(io::Result<Vec<u8>>, Vec<u8>)> {
    let (sender, outputs) = mpsc::channel();
    let complaint = thread::spawn(move || {
        let mut kept = Vec::new();
        let _ = stderr.by_ref().take(MAX_COMPLAINT).read_to_end(&mut kept);
        let _ = io::copy(&mut stderr, &mut io::sink());
        kept
    });
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.by_ref().take(MAX_OUTPUT + 1).read_to_end(&mut bytes);
        // A program that writes beyond the limit gets a broken pipe and ends.
        drop(stdout);
        // The receiver is dropped after the deadline.
        let _ = sender.send((read.map(|_| bytes), complaint.join().unwrap_or_default()));
    });
    outputs
}

/// Returns the exit status of a program; `None` if it had not ended by the deadline, and was killed.
#[expect(clippy::disallowed_methods, reason = "std has no wait for a process that ends with a deadline")]
fn ended(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let mut pause = LOOK_AGAIN;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if now() >= deadline {
            let _ = child.kill();
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (2 * pause).min(LOOK_SELDOM);
    }
}

/// Returns the last non-blank line, printable and short, for use in a one-line error message.
fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("");
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHELL: Program = Program { name: "sh", packages: "dash", deadline: Duration::from_secs(20) };

    #[test]
    fn input_larger_than_any_pipe_comes_back_whole() {
        let cat = Program { name: "cat", packages: "coreutils", deadline: Duration::from_secs(20) };
        let input: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        assert_eq!(cat.run(&[], &input).unwrap(), input);
    }

    #[test]
    fn input_that_nobody_reads_is_no_error() {
        assert_eq!(SHELL.run(&["-c", "echo done"], &vec![b'x'; 1_000_000]).unwrap(), b"done\n");
    }

    /// Runs an endless command, and then looks for its process.
    fn assert_is_killed_at_its_deadline(endless: &str) {
        let hung = Program { deadline: Duration::from_millis(500), ..SHELL };
        // `exec` makes the hanging process the one that is killed; before that, the shell writes its id
        // to a file.
        let directory = tempfile::tempdir().unwrap();
        let id = directory.path().join("id");
        let script = format!("echo $$ > {}; exec {endless}", id.display());
        let error = hung.run(&["-c", &script], b"").unwrap_err();
        assert!(matches!(error, ProgramError::Deadline(_)), "{error}");
        let id = std::fs::read_to_string(&id).expect("half a second was not enough for a shell to start");
        assert!(!std::path::Path::new("/proc").join(id.trim()).exists(), "process {id} is still there");
    }

    #[test]
    fn a_program_that_never_ends_is_killed_at_its_deadline_and_leaves_no_zombie() {
        assert_is_killed_at_its_deadline("tail -f /dev/null");
    }

    #[test]
    fn a_program_that_closes_its_outputs_and_lingers_is_killed_at_its_deadline() {
        assert_is_killed_at_its_deadline("tail -f /dev/null >/dev/null 2>&1");
    }

    #[test]
    fn a_missing_program_names_the_package_that_brings_it() {
        let absent = Program { name: "voxline-no-such-program", packages: "some-package", ..SHELL };
        let error = absent.run(&[], b"").unwrap_err();
        assert_eq!(error.to_string(), "not installed; on Debian: apt-get install some-package");
    }

    #[test]
    fn a_failure_carries_the_status_and_the_last_line_said() {
        let error = SHELL.run(&["-c", "echo first >&2; echo bad voice >&2; exit 3"], b"").unwrap_err();
        assert_eq!(error.to_string(), "exit status: 3: bad voice");
    }

    #[test]
    fn an_endless_answer_is_cut_off() {
        let error = SHELL.run(&["-c", "exec cat /dev/zero"], b"").unwrap_err();
        assert!(matches!(error, ProgramError::TooMuch), "{error}");
    }
}
