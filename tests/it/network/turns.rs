//! Single turns of the protocol, and the promises that have a time in them.
