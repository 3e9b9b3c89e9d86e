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

/// Whether `written` is `plain` to some server. Servers fold case, overlook white space around a name, end it at a NUL,
/// and take other characters for `_`: PHP does so with dots, spaces and open brackets
/// (<https://www.php.net/manual/en/language.variables.external.php>), and what makes variables of headers with all but
/// letters and digits.
pub fn resembles(written: &[u8], plain: &[u8]) -> bool {
    after(written, plain).is_some_and(|mut rest| rest.all(is_blank))
}

/// Whether some server takes a parameter of this name for one value of `plain`, or for its only one: `plain` as in
/// [`resembles`], or an element of it (`plain[]`, `plain[0]`, `plain.0`).
pub fn could_belong_to(written: &[u8], plain: &[u8]) -> bool {
    after(written, plain).is_some_and(|mut rest| matches!(rest.find(|b| !is_blank(*b)), None | Some(b'[' | b'.')))
}

/// What follows `plain` in what a server may read of `written`; `None`: it is something else.
fn after<'a>(written: &'a [u8], plain: &[u8]) -> Option<impl Iterator<Item = u8> + use<'a>> {
    let plain = plain.trim_ascii();
    // Mostly the first byte tells.
    if let (Some(first), Some(wanted)) = (written.first(), plain.first())
        && first.is_ascii_alphanumeric()
        && !first.eq_ignore_ascii_case(wanted)
    {
        return None;
    }
    let mut rest = decode(written).take_while(|b| *b != 0).skip_while(|b| is_blank(*b));
    plain.iter().all(|wanted| rest.next().is_some_and(|found| folded(found) == folded(*wanted))).then_some(rest)
}

/// White space, and what else some trim away with it.
fn is_blank(byte: u8) -> bool {
    byte <= b' '
}

fn folded(byte: u8) -> u8 {
    match byte {
        // Google's parameters begin with it; beyond ASCII nothing is folded.
        b'$' | 0x80.. => byte,
        _ if byte.is_ascii_alphanumeric() => byte.to_ascii_lowercase(),
        _ => b'_',
    }
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

    #[test]
    fn a_name_is_what_any_server_makes_of_it() {
        let spellings: [&[u8]; 9] = [
            b"access.token",
            b"access+token",
            b"access[token",
            b"access-token",
            b"+access_token%0b",
            b"access_token%00",
            b"access_token%00x",
            b"%41ccess%2eTOKEN",
            b"%09access_token+",
        ];
        for written in spellings {
            assert!(resembles(written, b"access_token"), "{written:?}");
            assert!(could_belong_to(written, b"access_token"), "{written:?}");
        }
        for written in [&b"access_tokens"[..], b"xaccess_token", b"access", b"", b"%00access_token", b"access_token%e4"]
        {
            assert!(!resembles(written, b"access_token"), "{written:?}");
        }
        for written in [&b"action[]"[..], b"action[0]", b"action.0", b"action+[x]", b"Action%5b%5d"] {
            assert!(could_belong_to(written, b"action") && !resembles(written, b"action"), "{written:?}");
        }
        assert!(resembles(b"X.HTTP.Method.Override", b"x-http-method-override") && resembles(b"", b""));
        assert!(!resembles(b"_httpheaders", b"$httpheaders"));
    }
}
