//! `voxline serve` as a process whose log is read.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::cli::signal;

/// Longest wait for a line of the log.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Serving {
    child: Child,
    /// Endpoint that the process printed once it listened: `http://` or `https://`, and the address.
    pub(crate) endpoint: String,
    output: BufReader<ChildStdout>,
    log: Receiver<String>,
}

impl Serving {
    /// Runs `serve`, whose address must be a free one on loopback, and waits until it listens.
    pub(crate) fn start(mut serve: Command) -> Serving {
        let mut child = serve.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (logged, log) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in stderr.lines() {
                let _ = logged.send(line.unwrap());
            }
        });
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let Some(endpoint) = line.trim().strip_prefix("listening on ") else {
            child.wait().unwrap();
            panic!("it doesn't listen: {:?}", log.iter().collect::<Vec<_>>());
        };
        Serving { child, endpoint: endpoint.to_owned(), output, log }
    }

    /// Returns the next line that the process prints, after the one with its endpoint.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.split_once("://").unwrap().1.parse().unwrap()
    }

    /// Returns the process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits for a line of the log that contains `words`, and returns that line.
    pub(crate) fn logged(&self, words: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("never logged: {words}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Kills the process with SIGKILL.
    pub(crate) fn kill(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "the gateway ended by itself");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tells the process to stop and waits for it. Returns its exit status and the rest of its log.
    pub(crate) fn stop(mut self) -> (ExitStatus, Vec<String>) {
        self.signal("TERM");
        let status = self.child.wait().unwrap();
        (status, self.log.iter().collect())
    }
}

/// Kills the process. A process left by a failed test would hold the test's output open.
impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
