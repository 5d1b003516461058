//! What systemd is told of a service that it waits for (`Type=notify`); nothing where it doesn't ask.

#[cfg(unix)]
use sd_notify::NotifyState;

/// The service serves.
pub(crate) fn ready() {
    #[cfg(unix)]
    tell(&[NotifyState::Ready]);
}

/// It reads its files again, and will say when it is ready.
pub(crate) fn reloading() {
    #[cfg(unix)]
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "systemd not told"),
    }
}

/// It takes no more work, and ends once what is under way has ended.
pub(crate) fn stopping() {
    #[cfg(unix)]
    tell(&[NotifyState::Stopping]);
}

#[cfg(unix)]
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd not told");
    }
}
