//! Russian.
pub(in crate::engine::voices) fn spelt_out(text: &str) -> String {
    text.to_owned()
}
