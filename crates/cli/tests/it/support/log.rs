//! All log output, of this program and of the crates underneath, on standard error: for a process whose log
//! a test reads.

use std::io;
use std::sync::Once;

use tracing_log::LogTracer;
use tracing_subscriber::filter::LevelFilter;

/// Environment variable that selects the log: [`ALL`] or [`ALL_BUT_FRAMES`].
pub(crate) const LOG: &str = "VOXLINE_TEST_LOG";
/// Everything.
pub(crate) const ALL: &str = "all";
/// Everything except tungstenite's log of each frame, as `voxline::transport` asks of its hosts.
pub(crate) const ALL_BUT_FRAMES: &str = "all but frames";
/// Module in which tungstenite logs frames.
pub(crate) const FRAMES: &str = "tungstenite::protocol";

/// Logs as the environment variable says. By default a test logs nothing.
#[expect(
    clippy::disallowed_methods,
    reason = "who starts a process to overhear it says so by the environment"
)]
pub(crate) fn as_told() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tracer = match std::env::var(LOG).as_deref() {
            Ok(ALL) => LogTracer::builder(),
            Ok(ALL_BUT_FRAMES) => LogTracer::builder().ignore_crate(FRAMES),
            _ => return,
        };
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(io::stderr)
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        tracer.init().unwrap();
    });
}
