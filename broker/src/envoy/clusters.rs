//! Clusters: one for each destination, which leads there and nowhere else, and one to the broker.

use super::{BROKER_CLUSTER, BUFFER_BYTES, Machine, set, socket_address, speaks_websocket, type_url};
use crate::config::data_plane::{EnvoyIdentity, TowardsBroker};
use crate::config::{Config, Destination, Endpoint, MutualTls, destination_id};
use crate::state_dir::TOKEN_SECRET_NAME;
use attache_core::matching::host::{Authority, Host};
use attache_core::policy::DestinationSpec;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// What is read of an upstream at once, in bytes: the filter may hold a piece of an answer whose end could
/// begin an echo, and Envoy ends a stream of which more is held than the listener buffers.
pub(super) const PIECE_BYTES: u32 = 64 << 10;

pub(super) const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The secret in a file of secrets that is Envoy's certificate.
const CLIENT_SECRET: &str = "attache_client";
/// And whom it trusts to sign for the broker.
const BROKER_CA_SECRET: &str = "attache_broker_ca";

/// Requests on one HTTP/2 connection to an upstream: what servers take at the least (RFC 9113, 6.5.2).
const UPSTREAM_STREAMS: u32 = 100;

/// How each destination is reached, by its id. All credentials reach one destination in one way: the
/// config was checked for that.
pub(super) fn ways(config: &Config) -> HashMap<String, &Destination> {
    let all = config.credentials.iter().flat_map(|credential| &credential.destinations);
    all.map(|destination| (destination_id(destination), destination)).collect()
}

/// The cluster of a destination: TLS, its name verified, unless the config says `plaintext: true`.
pub(super) fn destination(spec: &DestinationSpec, how: Option<&Destination>, machine: &Machine) -> Value {
    towards(base(spec, how), Towards::of(spec), how, machine)
}

/// The same behind a door, which has found the one address to dial; an address that the config names is
/// that of the cluster.
pub(super) fn behind_the_door(spec: &DestinationSpec, how: Option<&Destination>, machine: &Machine) -> Value {
    let is_named = how.is_some_and(|how| how.upstream.as_ref().is_some_and(|upstream| upstream.address.is_some()));
    let base = if is_named { base(spec, how) } else { direct(&spec.cluster) };
    towards(base, Towards::of(spec), how, machine)
}

/// Where hosts go that no destination names, behind a door.
pub(super) fn unmatched(name: &str, plaintext: bool, machine: &Machine) -> Value {
    towards(direct(name), Towards { plaintext, http1: plaintext }, None, machine)
}

/// A cluster that dials the address that the door has found, and no other.
pub(super) fn direct(name: &str) -> Value {
    json!({
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "per_connection_buffer_limit_bytes": PIECE_BYTES,
        "circuit_breakers": generous(),
    })
}

/// What is spoken with an upstream.
#[derive(Clone, Copy)]
struct Towards {
    plaintext: bool,
    /// HTTP/1.1 alone.
    http1: bool,
}

impl Towards {
    /// WebSocket is opened over HTTP/1.1: over HTTP/2 few servers take it (RFC 8441), and Envoy asks none
    /// whether it does.
    fn of(spec: &DestinationSpec) -> Self {
        Self { plaintext: spec.plaintext, http1: spec.plaintext || speaks_websocket(spec) }
    }
}

fn towards(mut cluster: Value, spoken: Towards, how: Option<&Destination>, machine: &Machine) -> Value {
    set(&mut cluster, "circuit_breakers", generous());
    set(&mut cluster, "upstream_connection_options", keepalive());
    if spoken.plaintext {
        set(&mut cluster, "metadata", json!({"filter_metadata": {"attache": {"plaintext": true}}}));
    } else {
        set(&mut cluster, "transport_socket", tls(how, machine));
    }
    let options = upstream_options(spoken, is_pinned_alone(how));
    set(&mut cluster, "typed_extension_protocol_options", json!({OPTIONS: options}));
    cluster
}

/// Connections of which nothing is heard are found out.
pub(super) fn keepalive() -> Value {
    json!({"tcp_keepalive": {"keepalive_time": 60, "keepalive_interval": 10, "keepalive_probes": 3}})
}

/// The cluster of the broker's data plane.
pub(super) fn broker(config: &Config, machine: &Machine) -> Value {
    towards_broker(BROKER_CLUSTER, json!({"http_protocol_options": {}}), config, machine)
}

/// A cluster that leads to the broker's data plane, which is spoken to by `protocol`.
pub(super) fn towards_broker(name: &str, protocol: Value, config: &Config, machine: &Machine) -> Value {
    match &config.listen.data_plane {
        Endpoint::Tcp(address) => {
            let address = socket_address(&address.ip().to_string(), address.port());
            with_token(name, &address, protocol, machine)
        }
        Endpoint::Unix(path) => with_token(name, &json!({"pipe": {"path": path}}), protocol, machine),
        Endpoint::Tls(door) => with_certificate(name, door, protocol),
    }
}

/// By the token. Envoy itself adds it, from a file that only it and the broker read: the VM never sees it, and
/// `/config_dump` shows it redacted.
fn with_token(name: &str, address: &Value, protocol: Value, machine: &Machine) -> Value {
    let secret = json!({
        "name": TOKEN_SECRET_NAME,
        "sds_config": {"resource_api_version": "V3", "path_config_source": {"path": machine.token}},
    });
    let injector = json!({
        "name": "envoy.filters.http.credential_injector",
        "typed_config": {
            "@type": type_url("envoy.extensions.filters.http.credential_injector.v3.CredentialInjector"),
            "overwrite": true,
            "credential": {
                "name": "envoy.http.injected_credentials.generic",
                "typed_config": {
                    "@type": type_url("envoy.extensions.http.injected_credentials.generic.v3.Generic"),
                    "credential": secret,
                },
            },
        },
    });
    let codec = json!({
        "name": "envoy.filters.http.upstream_codec",
        "typed_config": {"@type": type_url("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec")},
    });
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "circuit_breakers": generous(),
        "load_assignment": assignment(name, address),
        "typed_extension_protocol_options": {OPTIONS: {
            "@type": type_url(OPTIONS),
            "explicit_http_config": protocol,
            "http_filters": [injector, codec],
        }},
    })
}

/// By mutual TLS: Envoy shows its certificate, and tells nothing to whoever has not the broker's SPIFFE ID.
fn with_certificate(name: &str, door: &MutualTls, protocol: Value) -> Value {
    let Some(envoy) = &door.envoy else {
        // Nobody has said which certificate it shows, and whom it believes: it leads nowhere.
        return json!({"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name}});
    };
    let (address, host) = dialled_at(&envoy.address);
    let alpn = if protocol.get("http2_protocol_options").is_some() { "h2" } else { "http/1.1" };
    let mut cluster = json!({
        "name": name,
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "circuit_breakers": generous(),
        "upstream_connection_options": keepalive(),
        "load_assignment": assignment(name, &address),
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": mutual_tls(envoy, host.as_deref(), alpn),
        },
        "typed_extension_protocol_options": {OPTIONS: {
            "@type": type_url(OPTIONS),
            "explicit_http_config": protocol,
        }},
    });
    set_discovery(&mut cluster, host.is_some());
    cluster
}

fn mutual_tls(envoy: &TowardsBroker, host: Option<&str>, alpn: &str) -> Value {
    let mut common = json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "alpn_protocols": [alpn],
    });
    let TowardsBroker { broker_id, identity, .. } = envoy;
    let named = json!([{"san_type": "URI", "matcher": {"exact": broker_id}}]);
    match identity {
        EnvoyIdentity::Files { certificate, key, ca } => {
            let own = json!({"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}});
            set(&mut common, "tls_certificates", json!([own]));
            let validation = json!({"trusted_ca": {"filename": ca}, "match_typed_subject_alt_names": named});
            set(&mut common, "validation_context", validation);
        }
        EnvoyIdentity::Sds { certificate, ca } => {
            let secret = |name: &str, file: &Path| {
                json!({
                    "name": name,
                    "sds_config": {"resource_api_version": "V3", "path_config_source": {"path": file}},
                })
            };
            let own = secret(CLIENT_SECRET, certificate);
            set(&mut common, "tls_certificate_sds_secret_configs", json!([own]));
            let validation = json!({
                "default_validation_context": {"match_typed_subject_alt_names": named},
                "validation_context_sds_secret_config": secret(BROKER_CA_SECRET, ca),
            });
            set(&mut common, "combined_validation_context", validation);
        }
    }
    let mut context = json!({
        "@type": type_url("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
        "common_tls_context": common,
        // A session that is taken up again shows no certificate anew.
        "max_session_keys": 0,
    });
    if let Some(host) = host {
        set(&mut context, "sni", host);
    }
    context
}

fn base(spec: &DestinationSpec, how: Option<&Destination>) -> Value {
    let upstream = how.and_then(|destination| destination.upstream.as_ref()?.address.as_deref());
    let (address, name) = dialled_at(upstream.unwrap_or(&spec.id));
    let mut cluster = json!({
        "name": spec.cluster,
        "connect_timeout": "5s",
        "per_connection_buffer_limit_bytes": PIECE_BYTES,
        "load_assignment": assignment(&spec.cluster, &address),
    });
    set_discovery(&mut cluster, name.is_some());
    cluster
}

/// Where Envoy dials, and the name to resolve if it is one.
fn dialled_at(text: &str) -> (Value, Option<String>) {
    // It was parsed when the config was read; what is none would be dialled nowhere.
    let dialled = Authority::parse(text.as_bytes()).ok();
    let (host, port) = dialled.map_or((None, None), |authority| (Some(authority.host), authority.port));
    let (address, name) = match host {
        Some(Host::Name(name)) => (name.clone(), Some(name)),
        Some(Host::V4(ip)) => (ip.to_string(), None),
        Some(Host::V6(ip)) => (ip.to_string(), None),
        None => (String::new(), None),
    };
    (socket_address(&address, port.unwrap_or_default()), name)
}

fn set_discovery(cluster: &mut Value, is_name: bool) {
    if !is_name {
        return set(cluster, "type", "STATIC");
    }
    // One logical host, however many addresses: happy eyeballs over IPv6 and IPv4.
    let dns = json!({
        "@type": type_url("envoy.extensions.clusters.dns.v3.DnsCluster"),
        "all_addresses_in_single_endpoint": true,
        "dns_lookup_family": "ALL",
        "respect_dns_ttl": true,
    });
    set(cluster, "cluster_type", json!({"name": "envoy.clusters.dns", "typed_config": dns}));
}

pub(super) fn assignment(name: &str, address: &Value) -> Value {
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]})
}

/// Agents are bounded at the listener; here a bound would only be a second, surprising one.
pub(super) fn generous() -> Value {
    json!({"thresholds": [{"max_connections": 65_536, "max_pending_requests": 65_536, "max_requests": 65_536}]})
}

fn upstream_options(spoken: Towards, pinned: bool) -> Value {
    let mut options = json!({
        "@type": type_url(OPTIONS),
        "common_http_protocol_options": {"idle_timeout": "300s"},
    });
    if spoken.http1 {
        set(&mut options, "explicit_http_config", json!({"http_protocol_options": {}}));
    } else {
        // Without a bound, a burst goes out on one connection before the upstream has said how many
        // streams it takes; it refuses the others, and managed requests are not retried.
        let http2 = json!({"max_concurrent_streams": UPSTREAM_STREAMS});
        set(&mut options, "auto_config", json!({"http_protocol_options": {}, "http2_protocol_options": http2}));
    }
    if spoken.plaintext {
        return options;
    }
    // The name that is asked for is the name that is verified; a pinned key needs none.
    set(&mut options, "upstream_http_protocol_options", json!({"auto_sni": true, "auto_san_validation": !pinned}));
    options
}

/// Whether a key is pinned and no authority is named: then the key is all that is verified.
fn is_pinned_alone(how: Option<&Destination>) -> bool {
    how.is_some_and(|destination| destination.spki_sha256.is_some() && ca_file(Some(destination)).is_none())
}

fn ca_file(how: Option<&Destination>) -> Option<&Path> {
    how.and_then(|destination| destination.upstream.as_ref()?.ca_file.as_deref())
}

fn tls(how: Option<&Destination>, machine: &Machine) -> Value {
    let mut validation = json!({});
    if let Some(pin) = how.and_then(|destination| destination.spki_sha256.as_deref()) {
        set(&mut validation, "verify_certificate_spki", json!([pin]));
    }
    if !is_pinned_alone(how) {
        let roots = ca_file(how).unwrap_or(&machine.system_roots);
        set(&mut validation, "trusted_ca", json!({"filename": roots}));
    }
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": type_url("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "validation_context": validation,
            },
        },
    })
}
