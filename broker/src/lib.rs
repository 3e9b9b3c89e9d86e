//! Attaché, the broker.
