//! Events as files: JSON lines, a file for each call.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::event::{CallEvent, CallEventKind};
use super::webhook::Webhook;
use voxline_support::private_file;

/// A directory with a file for each call, named by its start and its name: `TIME_CALL_ID.jsonl`. A call that
/// a later process finishes continues its file.
pub struct EventFiles {
    directory: PathBuf,
    /// Files of the calls under way.
    open: HashMap<Arc<str>, File>,
    webhook: Option<Webhook>,
}

impl EventFiles {
    /// Creates the directory, unless it is there.
    ///
    /// # Errors
    /// Returns [`io::Error`] if it can't be created.
    pub fn create(directory: &Path) -> io::Result<EventFiles> {
        if !directory.is_dir() {
            private_file::create_dir(directory)?;
        }
        Ok(EventFiles { directory: directory.to_owned(), open: HashMap::new(), webhook: None })
    }

    /// Posts the events to this webhook, too, and those that an earlier process has left.
    ///
    /// # Errors
    /// Returns [`io::Error`] if the directory can't be read.
    pub fn post_to(self, webhook: Webhook) -> io::Result<EventFiles> {
        webhook.resume(&self.directory)?;
        Ok(EventFiles { webhook: Some(webhook), ..self })
    }

    /// Appends an event to the file of its call. The file is synced to the disk at the end of the call.
    ///
    /// # Errors
    /// Returns [`io::Error`] if the file can't be opened or written. The next event is tried again.
    pub fn write(&mut self, event: &CallEvent) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        let path = self.directory.join(format!("{}.jsonl", event.stem));
        let mut file = match self.open.remove(&event.stem) {
            Some(file) => file,
            None => self.open(&path)?,
        };
        file.write_all(&line)?;
        if matches!(event.kind, CallEventKind::Ended { .. }) {
            file.sync_all()?;
        } else {
            self.open.insert(event.stem.clone(), file);
        }
        if let Some(webhook) = &self.webhook {
            webhook.wake(&path);
        }
        Ok(())
    }

    /// Opens the file of a call, at the beginning of a line.
    fn open(&self, path: &Path) -> io::Result<File> {
        let mut file = private_file::options().read(true).append(true).create(true).open(path)?;
        let mut length = file.metadata()?.len();
        if length > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != [b'\n'] {
                // A process that was killed has left half a line.
                file.write_all(b"\n")?;
                length += 1;
            }
        }
        if let Some(webhook) = &self.webhook {
            webhook.add(path, length)?;
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::read_to_string;

    use super::*;
    use crate::event::EndReason;

    #[test]
    fn each_call_has_a_file_which_a_later_process_continues() {
        let place = tempfile::tempdir().unwrap();
        let event = |call: &str, kind: CallEventKind| CallEvent {
            call: call.into(),
            stem: call.into(),
            leg: None,
            kind,
        };
        let key = |at| CallEventKind::Dtmf { at, digit: '1' };
        let ended = CallEventKind::Ended {
            seconds: 2.0,
            reason: EndReason::HungUp,
            error: None,
            recording: None,
            recording_lost: None,
            legs: BTreeMap::new(),
        };
        for _ in 0..2 {
            let mut files = EventFiles::create(&place.path().join("events")).unwrap();
            files.write(&event("CA1", key(0.5))).unwrap();
            files.write(&event("CA2", key(0.5))).unwrap();
            files.write(&event("CA1", ended.clone())).unwrap();
            assert_eq!(files.open.len(), 1);
        }
        let lines = read_to_string(place.path().join("events/CA1.jsonl")).unwrap();
        let once = "{\"call\":\"CA1\",\"event\":\"dtmf\",\"at\":0.5,\"digit\":\"1\"}\n\
                    {\"call\":\"CA1\",\"event\":\"ended\",\"seconds\":2.0,\"reason\":\"hung_up\",\"legs\":{}}\n";
        assert_eq!(lines, once.repeat(2));
    }
}
