//! Word error rates, as users measure them.

pub(crate) use voxline_engines::wer::{WordErrors, normal};
