//! Signals: requests to stop (ctrl-c, SIGTERM), and to reload files (SIGHUP).

use std::io;

use super::exit_code::{CliError, Exit};

/// A request to stop, by its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The user, by ctrl-c.
    Interrupt,
    /// The system or another program, by SIGTERM.
    Terminate,
}

impl Stop {
    /// Returns the exit code of a program stopped by this request: the code that shells report for a process
    /// killed by the signal.
    pub(crate) fn exit(self) -> Exit {
        match self {
            Stop::Interrupt => Exit::Interrupted,
            Stop::Terminate => Exit::Terminated,
        }
    }

    /// Returns the error for this request, prefixed with the name of the interrupted work, if any.
    pub(crate) fn error(self, name: Option<&str>) -> CliError {
        let what = match self {
            Stop::Interrupt => "interrupted",
            Stop::Terminate => "terminated",
        };
        CliError::new(self.exit(), name.map_or_else(|| what.to_owned(), |name| format!("{name}: {what}")))
    }
}

/// A listener for stop requests, active from its creation.
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    pub(crate) fn new() -> Result<Signals, CliError> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).map_err(|error: io::Error| cannot(&error));
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    #[cfg(not(unix))]
    pub(crate) fn new() -> Result<Signals, CliError> {
        Ok(Signals {})
    }

    /// Waits for the next request.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
        }
    }

    /// Waits for the next request.
    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) -> Stop {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Stop::Interrupt
    }
}

/// A listener for reload requests, active from its creation.
pub(crate) struct Hangups {
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

impl Hangups {
    #[cfg(unix)]
    pub(crate) fn new() -> Result<Hangups, CliError> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Hangups { hangup: signal(SignalKind::hangup()).map_err(|error| cannot(&error))? })
    }

    #[cfg(not(unix))]
    pub(crate) fn new() -> Result<Hangups, CliError> {
        Ok(Hangups {})
    }

    /// Waits for the next request.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) {
        self.hangup.recv().await;
    }

    /// Never returns: this platform has no such signal.
    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) {
        std::future::pending().await
    }
}

#[cfg(unix)]
fn cannot(error: &io::Error) -> CliError {
    CliError::new(Exit::Setup, format!("signals: {error}"))
}
