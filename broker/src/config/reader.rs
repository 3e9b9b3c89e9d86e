//! From a tree to a type, finding every fault on the way.
//!
//! serde stops at the first fault. So the part that fails is left out and the tree is read again,
//! until the rest can be read: types stay plain, and all faults are found. No fault quotes a
//! value, for it may be a secret in the wrong place.

use super::tree::{Entry, Node, Place, Value};
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Unexpected, Visitor};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

/// One fault: where in the config, and what.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub path: String,
    pub place: Place,
    pub message: String,
}

/// What could be read, and what could not.
#[derive(Debug)]
pub(super) struct Reading<T> {
    /// `None` when nothing of the document fits.
    pub value: Option<T>,
    pub faults: Vec<Fault>,
    /// Paths left out of `value`.
    pub left_out: BTreeSet<String>,
}

/// Reads a whole document.
pub(super) fn read<T: DeserializeOwned>(root: &Node) -> Reading<T> {
    let mut reading = Reading { value: None, faults: Vec::new(), left_out: BTreeSet::new() };
    loop {
        let state = State { left_out: &reading.left_out, fault: RefCell::new(None) };
        let error = match T::deserialize(At { node: root, path: String::new(), state: &state }) {
            Ok(value) => {
                reading.value = Some(value);
                return reading;
            }
            Err(error) => error,
        };
        let Blame { path, place, error } =
            state.fault.into_inner().unwrap_or(Blame { path: String::new(), place: root.place, error });
        // What lacks a part that was left out is no second fault.
        let follows = match error.missing {
            Some(field) => reading.left_out.contains(&join(&path, field)),
            None => reading.left_out.iter().any(|out| is_below(out, &path)),
        };
        if !follows {
            reading.faults.push(Fault { path: path.clone(), place, message: error.message });
        }
        // Each round leaves out one part more, so this ends.
        if path.is_empty() || !reading.left_out.insert(path) {
            return reading;
        }
    }
}

/// A config path, one key longer.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Whether a config path names something inside what another names.
pub(super) fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| above.is_empty() || rest.starts_with(['.', '[']))
}

struct State<'a> {
    left_out: &'a BTreeSet<String>,
    fault: RefCell<Option<Blame>>,
}

/// What stopped one round of reading.
struct Blame {
    path: String,
    place: Place,
    error: ReadError,
}

impl State<'_> {
    /// Notes where a fault is. The innermost place is told first and stays.
    fn blame<T>(&self, path: &str, place: Place, result: Result<T, ReadError>) -> Result<T, ReadError> {
        if let Err(error) = &result {
            let blame = || Blame { path: path.to_owned(), place, error: error.clone() };
            self.fault.borrow_mut().get_or_insert_with(blame);
        }
        result
    }
}

/// A node about to be read.
struct At<'a> {
    node: &'a Node,
    path: String,
    state: &'a State<'a>,
}

impl<'a> At<'a> {
    fn mapping(self) -> Result<Fields<'a>, ReadError> {
        match &self.node.value {
            Value::Map(entries) => {
                Ok(Fields { entries: entries.iter(), next: None, path: self.path, state: self.state })
            }
            // `credentials:` with nothing below it is an empty mapping.
            Value::Null => Ok(Fields { entries: [].iter(), next: None, path: self.path, state: self.state }),
            other => Err(de::Error::invalid_type(other.unexpected(), &"a mapping")),
        }
    }

    fn list(self) -> Result<Items<'a>, ReadError> {
        match &self.node.value {
            Value::List(items) => Ok(Items { items: items.iter().enumerate(), path: self.path, state: self.state }),
            Value::Null => Ok(Items { items: [].iter().enumerate(), path: self.path, state: self.state }),
            other => Err(de::Error::invalid_type(other.unexpected(), &"a list")),
        }
    }
}

impl<'de> de::Deserializer<'de> for At<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Signed(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_str(text),
            Value::List(_) => visitor.visit_seq(self.list()?),
            Value::Map(_) => visitor.visit_map(self.mapping()?),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_map(self.mapping()?)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_map(self.mapping()?)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_seq(self.list()?)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Text(word) => {
                let word: de::value::StrDeserializer<'_, ReadError> = word.as_str().into_deserializer();
                word.deserialize_enum(name, variants, visitor)
            }
            Value::Map(entries) if entries.len() == 1 => {
                visitor.visit_enum(de::value::MapAccessDeserializer::new(self.mapping()?))
            }
            other => Err(de::Error::invalid_type(other.unexpected(), &one_of(variants).as_str())),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string
        bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// The lines of a mapping, without those left out.
struct Fields<'a> {
    entries: std::slice::Iter<'a, Entry>,
    next: Option<&'a Entry>,
    path: String,
    state: &'a State<'a>,
}

impl<'de> de::MapAccess<'de> for Fields<'_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        let (path, left_out) = (&self.path, self.state.left_out);
        self.next = self.entries.find(|entry| !left_out.contains(&join(path, &entry.key)));
        let Some(entry) = self.next else { return Ok(None) };
        let key: de::value::StrDeserializer<'_, ReadError> = entry.key.as_str().into_deserializer();
        self.state.blame(&join(path, &entry.key), entry.place, seed.deserialize(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let Some(entry) = self.next.take() else { return Err(de::Error::custom("a value without a key")) };
        let path = join(&self.path, &entry.key);
        let at = At { node: &entry.node, path: path.clone(), state: self.state };
        self.state.blame(&path, entry.node.place, seed.deserialize(at))
    }
}

/// The entries of a list, without those left out; each keeps the index it was written with.
struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
    path: String,
    state: &'a State<'a>,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        for (index, node) in self.items.by_ref() {
            let path = format!("{}[{index}]", self.path);
            if !self.state.left_out.contains(&path) {
                let at = At { node, path: path.clone(), state: self.state };
                return self.state.blame(&path, node.place, seed.deserialize(at)).map(Some);
            }
        }
        Ok(None)
    }
}

impl Value {
    fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Unsigned(value) => Unexpected::Unsigned(*value),
            Value::Signed(value) => Unexpected::Signed(*value),
            Value::Float(value) => Unexpected::Float(*value),
            Value::Text(text) => Unexpected::Str(text),
            Value::List(_) => Unexpected::Seq,
            Value::Map(_) => Unexpected::Map,
        }
    }
}

/// serde's errors in our words: they say what is wanted, and never what stood there.
#[derive(Clone, Debug)]
struct ReadError {
    message: String,
    missing: Option<&'static str>,
}

impl ReadError {
    fn new(message: String) -> Self {
        Self { message, missing: None }
    }
}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let kind = match found {
            Unexpected::Unit => "nothing",
            Unexpected::Bool(_) => "true or false",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
            Unexpected::Map => "a mapping",
            Unexpected::Seq => "a list",
            _ => "text",
        };
        let wanted = expected.to_string();
        let quote = wanted.contains("string") && matches!(kind, "a number" | "true or false");
        let advice = if quote { "; put it in quotes" } else { "" };
        Self::new(format!("expected {wanted}, found {kind}{advice}"))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {expected}"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("expected {}", one_of(expected)))
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown field; expected {}", one_of(expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { message: format!("`{field}` is missing"), missing: Some(field) }
    }
}

fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ReadError {}

#[cfg(test)]
mod tests {
    use super::*;
    use attache_core::names::Name;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(default)]
        inners: BTreeMap<Name, Inner>,
        #[serde(default)]
        list: Vec<Name>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        port: u16,
        word: Option<Word>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        One,
        Two { three: String },
    }

    fn faults(text: &str) -> (Option<Outer>, Vec<String>) {
        let reading = read::<Outer>(&super::super::tree::parse(text).unwrap());
        (reading.value, reading.faults.iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect())
    }

    #[test]
    fn all_faults_are_found_and_the_rest_is_read() {
        let text = "
            typo: 1
            inners:
              a: {port: 70000, word: one}
              B: {port: 1}
              c: {port: 1, word: three, extra: [], more: 1}
              d: {word: {two: {three: 3}}}
              e: {port: 5, word: {two: {three: x}}}
            list: [x, Y, z, 3]";
        let (value, faults) = faults(text);
        let value = value.unwrap();
        assert_eq!(value.inners.keys().map(Name::as_str).collect::<Vec<_>>(), ["c", "e"]);
        assert!(matches!(&value.inners.values().last().unwrap().word, Some(Word::Two { three }) if three == "x"));
        assert_eq!(value.inners.values().map(|inner| inner.port).collect::<Vec<_>>(), [1, 5]);
        assert_eq!(value.list.len(), 2);
        assert_eq!(
            faults,
            [
                "typo: unknown field; expected `inners` or `list`",
                "inners.a.port: expected u16",
                "inners.B: a name is made of a-z, 0-9, '-' and '_', and begins with a letter or a digit",
                "inners.c.word: expected `one` or `two`",
                "inners.c.extra: unknown field; expected `port` or `word`",
                "inners.c.more: unknown field; expected `port` or `word`",
                "inners.d.word.two.three: expected a string, found a number; put it in quotes",
                "inners.d: `port` is missing",
                "list[1]: a name is made of a-z, 0-9, '-' and '_', and begins with a letter or a digit",
                "list[3]: expected a string, found a number; put it in quotes",
            ]
        );
    }

    #[test]
    fn a_document_of_another_kind_is_one_fault() {
        let (value, found) = faults("[1, 2]");
        assert!(value.is_none());
        assert_eq!(found, [": expected a mapping, found a list"]);
        assert_eq!(faults("").1, Vec::<String>::new());
    }
}
