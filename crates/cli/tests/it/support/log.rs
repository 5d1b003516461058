//! All that is logged, by ourselves and by the crates underneath, on standard error: for a process that is started to be
//! overheard.

use std::io;
use std::sync::Once;

use tracing_log::LogTracer;
use tracing_subscriber::filter::LevelFilter;

/// Says what is to be logged: [`ALL`] or [`ALL_BUT_FRAMES`].
pub(crate) const LOG: &str = "VOXLINE_TEST_LOG";
/// Everything.
pub(crate) const ALL: &str = "all";
/// Everything but what tungstenite says of each frame, as `voxline::transport` asks of its hosts.
pub(crate) const ALL_BUT_FRAMES: &str = "all but frames";
/// Where tungstenite speaks of frames.
pub(crate) const FRAMES: &str = "tungstenite::protocol";

/// Logs as the environment says; by itself a test logs nothing.
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
