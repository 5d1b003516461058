//! Programs that are kept running, since they take longer to start than to answer.

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

/// How long a process that has closed its output may take to end, and to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A program that is asked by lines on stdin and answers by lines on stdout.
///
/// As many processes run as are asked at once, up to a bound. One that dies is replaced; one that doesn't answer in
/// time is killed, and so are all when this is dropped. Should voxline itself be killed, they read the end of their
/// stdin, and end. Each is confined, and runs in a temporary directory of its own, the only one where it may
/// write.
#[derive(Debug)]
pub(crate) struct WarmProgram {
    pub(crate) program: Program,
    pub(crate) args: Vec<String>,
    /// Of one process, over all its answers.
    pub(crate) limits: Limits,
    /// What each process is told first; it answers with [`last`](WarmProgram::last), too.
    pub(crate) greeting: String,
    /// What the last line of an answer is.
    pub(crate) last: &'static str,
    /// The most processes at once. Who asks beyond that waits.
    pub(crate) most: usize,
    /// After so many answers a process is replaced, lest what it leaks adds up.
    pub(crate) answers: usize,
    pub(crate) processes: Processes,
}

/// Those of one program.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    pool: Mutex<Pool>,
    /// One was given back, or is gone.
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Process>,
    busy: usize,
}

impl WarmProgram {
    /// Returns the lines that answer `question`, which ends with a line's end. Blocks for those who asked
    /// before, and then for the deadline at most for each of these: a process that has long been dead, a new
    /// one's greeting, the answer.
    pub(crate) fn ask(&self, question: &str) -> Result<Vec<String>, ProgramError> {
        self.ask_with_files(question, |_| Ok(()), |_, lines| Ok(lines))
    }

    /// As [`ask`](WarmProgram::ask), about files: `put` writes them into the process's directory, where it
    /// runs, and `get` reads what the answer is. Each sees what earlier questions left there.
    pub(crate) fn ask_with_files<T>(
        &self,
        question: &str,
        put: impl Fn(&Path) -> io::Result<()>,
        get: impl FnOnce(&Path, Vec<String>) -> io::Result<T>,
    ) -> Result<T, ProgramError> {
        let mut place = Place::take(&self.processes, self.most);
        let answered = place.idle.take().and_then(|mut process| {
            match put(process.directory.path())
                .map_err(ProgramError::Io)
                .and_then(|()| self.exchange(&mut process, question))
            {
                // It may have died long before this question: then another process knows the answer.
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
        place.give_back(self.unless_worn(process));
        answer
    }

    fn exchange(&self, process: &mut Process, question: &str) -> Result<Vec<String>, ProgramError> {
        // A process that died shows in its answer.
        let _ = process.questions.send(question.to_owned());
        match process.answers.recv_timeout(self.program.deadline) {
            Ok(answer) => {
                process.answered += 1;
                answer
            }
            Err(RecvTimeoutError::Timeout) => Err(ProgramError::Deadline(self.program.deadline)),
            Err(RecvTimeoutError::Disconnected) => Err(process.cause_of_death()),
        }
    }

    fn unless_worn(&self, process: Process) -> Option<Process> {
        (process.answered < self.answers).then_some(process)
    }
}

/// A right to a process; an idle one comes with it, if there is one.
struct Place<'a> {
    processes: &'a Processes,
    idle: Option<Process>,
    back: Option<Process>,
}

impl Place<'_> {
    fn take(processes: &Processes, most: usize) -> Place<'_> {
        let mut pool = processes.lock();
        while pool.busy >= most {
            pool = processes.freed.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
        pool.busy += 1;
        Place { processes, idle: pool.idle.pop(), back: None }
    }

    fn give_back(&mut self, process: Option<Process>) {
        self.back = process;
    }
}

/// Whatever became of the question, the next may be asked.
impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut pool = self.processes.lock();
        pool.busy -= 1;
        pool.idle.extend(self.back.take());
        drop(pool);
        self.processes.freed.notify_one();
    }
}

impl Processes {
    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running one.
#[derive(Debug)]
struct Process {
    child: Child,
    /// Where it runs. Removed after it.
    directory: TempDir,
    questions: Sender<String>,
    /// Closed once there will be none.
    answers: Receiver<Result<Vec<String>, ProgramError>>,
    answered: usize,
    /// The end of what it wrote to stderr, once it has closed that.
    said: Receiver<Vec<u8>>,
}

impl Process {
    fn start(warm: &WarmProgram) -> Result<Process, ProgramError> {
        let directory = tempfile::tempdir().map_err(ProgramError::Io)?;
        let mut command = warm.program.command(&warm.args);
        command.current_dir(&directory).env("TMPDIR", directory.path());
        let mut child = warm
            .limits
            .spawn(&mut command, Some(directory.path()))
            .map_err(|error| warm.program.unstarted(error))?;
        let stdin = child.stdin.take().expect("stdin was asked to be a pipe");
        let stdout = child.stdout.take().expect("stdout was asked to be a pipe");
        let stderr = child.stderr.take().expect("stderr was asked to be a pipe");
        let (questions, asked) = mpsc::channel();
        let (answered, answers) = mpsc::channel();
        let (complained, said) = mpsc::channel();
        // Threads of their own, so that no full pipe can hold up the caller. Each ends with the process.
        thread::spawn(move || tell(stdin, asked));
        let last = warm.last;
        thread::spawn(move || listen(BufReader::new(stdout), last, &answered));
        thread::spawn(move || overhear(stderr, &complained));
        Ok(Process { child, directory, questions, answers, answered: 0, said })
    }

    /// Why a process that answers no more does not.
    fn cause_of_death(&mut self) -> ProgramError {
        match ended(&mut self.child, now() + LAST_WORDS) {
            Ok(Some(status)) => {
                let said = self.said.recv_timeout(LAST_WORDS).unwrap_or_default();
                ProgramError::Failed { status, said: last_line(&said) }
            }
            Ok(None) => ProgramError::Deadline(LAST_WORDS),
            Err(error) => ProgramError::Io(error),
        }
    }
}

/// No process outlives its place, and none becomes a zombie.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes questions until there are no more, or nobody reads them.
fn tell(mut stdin: ChildStdin, asked: Receiver<String>) {
    for question in asked {
        if stdin.write_all(question.as_bytes()).and_then(|()| stdin.flush()).is_err() {
            break;
        }
    }
}

/// Sends the lines before each line `last`, until there are no more, or too many of one answer.
fn listen(mut stdout: impl BufRead, last: &str, answered: &Sender<Result<Vec<String>, ProgramError>>) {
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
        if line != last {
            lines.push(line);
            continue;
        }
        if answered.send(Ok(std::mem::take(&mut lines))).is_err() {
            return;
        }
        length = 0;
    }
}

/// Sends the end of what is written to stderr, once all is.
fn overhear(mut stderr: impl Read, complained: &Sender<Vec<u8>>) {
    let (mut bytes, mut said) = ([0; 512], Vec::new());
    while let Ok(read @ 1..) = stderr.read(&mut bytes) {
        said.extend_from_slice(&bytes[..read]);
        let over = said.len().saturating_sub(MAX_COMPLAINT as usize);
        said.drain(..over);
    }
    // Few ask how a process died.
    let _ = complained.send(said);
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const SHELL: Program = Program { name: "sh", packages: "dash", deadline: Duration::from_secs(20) };

    /// A shell that runs `script` for each line it is told.
    fn warm(script: &str, most: usize) -> WarmProgram {
        let loop_ = format!("while read -r line; do {script}; echo done; done");
        WarmProgram {
            program: SHELL,
            args: vec!["-c".to_owned(), loop_],
            limits: Limits { cpu_seconds: 60, memory: 1 << 30 },
            greeting: "hello\n".to_owned(),
            last: "done",
            most,
            // However unevenly the questions fall to its processes, none is worn.
            answers: usize::MAX,
            processes: Processes::default(),
        }
    }

    fn ask(warm: &WarmProgram) -> String {
        warm.ask("x\n").unwrap().concat()
    }

    #[test]
    fn one_process_answers_again_and_again_and_ends_with_its_owner() {
        let shell = warm("echo $$", 4);
        let id = ask(&shell);
        for _ in 0..10 {
            assert_eq!(ask(&shell), id);
        }
        drop(shell);
        assert!(!Path::new("/proc").join(id).exists());
    }

    #[test]
    fn a_process_that_died_is_replaced_and_one_that_dies_of_a_question_is_an_error() {
        let shell = warm("echo $$", 4);
        let id = ask(&shell);
        assert!(Command::new("kill").args(["-9", &id]).status().unwrap().success());
        assert_ne!(ask(&shell), id);

        let mortal = warm("if [ $line = x ]; then echo no such vowel >&2; exit 3; fi", 4);
        assert_eq!(mortal.ask("x\n").unwrap_err().to_string(), "exit status: 3: no such vowel");
        assert_eq!(mortal.ask("y\n").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_process_that_hangs_is_killed_and_the_next_question_is_answered() {
        let mut shell = warm("echo $$; if [ $line = x ]; then exec tail -f /dev/null; fi", 1);
        shell.program.deadline = Duration::from_secs(2);
        let id = shell.ask("y\n").unwrap().concat();
        assert!(matches!(shell.ask("x\n"), Err(ProgramError::Deadline(_))));
        assert!(!Path::new("/proc").join(id).exists());
        assert!(shell.ask("y\n").is_ok());
    }

    #[test]
    fn there_are_never_more_processes_than_may_be_and_everybody_is_answered() {
        let shell = warm("echo $$", 2);
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
        let mut shell = warm("echo $$", 1);
        // The greeting counts.
        shell.answers = 3;
        let ids: Vec<String> = (0..6).map(|_| ask(&shell)).collect();
        assert!(ids[0] == ids[1] && ids[2] == ids[3] && ids[1] != ids[2], "{ids:?}");
    }

    #[test]
    fn an_endless_answer_is_cut_off_and_a_missing_program_is_named() {
        let endless = warm("if [ $line = x ]; then exec cat /dev/zero; fi", 1);
        assert!(matches!(endless.ask("x\n"), Err(ProgramError::TooMuch)));
        let mut absent = warm("", 1);
        absent.program = Program { name: "voxline-no-such-program", packages: "some-package", ..SHELL };
        let error = absent.ask("x\n").unwrap_err();
        assert_eq!(error.to_string(), "not installed; on Debian: apt-get install some-package");
    }
}
