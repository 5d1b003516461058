//! Chains of errors and their printing, for all errors of this crate.
//!
//! An error either returns the one behind it from [`source`](std::error::Error::source) or has its message,
//! never both. So [`chain`], and any other reporter of errors, prints each message once.

use std::error::Error;
use std::fmt;
use std::iter::successors;
use std::ops::Deref;
use std::sync::Arc;

/// Returns the message of an error, followed by those of the errors behind it, separated by colons.
///
/// ```
/// use voxline::audio::WavWriter;
/// use voxline::error::chain;
///
/// let error = WavWriter::create("no/such/directory/talk.wav", 16_000, 1).unwrap_err();
/// let (short, whole) = (error.to_string(), chain(&error).to_string());
/// assert_eq!(short, "no/such/directory/talk.wav: cannot be created");
/// assert!(whole.starts_with("no/such/directory/talk.wav: cannot be created: "));
/// ```
#[must_use]
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> Chain<'a> {
    Chain(error)
}

/// An error with the errors behind it, to be printed; created by [`chain`].
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut above = self.0.to_string();
        f.write_str(&above)?;
        for error in successors(self.0.source(), |&error| error.source()) {
            let message = error.to_string();
            // Errors of other crates may end with the message of their source.
            if !above.ends_with(&message) {
                write!(f, ": {message}")?;
            }
            above = message;
        }
        Ok(())
    }
}

/// The error behind another one, shared by the clones of the latter. It is the
/// [`source`](Error::source) of the latter, and can be downcast to its own type.
#[derive(Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl<E: Error + Send + Sync + 'static> From<E> for Cause {
    fn from(error: E) -> Cause {
        Cause(Arc::new(error))
    }
}

impl Deref for Cause {
    type Target = dyn Error + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// Causes are equal if they and the errors behind them have the same messages.
impl PartialEq for Cause {
    fn eq(&self, other: &Cause) -> bool {
        chain(&*self.0).to_string() == chain(&*other.0).to_string()
    }
}

impl Eq for Cause {}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("config: {0}")]
    struct Repeating(#[source] io::Error);

    #[test]
    fn a_message_that_its_error_repeats_is_printed_once() {
        let error = io::Error::other(Repeating(io::Error::other("no disk")));
        assert_eq!(chain(&error).to_string(), "config: no disk");
    }

    #[test]
    fn an_error_alone_is_printed_as_it_is() {
        assert_eq!(chain(&io::Error::other("no disk")).to_string(), "no disk");
    }
}
