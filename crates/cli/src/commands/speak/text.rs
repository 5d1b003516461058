//! The text to speak, read while it arrives.

use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;

use crate::exit_code::{CliError, Exit};

/// Largest read, in bytes.
const BYTES: usize = 8 * 1024;

/// The error that ended the text early, if any.
#[derive(Clone, Default)]
pub(super) struct Unread(Arc<Mutex<Option<CliError>>>);

impl Unread {
    /// Returns the error. Call this after the text has ended.
    pub(super) fn verdict(&self) -> Result<(), CliError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    fn because(&self, error: CliError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// Opens the text from the command line, a file, or standard input (`-`).
pub(super) fn open(
    text: Option<String>,
    file: Option<PathBuf>,
) -> Result<(BoxStream<'static, String>, Unread), CliError> {
    let unread = Unread::default();
    let text = match (text, file) {
        (Some(text), _) if text == "-" => read("standard input".to_owned(), io::stdin(), unread.clone()),
        (Some(text), _) if text.trim().is_empty() => {
            return Err(CliError::new(Exit::Setup, "there are no words to speak"));
        }
        (Some(text), _) => stream::once(async { text }).boxed(),
        (None, file) => {
            let path = file.expect("clap asks for one of the two");
            let name = path.display().to_string();
            let file = File::open(&path).map_err(|error| refused(&name, &error.to_string()))?;
            read(name, file, unread.clone())
        }
    };
    Ok((text, unread))
}

/// Reads on a blocking thread, which may wait for ever for its input.
fn read(name: String, mut input: impl Read + Send + 'static, unread: Unread) -> BoxStream<'static, String> {
    let (sender, mut texts) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        loop {
            let more = match more_text(&mut input, &mut bytes) {
                Ok(Some(more)) => more,
                Ok(None) => return,
                Err(reason) => return unread.because(refused(&name, &reason)),
            };
            if sender.blocking_send(more).is_err() {
                return;
            }
        }
    });
    stream::poll_fn(move |cx| texts.poll_recv(cx)).boxed()
}

/// Returns the text of one read, up to the last complete character; the bytes of an incomplete one stay in
/// `bytes`.
fn more_text(input: &mut impl Read, bytes: &mut Vec<u8>) -> Result<Option<String>, String> {
    let begun = bytes.len();
    bytes.resize(begun + BYTES, 0);
    let read = loop {
        match input.read(&mut bytes[begun..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read.map_err(|error| error.to_string())?,
        }
    };
    bytes.truncate(begun + read);
    let whole = match std::str::from_utf8(bytes) {
        // The valid text before the error is spoken first.
        Err(error) if error.valid_up_to() == 0 && (error.error_len().is_some() || read == 0) => {
            return Err("text is not UTF-8".to_owned());
        }
        Err(error) => error.valid_up_to(),
        Ok(_) if read == 0 => return Ok(None),
        Ok(text) => text.len(),
    };
    let rest = bytes.split_off(whole);
    let text = mem::replace(bytes, rest);
    Ok(Some(String::from_utf8(text).expect("it was checked")))
}

fn refused(name: &str, reason: &str) -> CliError {
    CliError::new(Exit::Setup, format!("{name}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that returns one byte at a time.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(&mut buffer[..1])
        }
    }

    #[test]
    fn characters_are_read_whole_however_their_bytes_come() {
        let text = "aя€😀.";
        let (mut drops, mut bytes, mut read) = (Drops(text.as_bytes()), Vec::new(), String::new());
        while let Some(more) = more_text(&mut drops, &mut bytes).unwrap() {
            read.push_str(&more);
        }
        assert_eq!(read, text);
        for bad in [&b"\xff"[..], b"a\xe2\x82", b"\xe2\x82a"] {
            let (mut drops, mut bytes) = (Drops(bad), Vec::new());
            let refused = loop {
                match more_text(&mut drops, &mut bytes) {
                    Ok(Some(_)) => {}
                    ended => break ended,
                }
            };
            assert_eq!(refused.unwrap_err(), "text is not UTF-8", "{bad:?}");
        }
    }
}
