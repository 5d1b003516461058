//! State notifications to systemd for a service of `Type=notify`; no-ops if systemd doesn't ask for them.

#[cfg(unix)]
use sd_notify::NotifyState;

/// Reports that the service is ready.
pub(crate) fn ready() {
    #[cfg(unix)]
    tell(&[NotifyState::Ready]);
}

/// Reports that the service reloads its files. [`ready`] must follow.
pub(crate) fn reloading() {
    #[cfg(unix)]
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "systemd not told"),
    }
}

/// Reports that the service accepts no more work, and ends once the current work is done.
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
