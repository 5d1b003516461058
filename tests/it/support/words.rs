//! Word error rates, as users measure them.

pub(crate) use voxline::wer::{WordErrors, normal};
