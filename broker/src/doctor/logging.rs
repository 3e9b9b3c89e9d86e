//! The log levels of a running Envoy. Its debug log prints headers, injected credentials included.

use super::{Check, Finding, Symptom};

/// The rule behind [`examine_logging`]. Not one of [`super::CHECKS`]: a configuration does not show
/// levels, the admin does.
pub const LOG_LEVEL: Check = Check {
    id: "log-level",
    purpose: "loggers that see headers are above debug",
    attack: "Envoy's debug log prints every header of every request, the injected credential among them",
    fix: "POST /logging?level=info to the admin, and start Envoy without -l debug or --component-log-level",
    find: |_| Vec::new(),
};

/// Loggers that print requests, headers, bodies or bytes.
const TELLING: [&str; 22] = [
    "ext_authz",
    "client",
    "conn_handler",
    "connection",
    "credential_injector",
    "dynamic_modules",
    "ext_proc",
    "filter",
    "forward_proxy",
    "golang",
    "hc",
    "http",
    "http2",
    "io",
    "lua",
    "oauth2",
    "pool",
    "quic",
    "router",
    "tap",
    "upstream",
    "wasm",
];

/// Reads the admin's answer to `/logging` (one `name: level` a line) and fails each telling logger
/// at `trace` or `debug`. A text that names none of them is a finding too: nothing was proved.
#[must_use]
pub fn examine_logging(text: &str) -> Vec<Finding> {
    let levels =
        || text.lines().filter_map(|line| line.split_once(':')).map(|(name, level)| (name.trim(), level.trim()));
    let mut telling = levels().filter(|(name, _)| TELLING.contains(name)).peekable();
    if telling.peek().is_none() {
        return vec![LOG_LEVEL.signed(Symptom::warn("/logging", "no known logger in this answer"))];
    }
    let loud = telling.filter(|(_, level)| ["trace", "debug"].contains(level));
    loud.map(|(name, level)| LOG_LEVEL.signed(Symptom::fail(format!("/logging {name}"), level))).collect()
}
