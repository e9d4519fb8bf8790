//! Where the key of a line is: in a field of its JSON, or before a separator.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Why a line gives no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("is not JSON: {0}")]
    NotJson(String),
    #[error("is JSON but no object, so it has no field {0:?} for a key")]
    NotAnObject(String),
    #[error("has no field {0:?} for a key")]
    NoField(String),
    #[error("has an object or an array in the field {0:?}, which makes no key")]
    NotScalar(String),
}

/// Reads the whole line as JSON and gives the key in the top-level `field`: the text of a string, the digits of a
/// number as they stand, `true` or `false`; None for null. The last one counts if the field comes twice, as in Postgres.
pub fn of_field<'a>(line: &'a [u8], field: &str) -> Result<Option<Cow<'a, [u8]>>, KeyError> {
    let text = std::str::from_utf8(line).map_err(|e| KeyError::NotJson(e.to_string()))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let found = FieldSeed(field)
        .deserialize(&mut reader)
        .and_then(|found| reader.end().map(|()| found))
        .map_err(|error| match error.is_data() {
            true => KeyError::NotAnObject(field.to_string()),
            false => KeyError::NotJson(error.to_string()),
        })?;
    let raw = found.ok_or_else(|| KeyError::NoField(field.to_string()))?.get();
    match raw.as_bytes().first() {
        Some(b'{' | b'[') => Err(KeyError::NotScalar(field.to_string())),
        Some(b'n') => Ok(None),
        Some(b'"') => string_key(raw).map(Some),
        _ => Ok(Some(Cow::Borrowed(raw.as_bytes()))),
    }
}

fn string_key(raw: &str) -> Result<Cow<'_, [u8]>, KeyError> {
    let inner = &raw.as_bytes()[1..raw.len() - 1];
    if !inner.contains(&b'\\') {
        return Ok(Cow::Borrowed(inner));
    }
    let text: String = serde_json::from_str(raw).map_err(|e| KeyError::NotJson(e.to_string()))?;
    Ok(Cow::Owned(text.into_bytes()))
}

/// The key before the first `separator` and the payload after it; None if it does not occur.
pub fn before<'a>(line: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = line.windows(separator.len().max(1)).position(|w| w == separator)?;
    Some((&line[..at], &line[at + separator.len()..]))
}

struct FieldSeed<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(NameSeed(self.0))? {
            if is_it {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Whether a field's name is the one that is looked for; no name is copied.
struct NameSeed<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(line: &str) -> Result<Option<String>, KeyError> {
        of_field(line.as_bytes(), "id").map(|k| k.map(|k| String::from_utf8_lossy(&k).into_owned()))
    }

    #[test]
    fn a_key_is_the_text_of_a_scalar() {
        for (line, expected) in [
            (r#"{"id":"a1"}"#, Some("a1")),
            (r#" {"x":{"id":"no"},"id":"a\u00e9\"b","y":[1]} "#, Some("aé\"b")),
            (r#"{"id":12.50}"#, Some("12.50")),
            (r#"{"id":true}"#, Some("true")),
            (r#"{"id":null}"#, None),
            (r#"{"\u0069d":"escaped name"}"#, Some("escaped name")),
            (r#"{"id":1,"id":2}"#, Some("2")),
            ("{\"id\":\"a\"}\r", Some("a")),
        ] {
            assert_eq!(key(line), Ok(expected.map(String::from)), "{line}");
        }
    }

    #[test]
    fn what_makes_no_key_is_said() {
        assert_eq!(key("{}"), Err(KeyError::NoField("id".into())));
        assert_eq!(key("[1]"), Err(KeyError::NotAnObject("id".into())));
        assert_eq!(key(r#"{"id":[1]}"#), Err(KeyError::NotScalar("id".into())));
        for bad in [r#"{"id":1"#, r#"{"id":1} x"#, "", "{\"a\":\"\u{1}\",\"id\":1}"] {
            assert!(matches!(key(bad), Err(KeyError::NotJson(_))), "{bad:?}");
        }
        assert!(matches!(of_field(b"{\"id\":\"\xff\"}", "id"), Err(KeyError::NotJson(_))));
    }

    #[test]
    fn a_separator_cuts_at_its_first_place() {
        assert_eq!(before(b"a\tb\tc", b"\t"), Some((&b"a"[..], &b"b\tc"[..])));
        assert_eq!(before(b"a::b", b"::"), Some((&b"a"[..], &b"b"[..])));
        assert_eq!(before(b"ab", b"::"), None);
        assert_eq!(before(b"", b"::"), None);
    }
}
