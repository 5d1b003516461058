//! The `voxline` program.
fn main() {}
