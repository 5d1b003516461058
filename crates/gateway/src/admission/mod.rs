//! Admission control: reasons to refuse work, places for clients that have not begun a session and for
//! callbacks, and the capacity for recordings and speech.
//!
//! This room imports [`scheduler`](crate::scheduler), [`http`](crate::http) and
//! [`authority`](crate::authority).

pub(crate) mod capacity;
pub(crate) mod load;
pub(crate) mod pending;
pub(crate) mod project_places;
pub(crate) mod reject;
