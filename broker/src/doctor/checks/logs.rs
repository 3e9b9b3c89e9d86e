//! What Envoy writes down. After injection a format string sees the real credential, in its header
//! or in the path.

use super::super::node::Node;
use super::super::scene::{Hcm, Scene, kind};
use super::super::{Check, Symptom};
use super::credentials::is_credential_header;

pub(super) const CREDENTIAL_PRINTED: Check = Check {
    id: "credential-printed",
    purpose: "no format string prints a credential",
    attack: "%REQ(AUTHORIZATION)% is the injected credential: in a log for who reads logs, in a reply for the agent itself",
    fix: "remove the operator; our audit names the credential by fingerprint",
    find: |scene| scene.guarded().flat_map(|hcm| printed_credentials(scene, hcm)).collect(),
};

fn printed_credentials(scene: &Scene<'_>, hcm: &Hcm<'_>) -> Vec<Symptom> {
    const LISTS: [&str; 2] = ["additional_request_headers_to_log", "additional_response_headers_to_log"];
    let mut symptoms = Vec::new();
    let mut places: Vec<_> = hcm.tables.iter().chain([&hcm.node]).cloned().collect();
    places.extend(hcm.listener.list("access_log"));
    places.extend(scene.managed_clusters().filter_map(|cluster| cluster.http.clone()));
    for place in places {
        place.walk(&mut |node| {
            let listed = LISTS.iter().flat_map(|list| node.list(list));
            let listed = listed.filter(|name| name.as_text().is_some_and(is_credential_header));
            symptoms.extend(listed.map(|name| Symptom::fail(name.path(), "logs a credential's header")));

            let telling = operators(node).find(|operator| operator.words().any(is_credential_header));
            symptoms.extend(telling.map(|operator| Symptom::fail(node.path(), format!("%{}%", operator.text))));
            // Keeps what it formats inside Envoy, for the next hop's decision.
            node.opened().is_none_or(|message| message.kind != kind::SET_FILTER_STATE)
        });
    }
    symptoms
}

pub(super) const PATH_PRINTED: Check = Check {
    id: "path-printed",
    purpose: "no log or span holds the query",
    attack: "a credential that is injected as a query parameter stands in the logged path",
    fix: "%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH)% or %PATH(NQ)%; or no query injection on this Envoy",
    find: |scene| scene.guarded().flat_map(printed_paths).collect(),
};

fn printed_paths(hcm: &Hcm<'_>) -> Vec<Symptom> {
    let mut symptoms = Vec::new();
    for log in access_logs(hcm) {
        let formatted = log.texts();
        let telling =
            formatted.iter().filter_map(|(_, node)| Some((node, operators(node).find(Operator::prints_query)?)));
        symptoms.extend(telling.map(|(node, operator)| Symptom::warn(node.path(), format!("%{}%", operator.text))));
        symptoms.extend(default_format(&log));
    }
    let spans = hcm.node.field("tracing");
    symptoms.extend(spans.map(|node| Symptom::warn(node.path(), "each span's http.url holds the query")));
    symptoms
}

/// Loggers that hold the path with its query unless told otherwise.
fn default_format(log: &Node<'_>) -> Option<Symptom> {
    const FORMATS: [&str; 4] = ["log_format", "format", "json_format", "typed_json_format"];
    let logger = log.message("typed_config")?;
    match logger.kind {
        "envoy.extensions.access_loggers.file.v3.FileAccessLog"
        | "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
        | "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
            let own = FORMATS.into_iter().any(|format| logger.node.field(format).is_some());
            (!own).then(|| {
                Symptom::warn(logger.node.would_be("log_format"), "absent: the default format prints the query")
            })
        }
        "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig" => {
            let service = logger.node.text("common_config.grpc_service.envoy_grpc.cluster_name");
            // Our broker holds the secrets anyway.
            let to_broker = service.is_some_and(|cluster| cluster.starts_with("attache"));
            (!to_broker).then(|| Symptom::warn(logger.node.path(), "each entry's request.path holds the query"))
        }
        _ => None,
    }
}

pub(super) const ACCESS_LOG: Check = Check {
    id: "access-log",
    purpose: "Envoy's own log witnesses every request",
    attack: "requests that never reach the filter (400, 426, a VM that is down) leave no trace anywhere",
    fix: "the access_log that `attache envoy-config` writes, which is sent to the broker",
    find: |scene| scene.guarded().filter_map(unwitnessed).collect(),
};

fn unwitnessed(hcm: &Hcm<'_>) -> Option<Symptom> {
    let mut logs = hcm.node.list("access_log");
    logs.extend(hcm.listener.list("access_log"));
    if logs.is_empty() {
        return Some(Symptom::warn(hcm.node.would_be("access_log"), "absent"));
    }
    let cluster = |log: &Node<'_>| {
        let logger = log.message("typed_config")?;
        let is_otlp = logger.kind == "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig";
        // Over HTTP, or as before 1.37.
        let ways = ["http_service.http_uri.cluster", "common_config.grpc_service.envoy_grpc.cluster_name"];
        ways.into_iter().filter(|_| is_otlp).find_map(|way| logger.node.text(way).map(str::to_owned))
    };
    let told = logs.iter().filter_map(cluster).any(|cluster| cluster.starts_with("attache"));
    (!told).then(|| Symptom::warn(hcm.node.would_be("access_log"), "none is sent to the broker"))
}

/// The loggers of a connection manager, its listener and its router.
fn access_logs<'a>(hcm: &Hcm<'a>) -> Vec<Node<'a>> {
    let mut logs = hcm.node.list("access_log");
    logs.extend(hcm.listener.list("access_log"));
    let routers = hcm.filters.iter().filter(|filter| filter.kind() == kind::ROUTER);
    let routers = routers.filter_map(|filter| filter.message.as_ref());
    logs.extend(routers.flat_map(|router| router.node.list("upstream_log")));
    logs
}

/// A format operator: `%NAME(ARGUMENTS):LENGTH%`.
struct Operator<'a> {
    text: &'a str,
    name: &'a str,
    arguments: &'a str,
}

impl<'a> Operator<'a> {
    /// The words of the arguments: header names, or names quoted in an expression. State and
    /// metadata are ours or Envoy's, under any name.
    fn words(&self) -> impl Iterator<Item = &'a str> {
        let internal = self.name.ends_with("FILTER_STATE") || self.name.ends_with("METADATA");
        let arguments = if internal { "" } else { self.arguments };
        arguments.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | ':'))
    }

    fn prints_query(&self) -> bool {
        match self.name {
            "PATH" => !self.arguments.to_ascii_uppercase().starts_with("NQ"),
            "REQ" | "REQUEST_HEADER" => self
                .words()
                .any(|word| [":path", "x-envoy-original-path"].iter().any(|path| path.eq_ignore_ascii_case(word))),
            _ => false,
        }
    }
}

/// The operators in a text node.
fn operators<'a>(node: &Node<'a>) -> impl Iterator<Item = Operator<'a>> + use<'a> {
    let mut rest = node.as_text().unwrap_or_default();
    std::iter::from_fn(move || {
        loop {
            let (_, after) = rest.split_once('%')?;
            let (name, tail) =
                after.split_at(after.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(after.len()));
            rest = tail;
            if name.is_empty() {
                // `%%` is a percent sign.
                rest = tail.strip_prefix('%').unwrap_or(tail);
                continue;
            }
            let arguments = tail.strip_prefix('(').and_then(|open| open.split_once(')'));
            let (arguments, end) = arguments.unwrap_or(("", tail));
            let (_, end) = end.split_once('%')?;
            rest = end;
            let length = after.len() - end.len();
            return Some(Operator { text: after.get(..length)?.trim_end_matches('%'), name, arguments });
        }
    })
}
