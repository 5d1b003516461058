//! Fair admission of sockets and tasks that have not begun a session.
//!
//! Such a client has been authorised and costs a little memory, or a descriptor, until it sends its first
//! message or its time is up. The places are shared. If all are taken, the project with most waiting
//! clients gives one up to a project with fewer (longest queue drop), so that a project with many waiting
//! clients harms only itself.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::reject::Full;
use crate::authority::Identity;

/// Places per session for a holder whose number of sessions is limited: two, the number needed while a
/// session moves to another socket.
const PLACES_PER_SESSION: usize = 2;

/// A limit on the number of clients that wait to begin a session, shared fairly by project and then by
/// holder.
pub(crate) struct PendingClients {
    limit: usize,
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    next_id: u64,
    /// Clients, in the order of their arrival.
    places: BTreeMap<u64, Entry>,
}

struct Entry {
    project: String,
    holder: String,
    /// True if the client has a session, whose place is counted elsewhere.
    begun: bool,
    displaced: CancellationToken,
}

/// A place, which becomes free when this value is dropped.
pub(crate) struct PendingPlace {
    id: u64,
    table: Arc<Mutex<Table>>,
    displaced: CancellationToken,
}

impl PendingClients {
    /// Creates `limit` places, without those of clients that have begun a session.
    pub(crate) fn new(limit: usize) -> PendingClients {
        PendingClients { limit, table: Arc::default() }
    }

    /// Takes a place for `identity`. If none is free, takes the place of the longest waiting client of the
    /// holder with most waiting clients, in the project with most.
    ///
    /// # Errors
    /// Returns [`Full::Token`] if the holder has as many places as its own limit of sessions can use.
    /// Returns [`Full::Gateway`] if no place is free and no other holder has more waiting clients than this
    /// one.
    pub(crate) fn admit(&self, identity: &Identity) -> Result<PendingPlace, Full> {
        let Identity { project, holder, .. } = identity;
        let mut table = lock(&self.table);
        let held = table.places.values().filter(|entry| entry.holder == *holder).count();
        if identity.terms.max_sessions.is_some_and(|limit| held >= PLACES_PER_SESSION * limit as usize) {
            return Err(Full::Token);
        }
        if table.waiting().count() >= self.limit {
            table.displace(project, holder)?;
        }
        let id = table.next_id;
        table.next_id += 1;
        let displaced = CancellationToken::new();
        let (project, holder) = (project.clone(), holder.clone());
        table.places.insert(id, Entry { project, holder, begun: false, displaced: displaced.clone() });
        Ok(PendingPlace { id, table: self.table.clone(), displaced })
    }
}

impl Table {
    fn waiting(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.places.iter().filter(|(_, entry)| !entry.begun).map(|(id, entry)| (*id, entry))
    }

    /// Frees a place for a client of `project` and `holder`.
    fn displace(&mut self, project: &str, holder: &str) -> Result<(), Full> {
        let (mut by_project, mut by_holder) = (HashMap::new(), HashMap::new());
        for (_, entry) in self.waiting() {
            *by_project.entry(entry.project.as_str()).or_insert(0_usize) += 1;
            *by_holder.entry(entry.holder.as_str()).or_insert(0_usize) += 1;
        }
        let count = |counts: &HashMap<&str, usize>, name: &str| counts.get(name).copied().unwrap_or(0);
        let own = (count(&by_project, project), count(&by_holder, holder));
        // A candidate is a client of another project with more, or of another holder of this project with
        // more.
        let greedier = self.waiting().filter_map(|(id, entry)| {
            let share = (count(&by_project, &entry.project), count(&by_holder, &entry.holder));
            let is_own = entry.project == project;
            let is_greedier = if is_own { share.1 > own.1 } else { share.0 > own.0 };
            is_greedier.then_some((share.0, !is_own, share.1, Reverse(id)))
        });
        let (.., Reverse(id)) = greedier.max().ok_or(Full::Gateway)?;
        let displaced = self.places.remove(&id).expect("found above").displaced;
        displaced.cancel();
        Ok(())
    }
}

impl PendingPlace {
    /// Waits until the place is given to another client.
    pub(crate) async fn displaced(&self) {
        self.displaced.cancelled().await;
    }

    /// Returns a token that is cancelled once the place is given to another client.
    pub(crate) fn displacement(&self) -> CancellationToken {
        self.displaced.clone()
    }

    /// Notes that the client has a session, and with it a place among the sessions. The client is not
    /// displaced any more.
    pub(crate) fn begin(&self) {
        if let Some(entry) = lock(&self.table).places.get_mut(&self.id) {
            entry.begun = true;
        }
    }

    /// Notes that the client has left its session and is only closing.
    pub(crate) fn leave(&self) {
        if let Some(entry) = lock(&self.table).places.get_mut(&self.id) {
            entry.begun = false;
        }
    }
}

impl Drop for PendingPlace {
    fn drop(&mut self) {
        lock(&self.table).places.remove(&self.id);
    }
}

/// Locks the table. A panic elsewhere leaves the table consistent: each change is one insertion or removal.
fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(project: &str, holder: &str, max_sessions: Option<u32>) -> Identity {
        let mut identity = Identity::of_nobody();
        identity.project = project.to_owned();
        identity.holder = holder.to_owned();
        identity.terms.max_sessions = max_sessions;
        identity
    }

    fn is_displaced(place: &PendingPlace) -> bool {
        place.displaced.is_cancelled()
    }

    #[test]
    fn a_holder_has_two_places_for_each_session_it_may_have() {
        let pending = PendingClients::new(100);
        let limited = of("p", "token", Some(1));
        let places = [pending.admit(&limited).unwrap(), pending.admit(&limited).unwrap()];
        // A begun session on one place still counts against the holder's places.
        places[0].begin();
        assert_eq!(pending.admit(&limited).err(), Some(Full::Token));
        let _another = pending.admit(&of("p", "other", Some(1))).unwrap();
        drop(places);
        pending.admit(&limited).unwrap();
    }

    #[test]
    fn the_project_with_most_pending_clients_gives_way_until_all_have_equally_many() {
        let pending = PendingClients::new(6);
        let greedy: Vec<PendingPlace> =
            (0..6).map(|_| pending.admit(&of("greedy", "greedy", None)).unwrap()).collect();
        assert_eq!(pending.admit(&of("greedy", "greedy", None)).err(), Some(Full::Gateway));
        let honest: Vec<PendingPlace> =
            (0..3).map(|_| pending.admit(&of("honest", "honest", None)).unwrap()).collect();
        let displaced: Vec<bool> = greedy.iter().map(is_displaced).collect();
        assert_eq!(displaced, [true, true, true, false, false, false], "who has waited longest goes first");
        assert!(!honest.iter().any(is_displaced));
        for name in ["greedy", "honest"] {
            assert_eq!(pending.admit(&of(name, name, None)).err(), Some(Full::Gateway), "{name}");
        }
        // Within a project, the same rule applies by holder.
        let colleague = pending.admit(&of("greedy", "colleague", None));
        assert!(colleague.is_ok() && is_displaced(&greedy[3]) && !honest.iter().any(is_displaced));
    }

    #[test]
    fn a_place_whose_session_has_begun_is_neither_counted_nor_displaced() {
        let pending = PendingClients::new(1);
        let begun = pending.admit(&of("a", "a", None)).unwrap();
        begun.begin();
        let waiting = pending.admit(&of("a", "a", None)).unwrap();
        let newcomer = pending.admit(&of("b", "b", None)).unwrap();
        assert_eq!([&begun, &waiting, &newcomer].map(is_displaced), [false, true, false]);
        drop(waiting);
        assert_eq!(lock(&pending.table).places.len(), 2, "a place is given back once");
        // The client has left its session, and the newcomer waits on as many places.
        begun.leave();
        assert_eq!(pending.admit(&of("b", "b", None)).err(), Some(Full::Gateway));
        let third = pending.admit(&of("c", "c", None)).unwrap();
        assert_eq!(
            [&begun, &newcomer, &third].map(is_displaced),
            [true, false, false],
            "who has waited longest"
        );
        drop((begun, newcomer, third));
        assert!(lock(&pending.table).places.is_empty());
    }
}
