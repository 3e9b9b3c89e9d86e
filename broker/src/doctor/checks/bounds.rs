//! Every request ends within a stated bound, and connections are counted.

use super::super::node::{Node, shown};
use super::super::scene::{Hcm, Listener, Scene, kind};
use super::super::{Check, Symptom};

/// The bound we promise for a request that a VM trap has stranded, in seconds.
const STRANDED_LIMIT: f64 = 15.0;

pub(super) const STREAM_IDLE_TIMEOUT: Check = Check {
    id: "stream-idle-timeout",
    purpose: "a request that nobody answers ends within 15 s",
    attack: "after a trap in the VM every paused request hangs: one bad header from one agent stops them all",
    fix: "stream_idle_timeout: 15s or less on the connection manager; a streaming route raises its own idle_timeout",
    find: stream_idle_timeout,
};

fn stream_idle_timeout(scene: &Scene<'_>) -> Vec<Symptom> {
    let bounded = |node: &Node<'_>| node.as_seconds().is_some_and(|seconds| seconds > 0.0 && seconds <= STRANDED_LIMIT);
    let mut symptoms = Vec::new();
    for hcm in scene.guarded() {
        let timeout = hcm.node.field("stream_idle_timeout");
        if !timeout.as_ref().is_some_and(bounded) {
            symptoms.push(Symptom::fail(hcm.node.would_be("stream_idle_timeout"), shown(timeout.as_ref())));
        }
    }
    let raised = scene.managed_routes().filter_map(|route| route.node.at("route.idle_timeout"));
    symptoms.extend(raised.filter(is_off).map(|node| Symptom::fail(node.path(), "switched off (0s)")));
    symptoms
}

pub(super) const MAX_STREAM_DURATION: Check = Check {
    id: "max-stream-duration",
    purpose: "no stream lives for ever",
    attack: "a stream that trickles never idles: it outlives its lease and holds a connection and a worker's memory",
    fix: "common_http_protocol_options.max_stream_duration on the connection manager, or max_stream_duration on each route",
    find: max_stream_duration,
};

fn max_stream_duration(scene: &Scene<'_>) -> Vec<Symptom> {
    const BY_ROUTE: &str = "route.max_stream_duration.max_stream_duration";
    const BY_HCM: &str = "common_http_protocol_options.max_stream_duration";
    let mut symptoms = Vec::new();
    for hcm in scene.guarded() {
        let managed = || hcm.routes.iter().filter(|route| route.is_managed);
        // A zero on the route undoes the connection manager's bound.
        symptoms.extend(
            managed()
                .filter_map(|route| route.node.at(BY_ROUTE))
                .filter(is_off)
                .map(|node| Symptom::fail(node.path(), "switched off (0s)")),
        );
        let bounded = hcm.node.at(BY_HCM).is_some_and(|node| !is_off(&node));
        if !bounded && (managed().count() == 0 || managed().any(|route| route.node.at(BY_ROUTE).is_none())) {
            symptoms.push(Symptom::fail(hcm.node.would_be(BY_HCM), shown(hcm.node.at(BY_HCM).as_ref())));
        }
    }
    symptoms
}

pub(super) const CONNECTION_LIMIT: Check = Check {
    id: "connection-limit",
    purpose: "connections are counted and bounded",
    attack: "one agent opens connections until Envoy has no descriptors left, for every agent",
    fix: "overload_manager with envoy.resource_monitors.global_downstream_max_connections, or a connection_limit filter",
    find: connection_limit,
};

fn connection_limit(scene: &Scene<'_>) -> Vec<Symptom> {
    let globally = has_global_limit(scene);
    let mut symptoms = Vec::new();
    for listener in &scene.listeners {
        let guarded = |hcm: &&Hcm<'_>| hcm.listener.path() == listener.node.path();
        let needed = scene.guarded().any(|hcm| guarded(&hcm)) && listener.node.field("internal_listener").is_none();
        let exempt =
            ["ignore_global_conn_limit", "bypass_overload_manager"].into_iter().find(|flag| listener.node.flag(flag));
        let bounded = (globally && exempt.is_none()) || has_own_limit(listener, scene);
        if needed && !bounded {
            let (path, found) = match exempt {
                Some(flag) if globally => (listener.node.would_be(flag), "true: the global limit does not count here"),
                _ => (listener.node.path().to_owned(), "neither a global nor an own limit"),
            };
            symptoms.push(Symptom::fail(path, found));
        }
    }
    symptoms
}

fn has_global_limit(scene: &Scene<'_>) -> bool {
    let monitors = scene.config.bootstrap.list("overload_manager.resource_monitors");
    let counts = |monitor: &Node<'_>| {
        monitor.text("name") == Some("envoy.resource_monitors.global_downstream_max_connections")
            && monitor.message("typed_config").and_then(|any| any.node.number("max_active_downstream_connections"))
                > Some(0)
    };
    monitors.iter().any(counts) || runtime(scene, "overload.global_downstream_max_connections")
}

fn has_own_limit(listener: &Listener<'_>, scene: &Scene<'_>) -> bool {
    let filtered = |filters: &[super::super::node::Message<'_>]| {
        filters.iter().any(|filter| filter.kind == kind::CONNECTION_LIMIT)
    };
    let by_filter = !listener.chains.is_empty() && listener.chains.iter().all(|chain| filtered(&chain.filters));
    let name = listener.node.text("name").unwrap_or_default();
    by_filter || runtime(scene, &format!("envoy.resource_limits.listener.{name}.connection_limit"))
}

/// Whether a static runtime layer sets this key, written flat or nested.
fn runtime(scene: &Scene<'_>, key: &str) -> bool {
    let layers = scene.config.bootstrap.list("layered_runtime.layers");
    let layers = layers.iter().filter_map(|layer| layer.field("static_layer"));
    layers.into_iter().any(|layer| {
        layer.value().get(key).is_some() || layer.value().pointer(&format!("/{}", key.replace('.', "/"))).is_some()
    })
}

fn is_off(duration: &Node<'_>) -> bool {
    duration.as_seconds().is_none_or(|seconds| seconds <= 0.0)
}
