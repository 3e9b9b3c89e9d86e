//! Query strings, parameter by parameter.

use super::percent;

/// One `name=value` pair, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// The whole text between two `&`.
    pub text: &'a [u8],
    /// What stands before the first `=`.
    pub name: &'a [u8],
    /// What stands after it.
    pub value: &'a [u8],
}

/// Parameters, in order.
struct Parameters<'a> {
    /// What is not read yet.
    rest: Option<&'a [u8]>,
    /// Whether a `;` ends one, too.
    semicolons: bool,
    /// What is read once more after that, with semicolons.
    again: Option<&'a [u8]>,
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Parameter<'a>;

    // Read in many places, and small in one.
    #[inline(never)]
    fn next(&mut self) -> Option<Parameter<'a>> {
        let rest = match self.rest.take() {
            Some(rest) => rest,
            None => {
                self.semicolons = true;
                self.again.take()?
            }
        };
        let end = if self.semicolons { memchr::memchr2(b'&', b';', rest) } else { memchr::memchr(b'&', rest) };
        let text = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        self.rest = end.and_then(|end| rest.get(end + 1..));
        let at = memchr::memchr(b'=', text).unwrap_or(text.len());
        Some(Parameter {
            text,
            name: text.get(..at).unwrap_or_default(),
            value: text.get(at + 1..).unwrap_or_default(),
        })
    }
}

/// All parameters, in order.
pub fn parameters(query: &[u8]) -> impl Iterator<Item = Parameter<'_>> {
    Parameters { rest: Some(query), semicolons: false, again: None }
}

/// The parameters of one [`Parameter::text`] to a server that splits at `;` too.
pub fn pieces(text: &[u8]) -> impl Iterator<Item = Parameter<'_>> {
    Parameters { rest: Some(text), semicolons: true, again: None }
}

/// All parameters as any server may see them: some split at `;` too.
pub fn loose_parameters(query: &[u8]) -> impl Iterator<Item = Parameter<'_>> {
    // Without a `;` both read the same.
    let again = memchr::memchr(b';', query).map(|_| query);
    Parameters { rest: Some(query), semicolons: false, again }
}

/// Whether `written`, percent-decoded and with `+` as a space, is exactly `plain`.
pub fn decodes_to(written: &[u8], plain: &[u8]) -> bool {
    decode(written).eq(plain.iter().copied())
}

/// Whether `written` is `plain` to a server that takes both cases for the same.
pub fn resembles(written: &[u8], plain: &[u8]) -> bool {
    let (Some(first), Some(wanted)) = (written.first(), plain.first()) else {
        return written.is_empty() && plain.is_empty();
    };
    // Mostly the first byte tells.
    if first.is_ascii_alphanumeric() && !first.eq_ignore_ascii_case(wanted) {
        return false;
    }
    decode(written).map(|b| b.to_ascii_lowercase()).eq(plain.iter().map(u8::to_ascii_lowercase))
}

/// Whether `written` is `plain` to any server: one that folds case, or overlooks white space around.
pub fn could_mean(written: &[u8], plain: &[u8]) -> bool {
    let decoded: Vec<u8> = decode(written).collect();
    decoded.trim_ascii().eq_ignore_ascii_case(plain.trim_ascii())
}

/// Whether some server takes a parameter of this name for one value of `plain`, or for its only
/// one: `plain` as in [`could_mean`], or an element of it (`plain[]`, `plain[0]`).
pub fn could_belong_to(written: &[u8], plain: &[u8]) -> bool {
    let decoded: Vec<u8> = decode(written).collect();
    let stem = decoded.split(|b| *b == b'[').next().unwrap_or_default();
    stem.trim_ascii().eq_ignore_ascii_case(plain.trim_ascii()) || could_mean(written, plain)
}

/// Percent-decodes (`+` is a space); a broken escape stands for itself, as most servers read it.
pub fn decode(written: &[u8]) -> impl Iterator<Item = u8> + '_ {
    percent::decode(written, b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    #[test]
    fn parameters_are_read_as_servers_read_them() {
        let pairs: Vec<_> = parameters(b"a=1&b&=c&d=e=f").map(|p| (p.name, p.value)).collect();
        assert_eq!(pairs, [(&b"a"[..], &b"1"[..]), (b"b", b""), (b"", b"c"), (b"d", b"e=f")]);
        assert!(decodes_to(b"%61ccess%5ftoken", b"access_token"));
        assert!(decodes_to(b"a+b%2", b"a b%2"));
        assert!(!decodes_to(b"access_token2", b"access_token"));
        assert!(resembles(b"Access%5FTOKEN", b"access_token") && !resembles(b"access_toke", b"access_token"));
    }
}
