//! One node, wired.
