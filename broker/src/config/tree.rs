//! YAML as a tree in which every value knows its line and column.
//!
//! Parsing keeps nothing but text, numbers and places; what they mean is for [`super::reader`].

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// A place in a file, both counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
}

/// A YAML value; scalars are resolved by the core schema of YAML 1.2.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One line of a mapping.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: String,
    pub place: Place,
    pub node: Node,
}

/// Mappings, lists and scalars in one config: 10,000 credentials have some 300,000, 100,000 destinations a million.
/// The file's size bounds them too; aliases have a bound of their own, which is the library's.
const MOST_NODES: usize = 4_000_000;

/// The text is not YAML.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub place: Option<Place>,
    pub message: String,
}

/// Parses one document. An empty one is [`Value::Null`].
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    // Snippets would quote the file, and who knows what stands in a broken one.
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        budget: serde_saphyr::budget! { max_nodes: MOST_NODES, max_events: 2 * MOST_NODES }
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location().map(Place::from);
        SyntaxError { place, message: error.render_with_options(bare()) }
    })
}

impl Node {
    /// The value under a key of a mapping.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The place of what a config path (`a.b[0].c`) names, or of the nearest thing above it.
    pub fn place_of(&self, path: &str) -> Place {
        let (mut node, mut place) = (self, self.place);
        for step in steps(path) {
            let found = match (&step, &node.value) {
                (Step::Key(key), _) => node.entry(key).map(|entry| (&entry.node, entry.place)),
                (Step::Index(index), Value::List(items)) => items.get(*index).map(|item| (item, item.place)),
                (Step::Index(_), _) => None,
            };
            let Some((below, its_place)) = found else { break };
            // A scalar's own place says more than its key's.
            place = if matches!(below.value, Value::Map(_) | Value::List(_)) { its_place } else { below.place };
            node = below;
        }
        place
    }
}

enum Step {
    Key(String),
    Index(usize),
}

/// Takes a config path apart. Keys with dots in them do not exist in this grammar.
fn steps(path: &str) -> impl Iterator<Item = Step> {
    path.split('.').flat_map(|part| {
        let mut pieces = part.split('[');
        let key = pieces.next().filter(|key| !key.is_empty()).map(|key| Step::Key(key.to_owned()));
        let indices = pieces.filter_map(|piece| piece.trim_end_matches(']').parse().ok().map(Step::Index));
        key.into_iter().chain(indices.collect::<Vec<_>>())
    })
}

fn bare() -> serde_saphyr::RenderOptions<'static> {
    let mut options = serde_saphyr::RenderOptions::default();
    options.snippets = serde_saphyr::SnippetMode::Off;
    options
}

impl From<serde_saphyr::Location> for Place {
    fn from(location: serde_saphyr::Location) -> Self {
        Place { line: location.line(), column: location.column() }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Node { place: spanned.referenced.into(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::Signed(value), Value::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(node) = seq.next_element()? {
            items.push(node);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<Entry> = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            // The parser refuses duplicates too; this does not depend on its options.
            if entries.iter().any(|entry| entry.key == key.value) {
                return Err(A::Error::custom("a key stands twice in one mapping"));
            }
            let (place, node) = (key.referenced.into(), map.next_value()?);
            entries.push(Entry { key: key.value, place, node });
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_place() {
        let text = "a: 1\nb:\n  - c: x\n    d: [y, z]\n  - 'e'\n";
        let root = parse(text).unwrap();
        let at = |path| {
            let place = root.place_of(path);
            (place.line, place.column)
        };
        assert_eq!(at("a"), (1, 4));
        assert_eq!(at("b"), (2, 1));
        assert_eq!(at("b[0].c"), (3, 8));
        assert_eq!(at("b[0].d[1]"), (4, 12));
        assert_eq!(at("b[1]"), (5, 5));
        assert_eq!(at("b[0].missing"), (3, 5));
    }

    #[test]
    fn broken_yaml_names_its_place_and_quotes_nothing() {
        for text in ["a: [s3cret", "s3cret: 1\ns3cret: 2\n", "a: !s3cret 1", "a: *s3cret", "\"s3cret"] {
            let error = parse(text).unwrap_err();
            assert!(error.place.is_some(), "{text:?}");
            assert!(!error.message.contains('\n'), "{:?}", error.message);
        }
    }

    #[test]
    fn an_empty_document_is_null() {
        for text in ["", "# nothing\n", "---\n"] {
            assert!(matches!(parse(text).unwrap().value, Value::Null), "{text:?}");
        }
    }
}
