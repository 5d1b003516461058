//! The faults of the proxy, one by one.
