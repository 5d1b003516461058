//! The audio of a leg in order.
