//! Attaché, decided.
