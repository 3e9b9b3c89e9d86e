//! Our wasm plugin: what its configuration says it is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::super::node::{Message, Node};

/// The entries of one module: the gate decides, strips and injects; the judge stands before it, reads a
/// bounded body and decides nothing; the door of a forward proxy says who comes in, and to which address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Role {
    Gate,
    Judge,
    Door,
    /// The name is ours, but the role is none of these.
    Unknown,
}

/// A plugin of ours (`envoy.extensions.wasm.v3.PluginConfig`).
#[derive(Debug)]
pub(in super::super) struct Plugin<'a> {
    pub node: Node<'a>,
    pub role: Role,
    /// Whose requests it decides.
    pub instance: Option<String>,
    /// It is told that routes match on its verdict, and so does not compare clusters itself.
    pub trusts_routes: bool,
    /// It believes what a door has left in the state of the connection.
    pub trusts_door: bool,
    /// The cluster that leads to the broker.
    pub broker_cluster: Option<String>,
}

impl<'a> Plugin<'a> {
    /// Reads a plugin configuration; none when it is not ours.
    pub fn recognised(plugin: Node<'a>, filter_name: &str) -> Option<Self> {
        let settings = plugin.field("configuration").and_then(|any| opened_settings(&any));
        let setting = |name| settings.as_ref().and_then(|(settings, _)| settings.get(name));
        let ours = |name: &str| name.starts_with("attache");
        let named = |field| plugin.text(field).is_some_and(ours);
        let role = match setting("role").and_then(Value::as_str) {
            Some("gate") => Role::Gate,
            Some("judge") => Role::Judge,
            Some("door") => Role::Door,
            _ if ours(filter_name) || named("name") || named("root_id") => Role::Unknown,
            _ => return None,
        };
        let trusts_routes = setting("guarded").and_then(Value::as_bool).unwrap_or(false);
        let text = |name| setting(name).and_then(Value::as_str).map(str::to_owned);
        let trusts_door = setting("transport").and_then(Value::as_str) == Some("intercepted");
        let (instance, broker_cluster) = (text("instance"), text("broker_cluster"));
        Some(Self { node: plugin, role, instance, trusts_routes, trusts_door, broker_cluster })
    }
}

/// The settings a plugin or its VM receives, as JSON, and the path they stand at. Text that is not
/// JSON is one string.
pub(in super::super) fn opened_settings(any: &Node<'_>) -> Option<(Value, String)> {
    let Message { kind, node } = any.opened()?;
    let value = match kind {
        "google.protobuf.StringValue" => json_or_text(node.as_text()?),
        "google.protobuf.BytesValue" => json_or_text(&String::from_utf8_lossy(&STANDARD.decode(node.as_text()?).ok()?)),
        _ => node.value().clone(),
    };
    Some((value, node.path().to_owned()))
}

fn json_or_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}
