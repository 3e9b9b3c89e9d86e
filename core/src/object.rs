//! Reading JSON objects as nothing else. A derived reader of a struct takes a list of its members, too:
//! a second way to write the same thing, which no description of the wire names.

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// Something that is written as an object.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_map(Members(PhantomData))
    }
}

/// Reads a struct from an object. For `deserialize_with`, and for whole bodies.
///
/// # Errors
/// Anything but an object, and what `T` itself refuses.
pub fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(input: D) -> Result<T, D::Error> {
    Object::deserialize(input).map(|object| object.0)
}

/// The same of a member that may be `null`.
///
/// # Errors
/// As [`object`].
pub fn object_or_null<'de, T: Deserialize<'de>, D: Deserializer<'de>>(input: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(input)?.map(|object| object.0))
}

/// Reads a map from an object in which no member stands twice: a derived reader takes the last of them, and another the
/// first. For `deserialize_with`.
///
/// # Errors
/// Anything but an object, a member that is there already, and what `K` and `V` themselves refuse.
pub fn members_once<'de, K, V, D>(input: D) -> Result<BTreeMap<K, V>, D::Error>
where
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
    D: Deserializer<'de>,
{
    input.deserialize_map(Once(PhantomData))
}

struct Once<K, V>(PhantomData<(K, V)>);

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for Once<K, V> {
    type Value = BTreeMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some(name) = members.next_key()? {
            if map.contains_key(&name) {
                return Err(A::Error::custom("a member stands here twice"));
            }
            map.insert(name, members.next_value()?);
        }
        Ok(map)
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(deserialize_with = "object")]
        one: Inner,
        #[serde(default, deserialize_with = "object_or_null")]
        other: Option<Inner>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        a: u8,
    }

    fn read(text: &str) -> Result<Outer, serde_json::Error> {
        let mut input = serde_json::Deserializer::from_str(text);
        let outer = object(&mut input)?;
        input.end().map(|()| outer)
    }

    #[test]
    fn a_list_of_members_is_no_object() {
        assert!(serde_json::from_str::<Inner>("[1]").is_ok(), "else this file can go");
        for bad in [r#"[{"a":1}]"#, r#"{"one":[1]}"#, r#"{"one":{"a":1},"other":[1]}"#, "null", "1", r#""x""#] {
            let why = read(bad).unwrap_err().to_string();
            assert!(why.contains("expected an object"), "{bad}: {why}");
        }
    }

    #[test]
    fn a_map_has_no_member_twice() {
        let map = |text: &str| members_once::<String, u8, _>(&mut serde_json::Deserializer::from_str(text));
        assert_eq!(map(r#"{"a":1,"b":1}"#).unwrap().len(), 2);
        for bad in [r#"{"a":1,"a":2}"#, r#"{"a":1,"b":1,"a":1}"#, r#"{"a":1,"\u0061":1}"#, "[]", "null"] {
            let why = map(bad).unwrap_err().to_string();
            let said = if bad.starts_with('{') { "a member stands here twice" } else { "expected an object" };
            assert!(why.contains(said), "{bad}: {why}");
        }
    }

    #[test]
    fn what_else_is_refused_stays_refused() {
        assert_eq!(read(r#"{"one":{"a":1}}"#).unwrap(), Outer { one: Inner { a: 1 }, other: None });
        assert_eq!(read(r#"{"one":{"a":1},"other":null}"#).unwrap().other, None);
        assert_eq!(read(r#"{"one":{"a":1},"other":{"a":2}}"#).unwrap().other, Some(Inner { a: 2 }));
        for bad in [
            r#"{"one":{"a":1,"a":1}}"#,
            r#"{"one":{"a":1},"one":{"a":1}}"#,
            r#"{"one":{"a":1,"b":1}}"#,
            r#"{"one":{"a":1}} {}"#,
            r#"{"one":{"a":300}}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(read("{\"one\":\n{\"a\":300}}").unwrap_err().line(), 2, "it still says where");
    }
}
