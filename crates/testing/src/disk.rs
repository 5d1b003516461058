//! An in-memory disk that fails after a set number of steps and loses writes that were not synced.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// An in-memory disk for the gateway's store. From its n-th step on (a write, a change of length or a sync)
/// every step fails, as if the machine had died. Writes since the last sync are then lost or kept, as the
/// test decides. Clones share the disk.
#[derive(Clone, Debug, Default)]
pub struct FailingDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Contents as the process sees them.
    seen: Vec<u8>,
    /// Contents as of the last sync.
    synced: Vec<u8>,
    /// Steps since the last sync.
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
    /// Counts a step. Returns an error if the disk has failed by now.
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
    /// Creates an empty disk that works.
    #[must_use]
    pub fn new() -> FailingDisk {
        FailingDisk::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of steps performed so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// Makes the disk fail after `steps` more steps.
    pub fn fail_after(&self, steps: u64) {
        let mut state = self.lock();
        state.fails_at = Some(state.steps + steps);
    }

    /// Makes the disk work again. Its contents are those of all steps that succeeded.
    pub fn repair(&self) {
        self.lock().fails_at = None;
    }

    /// Returns the disk as it is after the machine has died: the synced contents, plus the unsynced steps
    /// for which `survives` returns `true`. `survives` is called with the number of each unsynced step,
    /// counted from zero. Any subset may survive, because a disk may write in any order.
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
