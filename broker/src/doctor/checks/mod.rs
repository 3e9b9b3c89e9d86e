//! The table of checks, and one file per family.
//!
//! To add a check: a `const` and a function in its family's file, a line in the table, and a file
//! of the same name under `tests/doctor/broken/`. The tests walk this table.

mod bounds;
mod bypass;
mod coverage;
mod credentials;
mod door;
mod exposure;
mod interception;
mod logs;
mod peers;
mod plugin;
mod private;
mod request;
mod routing;
mod upstream;

use super::Check;

/// Every check, in the order findings are reported.
pub const CHECKS: &[Check] = &[
    coverage::FILTER_PRESENT,
    coverage::FILTER_MISSING,
    coverage::FILTER_DISABLED,
    coverage::FILTER_ORDER,
    coverage::JUDGE_FIRST,
    coverage::RESOURCES_VISIBLE,
    coverage::ONE_SPELLING,
    plugin::FAILURE_POLICY,
    plugin::STOP_ITERATION,
    plugin::VM_ID,
    plugin::CODE_PINNED,
    plugin::PLUGIN_SECRET,
    upstream::UPSTREAM_PLAINTEXT,
    upstream::UPSTREAM_CA,
    upstream::UPSTREAM_NAME,
    upstream::UPSTREAM_KEY_LOG,
    routing::ROUTE_GUARD,
    routing::ROUTE_RESELECTION,
    routing::AGENT_CHOSEN_CLUSTER,
    routing::AUTHORITY_PINNED,
    routing::AUTHORITY_REWRITE,
    routing::STATIC_CREDENTIAL,
    bypass::INTERNAL_REDIRECT,
    bypass::REQUEST_MIRROR,
    bypass::RETRY,
    bypass::ORIGINAL_DST_HEADER,
    bypass::ORIGINAL_DST_USE,
    bypass::PRIVATE_ADDRESSES,
    bypass::CONNECT,
    peers::CLIENT_CERTIFICATES,
    request::USE_REMOTE_ADDRESS,
    request::INTERNAL_ADDRESSES,
    request::NORMALIZE_PATH,
    request::MERGE_SLASHES,
    request::ESCAPED_SLASHES,
    request::UNDERSCORE_HEADERS,
    request::CHUNKED_LENGTH,
    request::HTTP10_DEFAULT_HOST,
    request::EARLY_RESPONSES,
    bounds::STREAM_IDLE_TIMEOUT,
    bounds::MAX_STREAM_DURATION,
    bounds::CONNECTION_LIMIT,
    door::DOOR_FIRST,
    door::BEHIND_THE_DOOR,
    door::TUNNEL_POOL,
    door::TUNNEL_IDENTITY,
    door::TUNNEL_SOURCE,
    door::TUNNEL_NAME,
    interception::INTERCEPTION_RESUMPTION,
    interception::INTERCEPTION_TIMEOUT,
    interception::INTERCEPTION_KEY_LOG,
    interception::CERTIFICATE_PROTOCOL,
    interception::CERTIFICATE_TRANSPORT,
    exposure::ADMIN_ADDRESS,
    exposure::ADMIN_REACHABLE,
    exposure::BROKER_REACHABLE,
    exposure::BROKER_TRANSPORT,
    exposure::TRACE_TAGS,
    logs::CREDENTIAL_PRINTED,
    logs::PATH_PRINTED,
    logs::ACCESS_LOG,
];
