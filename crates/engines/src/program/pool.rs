//! A pool of processes that are kept running, since they take longer to start than to answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::{Limits, MAX_COMPLAINT, MAX_OUTPUT, Program, ProgramError, ended, last_line};
use voxline_support::clock::now;

/// Longest time that a process may take to end, and to report the reason, after it has closed its output.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// A program that takes questions as lines on stdin and answers as lines on stdout.
///
/// There are as many processes as concurrent questions, up to a bound. A process that dies is replaced;
/// one that does not answer in time is killed, and all are killed when the pool is dropped. If voxline
/// itself is killed, the processes read the end of their stdin, and end. Each process is confined, and
/// runs in its own temporary directory, the only one that it may write to.
#[derive(Debug)]
pub(crate) struct ProcessPool {
    pub(crate) program: Program,
    pub(crate) args: Vec<String>,
    /// Limits of one process, over all its answers.
    pub(crate) limits: Limits,
    /// First question to each process; the answer ends with [`end_line`](ProcessPool::end_line), too.
    pub(crate) greeting: String,
    /// Last line of an answer.
    pub(crate) end_line: &'static str,
    /// Largest number of processes at once. Further callers wait.
    pub(crate) max_processes: usize,
    /// Number of answers after which a process is replaced, so that its leaks do not add up.
    pub(crate) max_answers: usize,
    pub(crate) processes: Processes,
}

/// Processes of one program.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    state: Mutex<PoolState>,
    /// Notified when a process was given back, or is gone.
    freed: Condvar,
}

#[derive(Debug, Default)]
struct PoolState {
    idle: Vec<Process>,
    busy: usize,
}

impl ProcessPool {
    /// Returns the lines that answer `question`, which ends with a line end. Blocks until earlier callers
    /// are done, and then for the deadline at most for each of these: a process that has long been dead,
    /// the greeting of a new one, the answer.
    pub(crate) fn ask(&self, question: &str) -> Result<Vec<String>, ProgramError> {
        self.ask_with_files(question, |_| Ok(()), |_, lines| Ok(lines))
    }

    /// Asks as [`ask`](ProcessPool::ask) does, about files. `put` writes the files into the directory
    /// where the process runs, and `get` reads the answer from there. Each sees the files that earlier
    /// questions left there.
    pub(crate) fn ask_with_files<T>(
        &self,
        question: &str,
        put: impl Fn(&Path) -> io::Result<()>,
        get: impl FnOnce(&Path, Vec<String>) -> io::Result<T>,
    ) -> Result<T, ProgramError> {
        let mut slot = Slot::take(&self.processes, self.max_processes);
        let answered = slot.idle.take().and_then(|mut process| {
            match put(process.directory.path())
                .map_err(ProgramError::Io)
                .and_then(|()| self.exchange(&mut process, question))
            {
                // The process may have died long before this question; then another process can answer.
                Err(ProgramError::Failed { .. }) => None,
                answer => Some(answer.map(|lines| (process, lines))),
            }
        });
        let (process, lines) = match answered {
            Some(answered) => answered?,
            None => {
                let mut process = Process::start(self)?;
                self.exchange(&mut process, &self.greeting)?;
                put(process.directory.path()).map_err(ProgramError::Io)?;
                let lines = self.exchange(&mut process, question).map_err(ProgramError::of_the_question)?;
                (process, lines)
            }
        };
        let answer = get(process.directory.path(), lines).map_err(ProgramError::Io);
        slot.give_back(self.unless_worn(process));
        answer
    }

    fn exchange(&self, process: &mut Process, question: &str) -> Result<Vec<String>, ProgramError> {
        // If the process died, reading its answer fails.
        let _ = process.questions.send(question.to_owned());
        match process.answers.recv_timeout(self.program.deadline) {
            Ok(answer) => {
                process.answered += 1;
                answer
            }
            Err(RecvTimeoutError::Timeout) => Err(ProgramError::Deadline(self.program.deadline)),
            Err(RecvTimeoutError::Disconnected) => Err(process.exit_error()),
        }
    }

    fn unless_worn(&self, process: Process) -> Option<Process> {
        (process.answered < self.max_answers).then_some(process)
    }
}

/// A right to use one process; an idle process comes with it, if there is one.
struct Slot<'a> {
    processes: &'a Processes,
    idle: Option<Process>,
    back: Option<Process>,
}

impl Slot<'_> {
    fn take(processes: &Processes, max_processes: usize) -> Slot<'_> {
        let mut state = processes.lock();
        while state.busy >= max_processes {
            state = processes.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.busy += 1;
        Slot { processes, idle: state.idle.pop(), back: None }
    }

    fn give_back(&mut self, process: Option<Process>) {
        self.back = process;
    }
}

/// Gives the slot back whatever the outcome of the question, so that the next one can be asked.
impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut state = self.processes.lock();
        state.busy -= 1;
        state.idle.extend(self.back.take());
        drop(state);
        self.processes.freed.notify_one();
    }
}

impl Processes {
    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running process.
#[derive(Debug)]
struct Process {
    child: Child,
    /// Working directory of the process. The directory is removed after the process.
    directory: TempDir,
    questions: Sender<String>,
    /// Closed once there are no further answers.
    answers: Receiver<Result<Vec<String>, ProgramError>>,
    answered: usize,
    /// End of the process's stderr, sent once the process has closed it.
    stderr_end: Receiver<Vec<u8>>,
}

impl Process {
    fn start(pool: &ProcessPool) -> Result<Process, ProgramError> {
        let directory = tempfile::tempdir().map_err(ProgramError::Io)?;
        let mut command = pool.program.command(&pool.args);
        command.current_dir(&directory).env("TMPDIR", directory.path());
        let mut child = pool
            .limits
            .spawn(&mut command, Some(directory.path()))
            .map_err(|error| pool.program.unstarted(error))?;
        let stdin = child.stdin.take().expect("stdin was asked to be a pipe");
        let stdout = child.stdout.take().expect("stdout was asked to be a pipe");
        let stderr = child.stderr.take().expect("stderr was asked to be a pipe");
        let (questions, asked) = mpsc::channel();
        let (answered, answers) = mpsc::channel();
        let (sender, stderr_end) = mpsc::channel();
        // The threads keep a full pipe from holding up the caller. Each ends with the process.
        thread::spawn(move || write_questions(stdin, asked));
        let end_line = pool.end_line;
        thread::spawn(move || read_answers(BufReader::new(stdout), end_line, &answered));
        thread::spawn(move || keep_stderr(stderr, &sender));
        Ok(Process { child, directory, questions, answers, answered: 0, stderr_end })
    }

    /// Returns the reason why a process answers no more.
    fn exit_error(&mut self) -> ProgramError {
        match ended(&mut self.child, now() + EXIT_TIMEOUT) {
            Ok(Some(status)) => {
                let said = self.stderr_end.recv_timeout(EXIT_TIMEOUT).unwrap_or_default();
                ProgramError::Failed { status, said: last_line(&said) }
            }
            Ok(None) => ProgramError::Deadline(EXIT_TIMEOUT),
            Err(error) => ProgramError::Io(error),
        }
    }
}

/// Ends the process, so that it neither outlives its slot nor becomes a zombie.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes questions until there are no more, or the process stops reading.
fn write_questions(mut stdin: ChildStdin, asked: Receiver<String>) {
    for question in asked {
        if stdin.write_all(question.as_bytes()).and_then(|()| stdin.flush()).is_err() {
            break;
        }
    }
}

/// Sends the lines before each `end_line`, until the output ends, or one answer is too long.
fn read_answers(
    mut stdout: impl BufRead,
    end_line: &str,
    answered: &Sender<Result<Vec<String>, ProgramError>>,
) {
    let (mut lines, mut length) = (Vec::new(), 0);
    loop {
        let mut line = Vec::new();
        let read = stdout.by_ref().take(MAX_OUTPUT - length).read_until(b'\n', &mut line);
        length += line.len() as u64;
        if length >= MAX_OUTPUT {
            let _ = answered.send(Err(ProgramError::TooMuch));
            return;
        }
        if !read.is_ok_and(|read| read > 0) || !line.ends_with(b"\n") {
            break;
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line != end_line {
            lines.push(line);
            continue;
        }
        if answered.send(Ok(std::mem::take(&mut lines))).is_err() {
            return;
        }
        length = 0;
    }
}

/// Sends the end of stderr, once stderr is closed.
fn keep_stderr(mut stderr: impl Read, sender: &Sender<Vec<u8>>) {
    let (mut bytes, mut said) = ([0; 512], Vec::new());
    while let Ok(read @ 1..) = stderr.read(&mut bytes) {
        said.extend_from_slice(&bytes[..read]);
        let over = said.len().saturating_sub(MAX_COMPLAINT as usize);
        said.drain(..over);
    }
    // The receiver may be gone, since the cause of death is rarely needed.
    let _ = sender.send(said);
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const SHELL: Program = Program { name: "sh", packages: "dash", deadline: Duration::from_secs(20) };

    /// Returns a pool of shells that run `script` for each line that they read.
    fn shells(script: &str, max_processes: usize) -> ProcessPool {
        let loop_ = format!("while read -r line; do {script}; echo done; done");
        ProcessPool {
            program: SHELL,
            args: vec!["-c".to_owned(), loop_],
            limits: Limits { cpu_seconds: 60, memory: 1 << 30 },
            greeting: "hello\n".to_owned(),
            end_line: "done",
            max_processes,
            // No process is replaced, however unevenly the questions are distributed.
            max_answers: usize::MAX,
            processes: Processes::default(),
        }
    }

    fn ask(pool: &ProcessPool) -> String {
        pool.ask("x\n").unwrap().concat()
    }

    #[test]
    fn one_process_answers_again_and_again_and_ends_with_its_owner() {
        let shell = shells("echo $$", 4);
        let id = ask(&shell);
        for _ in 0..10 {
            assert_eq!(ask(&shell), id);
        }
        drop(shell);
        assert!(!Path::new("/proc").join(id).exists());
    }

    #[test]
    fn a_process_that_died_is_replaced_and_one_that_dies_of_a_question_is_an_error() {
        let shell = shells("echo $$", 4);
        let id = ask(&shell);
        assert!(Command::new("kill").args(["-9", &id]).status().unwrap().success());
        assert_ne!(ask(&shell), id);

        let mortal = shells("if [ $line = x ]; then echo no such vowel >&2; exit 3; fi", 4);
        assert_eq!(mortal.ask("x\n").unwrap_err().to_string(), "exit status: 3: no such vowel");
        assert_eq!(mortal.ask("y\n").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_process_that_hangs_is_killed_and_the_next_question_is_answered() {
        let mut shell = shells("echo $$; if [ $line = x ]; then exec tail -f /dev/null; fi", 1);
        shell.program.deadline = Duration::from_secs(2);
        let id = shell.ask("y\n").unwrap().concat();
        assert!(matches!(shell.ask("x\n"), Err(ProgramError::Deadline(_))));
        assert!(!Path::new("/proc").join(id).exists());
        assert!(shell.ask("y\n").is_ok());
    }

    #[test]
    fn there_are_never_more_processes_than_may_be_and_everybody_is_answered() {
        let shell = shells("echo $$", 2);
        let ids = Mutex::new(std::collections::BTreeSet::new());
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let id = ask(&shell);
                        ids.lock().unwrap().insert(id);
                    }
                });
            }
        });
        assert!((1..=2).contains(&ids.into_inner().unwrap().len()));
    }

    #[test]
    fn a_worn_process_is_replaced() {
        let mut shell = shells("echo $$", 1);
        // The greeting counts.
        shell.max_answers = 3;
        let ids: Vec<String> = (0..6).map(|_| ask(&shell)).collect();
        assert!(ids[0] == ids[1] && ids[2] == ids[3] && ids[1] != ids[2], "{ids:?}");
    }

    #[test]
    fn an_endless_answer_is_cut_off_and_a_missing_program_is_named() {
        let endless = shells("if [ $line = x ]; then exec cat /dev/zero; fi", 1);
        assert!(matches!(endless.ask("x\n"), Err(ProgramError::TooMuch)));
        let mut absent = shells("", 1);
        absent.program = Program { name: "voxline-no-such-program", packages: "some-package", ..SHELL };
        let error = absent.ask("x\n").unwrap_err();
        assert_eq!(error.to_string(), "not installed; on Debian: apt-get install some-package");
    }
}
