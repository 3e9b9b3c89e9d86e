//! Attaché, in Envoy.
