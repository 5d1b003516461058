//! A disk that fails, and forgets what was not synced.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// A disk in memory for the gateway's store. From its n-th step on (a write, a change of length or a sync) nothing
/// works any more, as where the machine has died; what was written since the last sync is then lost, or not. Clones
/// share it.
#[derive(Clone, Debug, Default)]
pub struct FailingDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// As the process sees it.
    seen: Vec<u8>,
    /// As of the last sync.
    synced: Vec<u8>,
    /// What was done since.
    unsynced: Vec<Step>,
    steps: u64,
    fails_at: Option<u64>,
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Step {
    fn perform(&self, bytes: &mut Vec<u8>) {
        match self {
            Step::Write(start, data) => {
                let end = start + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*start..end].copy_from_slice(data);
            }
            Step::Length(length) => bytes.resize(*length, 0),
        }
    }
}

impl State {
    /// Counts a step; an error, where the disk has failed by now.
    fn step(&mut self) -> io::Result<()> {
        if self.fails_at.is_some_and(|fails_at| self.steps >= fails_at) {
            return Err(io::Error::other("the disk has failed"));
        }
        self.steps += 1;
        Ok(())
    }

    fn perform(&mut self, step: Step) -> io::Result<()> {
        self.step()?;
        step.perform(&mut self.seen);
        self.unsynced.push(step);
        Ok(())
    }
}

impl FailingDisk {
    /// An empty disk that works.
    #[must_use]
    pub fn new() -> FailingDisk {
        FailingDisk::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many steps it has done.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// Makes it fail after that many steps from now on.
    pub fn fail_after(&self, steps: u64) {
        let mut state = self.lock();
        state.fails_at = Some(state.steps + steps);
    }

    /// Makes it work again, with what was written while it did.
    pub fn repair(&self) {
        self.lock().fails_at = None;
    }

    /// The disk after the machine has died: what was synced, and of the steps after that those that `survives` says,
    /// which is asked with their numbers from zero. A disk may write in any order.
    #[must_use]
    pub fn after_a_crash(&self, survives: impl Fn(usize) -> bool) -> FailingDisk {
        let state = self.lock();
        let mut bytes = state.synced.clone();
        for (number, step) in state.unsynced.iter().enumerate() {
            if survives(number) {
                step.perform(&mut bytes);
            }
        }
        let state = State { seen: bytes.clone(), synced: bytes, ..State::default() };
        FailingDisk(Arc::new(Mutex::new(state)))
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("a disk of a test fits memory")
}

impl StorageBackend for FailingDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (state, start) = (self.lock(), place(offset));
        let bytes = state.seen.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.lock().perform(Step::Length(place(length)))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        state.synced = state.seen.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.lock().perform(Step::Write(place(offset), data.to_vec()))
    }
}
