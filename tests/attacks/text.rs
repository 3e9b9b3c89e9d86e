//! Texts of cases: bytes as they will stand on the wire, with escapes for those that no file shows, and variables for
//! what is made anew at each start.
//!
//! `\xNN`, `\r`, `\n`, `\t` and `\\` are bytes; `{{name}}` and `{{name:…}}` are variables, and one may stand in another.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use flate2::Compression;
use flate2::write::GzEncoder;

/// A text as a case writes it, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    /// Here a body is cut into pieces that are sent one after the other.
    Split,
    /// A variable: its name, its words, and the text that it changes.
    Call(&'static Variable, Vec<String>, Text),
}

/// A variable: how many words it takes, parted by colons, and whether a text follows them.
#[derive(Debug, PartialEq, Eq)]
struct Variable {
    name: &'static str,
    words: usize,
    text: bool,
    what: &'static str,
}

const fn of(name: &'static str, words: usize, text: bool, what: &'static str) -> Variable {
    Variable { name, words, text, what }
}

/// All of them. The first ones are the run's, the others change a text.
static VARIABLES: [Variable; 28] = [
    of("placeholder", 1, false, "`{{placeholder:writer.github}}`: what a session's agent has for a credential"),
    of("token", 1, false, "`{{token:writer}}`: a session's token"),
    of("secret", 1, false, "`{{secret:github}}`: a credential; in `reply` and `answer` alone"),
    of("door", 0, false, "`{{door}}`: what the filters show to the broker"),
    of("jwt", 0, false, "`{{jwt}}`: the JWT that the section `jwt` describes"),
    of("issuer", 0, false, "`{{issuer}}`: who the broker believes"),
    of("in", 1, false, "`{{in:60}}`: Unix time in so many seconds; `{{in:-1}}` is over"),
    of("nothing", 0, false, "`{{nothing}}`: no byte, where something must stand"),
    of("split", 0, false, "`{{split}}`: a body is sent in pieces, cut here"),
    of("base64", 0, true, "`{{base64:TEXT}}`"),
    of("base64url", 0, true, "`{{base64url:TEXT}}`"),
    of("hex", 0, true, "`{{hex:TEXT}}`: `6a`"),
    of("HEX", 0, true, "`{{HEX:TEXT}}`: `6A`"),
    of("percent", 0, true, "`{{percent:TEXT}}`: `%6a`"),
    of("PERCENT", 0, true, "`{{PERCENT:TEXT}}`: `%6A`"),
    of("json", 0, true, "`{{json:TEXT}}`: `\\u006a`"),
    of("gzip", 0, true, "`{{gzip:TEXT}}`"),
    of("utf16le", 0, true, "`{{utf16le:TEXT}}`: with its mark"),
    of("utf16be", 0, true, "`{{utf16be:TEXT}}`: with its mark"),
    of("stars", 0, true, "`{{stars:TEXT}}`: a `*` for each byte, as masking leaves them"),
    of("lower", 0, true, "`{{lower:TEXT}}`: in lower case"),
    of("reversed", 0, true, "`{{reversed:TEXT}}`: backwards"),
    of("altered", 0, true, "`{{altered:TEXT}}`: its last letter another"),
    of("short", 0, true, "`{{short:TEXT}}`: without its last letter"),
    of("first", 1, true, "`{{first:9:TEXT}}`: its first bytes"),
    of("from", 1, true, "`{{from:9:TEXT}}`: what comes after them"),
    of("repeat", 1, true, "`{{repeat:100:TEXT}}`: over and over"),
    of("replace", 2, true, "`{{replace:THIS:THAT:TEXT}}`: the first THIS of a text becomes THAT"),
];

/// What a run has for its variables.
pub trait Values {
    /// The bytes of a variable that takes no text.
    fn value(&self, name: &str, word: &str) -> Vec<u8>;
}

impl Text {
    /// Understands a text.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub fn parse(raw: &str) -> Result<Self, String> {
        let mut rest = raw;
        let text = Self::read(&mut rest, false)?;
        Ok(text)
    }

    /// Reads to the end, or within a variable to its `}}`, which is taken.
    fn read(rest: &mut &str, inside: bool) -> Result<Self, String> {
        let (mut pieces, mut bytes) = (Vec::new(), Vec::new());
        loop {
            if inside && let Some(after) = rest.strip_prefix("}}") {
                *rest = after;
                break;
            }
            if let Some(after) = rest.strip_prefix("{{") {
                *rest = after;
                if !bytes.is_empty() {
                    pieces.push(Piece::Bytes(std::mem::take(&mut bytes)));
                }
                pieces.push(Self::variable(rest)?);
            } else if let Some(after) = rest.strip_prefix('\\') {
                *rest = after;
                bytes.push(escaped(rest)?);
            } else if let Some(letter) = rest.chars().next() {
                *rest = &rest[letter.len_utf8()..];
                bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            } else if inside {
                return Err("a variable has no end: close it with }}".into());
            } else {
                break;
            }
        }
        if !bytes.is_empty() {
            pieces.push(Piece::Bytes(bytes));
        }
        Ok(Self(pieces))
    }

    fn variable(rest: &mut &str) -> Result<Piece, String> {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let name = &rest[..end];
        let Some(variable) = VARIABLES.iter().find(|variable| variable.name == name) else {
            let known: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
            return Err(format!(
                "there is no variable {name:?}: write one of {}, or two braces that are none as \\x7b\\x7b",
                known.join(", ")
            ));
        };
        *rest = &rest[end..];
        let mut words = Vec::new();
        for _ in 0..variable.words {
            let Some(after) = rest.strip_prefix(':') else { return Err(format!("write {}", variable.what)) };
            let end = after.find([':', '}']).unwrap_or(after.len());
            words.push(after[..end].to_owned());
            *rest = &after[end..];
        }
        let counts = matches!(name, "in" | "first" | "from" | "repeat");
        if words.iter().any(|word| word.is_empty() || (counts && word.parse::<i64>().is_err())) {
            return Err(format!("write {}", variable.what));
        }
        if variable.text {
            let Some(after) = rest.strip_prefix(':') else { return Err(format!("write {}", variable.what)) };
            *rest = after;
            return Ok(Piece::Call(variable, words, Self::read(rest, true)?));
        }
        let Some(after) = rest.strip_prefix("}}") else { return Err(format!("write {}", variable.what)) };
        *rest = after;
        Ok(if name == "split" { Piece::Split } else { Piece::Call(variable, words, Self::default()) })
    }

    /// The names and first words of all variables in it, outermost first.
    pub fn variables(&self) -> Vec<(&'static str, &str)> {
        let mut all = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Call(variable, words, text) => {
                    all.push((variable.name, words.first().map_or("", String::as_str)));
                    all.extend(text.variables());
                }
                Piece::Split => all.push(("split", "")),
                Piece::Bytes(_) => {}
            }
        }
        all
    }

    /// Its bytes, in the pieces into which it is cut: one, unless it says otherwise.
    pub fn pieces(&self, values: &dyn Values) -> Vec<Vec<u8>> {
        let mut pieces = vec![Vec::new()];
        for piece in &self.0 {
            let last = pieces.last_mut().expect("one at least");
            match piece {
                Piece::Bytes(bytes) => last.extend_from_slice(bytes),
                Piece::Split => pieces.push(Vec::new()),
                Piece::Call(variable, words, text) if variable.text => {
                    last.extend(changed(variable.name, words, text.bytes(values)));
                }
                Piece::Call(variable, words, _) => {
                    last.extend(values.value(variable.name, words.first().map_or("", String::as_str)));
                }
            }
        }
        pieces
    }

    /// Its bytes.
    pub fn bytes(&self, values: &dyn Values) -> Vec<u8> {
        self.pieces(values).concat()
    }

    /// Its bytes as text; what is none is replaced.
    pub fn text(&self, values: &dyn Values) -> String {
        String::from_utf8_lossy(&self.bytes(values)).into_owned()
    }
}

/// The byte that is meant behind a backslash.
fn escaped(rest: &mut &str) -> Result<u8, String> {
    let wrong = "after \\ write x and two hex digits, r, n, t, or another \\";
    let letter = rest.chars().next().ok_or(wrong)?;
    *rest = &rest[letter.len_utf8()..];
    Ok(match letter {
        'r' => b'\r',
        'n' => b'\n',
        't' => b'\t',
        '\\' => b'\\',
        'x' => {
            let digits = rest.get(..2).ok_or(wrong)?;
            *rest = &rest[2..];
            u8::from_str_radix(digits, 16).map_err(|_| wrong)?
        }
        _ => return Err(wrong.into()),
    })
}

fn changed(name: &str, words: &[String], text: Vec<u8>) -> Vec<u8> {
    let each = |one: &dyn Fn(u8) -> String| text.iter().map(|byte| one(*byte)).collect::<String>().into_bytes();
    let number = || words[0].parse::<usize>().expect("was read as a number");
    match name {
        "base64" => STANDARD.encode(&text).into_bytes(),
        "base64url" => URL_SAFE.encode(&text).into_bytes(),
        "hex" => each(&|byte| format!("{byte:02x}")),
        "HEX" => each(&|byte| format!("{byte:02X}")),
        "percent" => each(&|byte| format!("%{byte:02x}")),
        "PERCENT" => each(&|byte| format!("%{byte:02X}")),
        "json" => each(&|byte| format!("\\u{byte:04x}")),
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(&text).expect("memory is written");
            encoder.finish().expect("memory is written")
        }
        "utf16le" => wide(&text, u16::to_le_bytes),
        "utf16be" => wide(&text, u16::to_be_bytes),
        "stars" => vec![b'*'; text.len()],
        "lower" => text.to_ascii_lowercase(),
        "reversed" => text.into_iter().rev().collect(),
        "altered" => {
            let (last, rest) = text.split_last().expect("a text to alter has a letter");
            [rest, &[if *last == b'a' { b'b' } else { b'a' }]].concat()
        }
        "short" => text[..text.len().saturating_sub(1)].to_vec(),
        "first" => text[..number().min(text.len())].to_vec(),
        "from" => text[number().min(text.len())..].to_vec(),
        "repeat" => text.repeat(number()),
        "replace" => String::from_utf8_lossy(&text).replacen(&words[0], &words[1], 1).into_bytes(),
        other => unreachable!("{other} is listed and not known"),
    }
}

fn wide(text: &[u8], order: fn(u16) -> [u8; 2]) -> Vec<u8> {
    format!("\u{feff}{}", String::from_utf8_lossy(text)).encode_utf16().flat_map(order).collect()
}

/// What each variable is: for the page that documents them.
pub fn told() -> Vec<&'static str> {
    VARIABLES.iter().map(|variable| variable.what).collect()
}
