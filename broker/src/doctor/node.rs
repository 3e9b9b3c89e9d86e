//! One place in a parsed Envoy configuration, together with the path that leads to it.
//!
//! Reads a message as Envoy's own loader does (measured on 1.40): field names in `snake_case` or
//! `lowerCamelCase`, enums by name in any case or by number, booleans by several words,
//! `TypedStruct` in the place of a typed message. A stricter reader would let `failOpen: "yes"`
//! pass. A value of an unexpected type reads as absent; nothing here panics, nothing is fetched.

use serde_json::Value;

/// The longest value a finding quotes.
const QUOTED_CHARS: usize = 80;

/// A borrowed value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    value: &'a Value,
    path: String,
}

/// An `Any`, opened: the full name of its message and the message.
#[derive(Clone, Debug)]
pub(super) struct Message<'a> {
    pub kind: &'a str,
    pub node: Node<'a>,
}

impl<'a> Node<'a> {
    pub fn root(value: &'a Value, path: impl Into<String>) -> Self {
        Self { value, path: path.into() }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// A field that is written twice, in both spellings: which one Envoy takes depends on their
    /// order, which a parsed value no longer has.
    pub fn spelled_twice(&self) -> Option<&'a str> {
        let fields = self.value.as_object()?;
        fields.keys().find(|name| name.contains('_') && fields.contains_key(&camel(name))).map(String::as_str)
    }

    /// The field with this proto name; `null` is absent.
    pub fn field(&self, name: &str) -> Option<Node<'a>> {
        let fields = self.value.as_object()?;
        let (key, value) = fields.get_key_value(name).or_else(|| fields.get_key_value(&camel(name)))?;
        (!value.is_null()).then(|| self.below(key, value))
    }

    /// The field at the end of a dotted chain of proto names.
    pub fn at(&self, dotted: &str) -> Option<Node<'a>> {
        dotted.split('.').try_fold(self.clone(), |node, name| node.field(name))
    }

    /// The path `dotted` has, or would have if it were written down.
    pub fn would_be(&self, dotted: &str) -> String {
        let mut node = Some(self.clone());
        let mut path = self.path.clone();
        for name in dotted.split('.') {
            node = node.and_then(|node| node.field(name));
            path = node.as_ref().map_or_else(|| join(&path, name), |node| node.path.clone());
        }
        path
    }

    /// The entries of a repeated field; empty when there is none.
    pub fn list(&self, dotted: &str) -> Vec<Node<'a>> {
        self.at(dotted).map(|node| node.items()).unwrap_or_default()
    }

    /// The entries of this list.
    pub fn items(&self) -> Vec<Node<'a>> {
        let entries = self.value.as_array().map(Vec::as_slice).unwrap_or_default();
        let place = |(index, value)| Node { value, path: format!("{}[{index}]", self.path) };
        entries.iter().enumerate().map(place).collect()
    }

    /// The entries of this map, with their keys.
    pub fn entries(&self) -> Vec<(&'a str, Node<'a>)> {
        let fields = self.value.as_object().into_iter().flatten();
        fields.map(|(key, value)| (key.as_str(), self.below(key, value))).collect()
    }

    pub fn as_text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// The text of a field; absent and empty are the same in proto3.
    pub fn text(&self, dotted: &str) -> Option<&'a str> {
        self.at(dotted).and_then(|node| node.as_text()).filter(|text| !text.is_empty())
    }

    /// True where Envoy reads true: the words of its number parser, and those of YAML 1.1.
    pub fn is_true(&self) -> bool {
        const TRUTHS: [&str; 6] = ["true", "t", "yes", "y", "1", "on"];
        let spelled = |text: &str| TRUTHS.iter().any(|truth| truth.eq_ignore_ascii_case(text));
        self.value.as_bool().unwrap_or_else(|| self.as_text().is_some_and(spelled))
    }

    pub fn flag(&self, dotted: &str) -> bool {
        self.at(dotted).is_some_and(|node| node.is_true())
    }

    /// Whether this enum holds the value with this name and number.
    pub fn names(&self, name: &str, number: i64) -> bool {
        self.as_text().is_some_and(|text| text.eq_ignore_ascii_case(name)) || integer(self.value) == Some(number)
    }

    pub fn number(&self, dotted: &str) -> Option<u64> {
        integer(self.at(dotted)?.value)?.try_into().ok()
    }

    /// A proto duration (`"1.5s"`), in seconds.
    pub fn as_seconds(&self) -> Option<f64> {
        self.as_text()?.strip_suffix('s')?.parse().ok()
    }

    /// Opens the `Any` in a field.
    pub fn message(&self, dotted: &str) -> Option<Message<'a>> {
        self.at(dotted)?.opened()
    }

    /// Opens this `Any`: looks through `TypedStruct`, and into the `value` of a well-known type.
    pub fn opened(&self) -> Option<Message<'a>> {
        let kind = full_name(self.value.get("@type")?.as_str()?);
        match kind {
            "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct" => {
                Some(Message { kind: full_name(self.text("type_url")?), node: self.field("value")? })
            }
            _ if kind.starts_with("google.protobuf.") => Some(Message { kind, node: self.field("value")? }),
            _ => Some(Message { kind, node: self.clone() }),
        }
    }

    /// Visits this node and all below it, parents first; `false` from the visitor skips what is
    /// below. Depth is bounded by the parsers (128 levels at most).
    pub fn walk(&self, visit: &mut impl FnMut(&Node<'a>) -> bool) {
        if !visit(self) {
            return;
        }
        for child in self.items() {
            child.walk(visit);
        }
        for (_, child) in self.entries() {
            child.walk(visit);
        }
    }

    /// All texts at or below this node.
    pub fn texts(&self) -> Vec<(&'a str, Node<'a>)> {
        let mut found = Vec::new();
        self.walk(&mut |node| {
            found.extend(node.as_text().map(|text| (text, node.clone())));
            true
        });
        found
    }

    fn below(&self, key: &str, value: &'a Value) -> Node<'a> {
        Node { value, path: join(&self.path, key) }
    }
}

/// How a finding quotes a setting. Never called on a place that may hold a secret.
pub(super) fn shown(node: Option<&Node<'_>>) -> String {
    match node.map(Node::value) {
        None => "absent".to_owned(),
        Some(Value::Array(entries)) => format!("a list of {}", entries.len()),
        Some(Value::Object(_)) => "set".to_owned(),
        Some(scalar) => scalar.to_string().chars().take(QUOTED_CHARS).collect(),
    }
}

/// An integer as proto JSON may write it: `3`, `3.0` or `"3"`.
fn integer(value: &Value) -> Option<i64> {
    // Beyond 2^53 no setting we read makes sense.
    #[expect(clippy::cast_possible_truncation)]
    let whole = |number: f64| (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64);
    match value {
        Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn full_name(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or(type_url)
}

fn join(path: &str, key: &str) -> String {
    let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '@'));
    match (path.is_empty(), plain) {
        (true, true) => key.to_owned(),
        (false, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{key:?}]"),
    }
}

/// The JSON name of a proto field, by protobuf's rule.
fn camel(name: &str) -> String {
    let mut upper = false;
    let mut camel = String::with_capacity(name.len());
    for c in name.chars() {
        match (c, upper) {
            ('_', _) => upper = true,
            (c, true) => {
                camel.push(c.to_ascii_uppercase());
                upper = false;
            }
            (c, false) => camel.push(c),
        }
    }
    camel
}
