//! Header lines as they stood on the wire: raw bytes, every line, in order.

use std::fmt;

use bytes::Bytes;

/// An ordered list of header (or trailer) lines. Names keep their case; lookups ignore it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(Bytes, Bytes)>);

impl Fields {
    /// Appends one line.
    pub fn push(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.0.push((Bytes::copy_from_slice(name.as_ref()), Bytes::copy_from_slice(value.as_ref())));
    }

    /// The value of the first line of that name.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v)
    }

    /// The values of all lines of that name, in order.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        let same = |own: &[u8]| own.eq_ignore_ascii_case(name.as_bytes());
        self.iter().filter(|(own, _)| same(own)).map(|(_, value)| value).collect()
    }

    /// The first value of that name as text, bytes that are not UTF-8 replaced.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        self.first(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// Whether any line has that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// Every line as (name, value).
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (&name[..], &value[..]))
    }

    /// Takes the first line of that exact name out.
    pub(crate) fn take(&mut self, name: &[u8]) -> Option<Bytes> {
        let at = self.0.iter().position(|(own, _)| own == name)?;
        Some(self.0.remove(at).1)
    }

    /// All lines as `name: value\n`, for searching and for reading.
    #[must_use]
    pub fn to_lines(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in self.iter() {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.push(b'\n');
        }
        out
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(lines: I) -> Self {
        let mut fields = Self::default();
        for (name, value) in lines {
            fields.push(name, value);
        }
        fields
    }
}

impl From<&http::HeaderMap> for Fields {
    fn from(map: &http::HeaderMap) -> Self {
        map.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
        f.debug_list().entries(self.iter().map(|(n, v)| format!("{}: {}", shown(n), shown(v)))).finish()
    }
}
