//! Places that projects share, for work that may be held up by somebody else, such as the server of a
//! callback.
//!
//! The share of a project shrinks with the number of free places (a dynamic threshold, as switches use for
//! shared buffers), so neither one project nor several together take all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A number of places, each of which is taken by a project.
pub(crate) struct ProjectPlaces {
    places: usize,
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

/// A place, which becomes free when this value is dropped.
pub(crate) struct ProjectPlace {
    project: String,
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

impl ProjectPlaces {
    pub(crate) fn new(places: usize) -> ProjectPlaces {
        ProjectPlaces { places, taken: Arc::default() }
    }

    /// Takes a place for a project. Returns `None` if the project has as many as are free: a project alone
    /// has half of all.
    pub(crate) fn admit(&self, project: &str) -> Option<ProjectPlace> {
        let mut taken = lock(&self.taken);
        let own = taken.get(project).copied().unwrap_or(0);
        let free = self.places.saturating_sub(taken.values().sum());
        if own >= free {
            return None;
        }
        taken.insert(project.to_owned(), own + 1);
        Some(ProjectPlace { project: project.to_owned(), taken: self.taken.clone() })
    }
}

impl Drop for ProjectPlace {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        let own = taken.get_mut(&self.project).expect("this place is counted");
        *own -= 1;
        if *own == 0 {
            taken.remove(&self.project);
        }
    }
}

/// Locks the table. A panic elsewhere leaves it consistent: each change is of one number.
fn lock(taken: &Mutex<HashMap<String, usize>>) -> MutexGuard<'_, HashMap<String, usize>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(places: &ProjectPlaces, project: &str) -> Vec<ProjectPlace> {
        std::iter::from_fn(|| places.admit(project)).collect()
    }

    #[test]
    fn projects_that_take_all_they_get_leave_places_for_others() {
        let places = ProjectPlaces::new(64);
        let first = take_all(&places, "first");
        let second = take_all(&places, "second");
        let third = take_all(&places, "third");
        assert_eq!([&first, &second, &third].map(Vec::len), [32, 16, 8]);
        assert!(places.admit("fourth").is_some());
        // The first one does not get back what it gives up while the others are there.
        let mut first = first;
        first.truncate(20);
        assert!(places.admit("first").is_none());
        assert_eq!(take_all(&places, "fourth").len(), 10);
        drop((second, third));
        assert!(places.admit("first").is_some());
        drop(first);
        assert!(lock(&places.taken).is_empty(), "a project without places is forgotten");
    }

    #[test]
    fn the_last_place_is_for_a_project_that_has_none() {
        let places = ProjectPlaces::new(1);
        let only = places.admit("first").expect("it is free");
        assert!(places.admit("second").is_none());
        drop(only);
        assert!(places.admit("second").is_some());
        assert!(ProjectPlaces::new(0).admit("first").is_none());
    }
}
