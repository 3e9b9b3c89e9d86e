//! A cluster: where it leads, and how it is secured.

use super::super::config::EnvoyConfig;
use super::super::node::{Message, Node};
use super::kind;

/// A cluster and what was opened of it.
#[derive(Debug)]
pub(in super::super) struct Cluster<'a> {
    pub node: Node<'a>,
    pub name: &'a str,
    /// `HttpProtocolOptions`, when given.
    pub http: Option<Node<'a>>,
    /// The addresses of its endpoints, written or discovered.
    pub addresses: Vec<Node<'a>>,
}

/// What secures the connections of a cluster.
#[derive(Debug)]
pub(in super::super) enum Socket<'a> {
    /// An `UpstreamTlsContext`.
    Tls(Node<'a>),
    /// Anything else: bytes are sent as they are.
    Plain(Option<Node<'a>>),
}

impl<'a> Cluster<'a> {
    pub fn new(node: &Node<'a>, config: &EnvoyConfig<'a>) -> Self {
        let options = node.field("typed_extension_protocol_options").map(|map| map.entries()).unwrap_or_default();
        let http = options.into_iter().find(|(name, _)| *name == kind::HTTP_OPTIONS);
        let http = http.and_then(|(_, any)| any.opened()).map(|message| message.node);

        let name = node.text("name").unwrap_or_default();
        let assignment = node.text("eds_cluster_config.service_name").unwrap_or(name);
        let discovered = config.endpoints.iter().filter(|set| set.text("cluster_name") == Some(assignment));
        let sets: Vec<_> = node.field("load_assignment").into_iter().chain(discovered.cloned()).collect();
        let hosts =
            sets.iter().flat_map(|set| set.list("endpoints")).flat_map(|locality| locality.list("lb_endpoints"));
        let addresses = hosts.filter_map(|host| host.at("endpoint.address")).collect();
        Self { node: node.clone(), name, http, addresses }
    }

    /// Whether it leads to internal listeners only.
    pub fn is_internal(&self) -> bool {
        let internal = |address: &Node<'a>| address.field("envoy_internal_address").is_some();
        !self.addresses.is_empty() && self.addresses.iter().all(internal)
    }

    /// Whether the request names the address that is dialled.
    pub fn is_dynamic_forward_proxy(&self) -> bool {
        self.node.text("cluster_type.name") == Some("envoy.clusters.dynamic_forward_proxy")
            || self
                .node
                .message("cluster_type.typed_config")
                .is_some_and(|any| any.kind == "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig")
    }

    pub fn is_original_dst(&self) -> bool {
        self.node.field("type").is_some_and(|kind| kind.names("ORIGINAL_DST", 4))
    }

    /// A switch of ours in its metadata (`filter_metadata.attache`).
    pub fn says(&self, switch: &str) -> bool {
        self.node.at("metadata.filter_metadata.attache").is_some_and(|ours| ours.flag(switch))
    }

    /// The clusters an aggregate (or composite) chooses from.
    pub fn members(&self) -> Vec<&'a str> {
        let Some(Message { kind, node }) = self.node.message("cluster_type.typed_config") else { return Vec::new() };
        let entries = node.list("clusters");
        match kind {
            "envoy.extensions.clusters.aggregate.v3.ClusterConfig" => {
                entries.iter().filter_map(Node::as_text).collect()
            }
            "envoy.extensions.clusters.composite.v3.ClusterConfig" => {
                entries.iter().filter_map(|entry| entry.text("name")).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Every transport socket a connection may get, with wrappers (internal, PROXY protocol …)
    /// looked through. No transport socket is plain text.
    pub fn sockets(&self) -> Vec<Socket<'a>> {
        let matched = self.node.list("transport_socket_matches");
        let mut sockets: Vec<_> = matched.iter().map(|entry| innermost(entry.field("transport_socket"))).collect();
        sockets.push(innermost(self.node.field("transport_socket")));
        sockets
    }
}

fn innermost(socket: Option<Node<'_>>) -> Socket<'_> {
    let mut socket = socket;
    while let Some(Message { kind, node }) = socket.as_ref().and_then(|socket| socket.message("typed_config")) {
        match kind {
            "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => return Socket::Tls(node),
            "envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport" => {
                return node.field("upstream_tls_context").map_or(Socket::Plain(socket), Socket::Tls);
            }
            // It copies plain text elsewhere, whatever it wraps.
            "envoy.extensions.transport_sockets.tap.v3.Tap" => return Socket::Plain(socket),
            _ => match node.field("transport_socket") {
                Some(inner) => socket = Some(inner),
                None => return Socket::Plain(socket),
            },
        }
    }
    Socket::Plain(socket)
}
