//! What a process is asked by signals: to stop (ctrl-c, SIGTERM), and to read its files again (SIGHUP).

use std::io;

use super::exit_code::{CliError, Exit};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The user, by ctrl-c.
    Interrupt,
    /// The system, or another program.
    Terminate,
}

impl Stop {
    /// The exit code of a program that ends by it: as shells tell a process that the signal itself has ended.
    pub(crate) fn exit(self) -> Exit {
        match self {
            Stop::Interrupt => Exit::Interrupted,
            Stop::Terminate => Exit::Terminated,
        }
    }

    /// The error that tells of it, after the name of what it ended, if any.
    pub(crate) fn error(self, name: Option<&str>) -> CliError {
        let what = match self {
            Stop::Interrupt => "interrupted",
            Stop::Terminate => "terminated",
        };
        CliError::new(self.exit(), name.map_or_else(|| what.to_owned(), |name| format!("{name}: {what}")))
    }
}

/// Listens for them from its creation on.
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

    /// Waits for the next one.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
        }
    }

    /// Waits for the next one.
    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) -> Stop {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Stop::Interrupt
    }
}

/// Listens for requests to read files again, from its creation on.
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

    /// Waits for the next one.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) {
        self.hangup.recv().await;
    }

    /// Waits for ever: there are none here.
    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) {
        std::future::pending().await
    }
}

#[cfg(unix)]
fn cannot(error: &io::Error) -> CliError {
    CliError::new(Exit::Setup, format!("signals: {error}"))
}
