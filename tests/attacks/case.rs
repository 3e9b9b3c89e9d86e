//! One case: a file of `tests/corpus/CLASS/NAME.case`. Its form is documented in `tests/corpus/README.md`.
//!
//! The parser is strict: what it does not know is refused, with the file, the line and what to write.

use std::collections::BTreeSet;
use std::path::Path;

use attache_broker::envoy::Version;
use attache_core::refusal::Reason;
use attache_tests::table::{Promise, Way};

use crate::text::Text;

/// A case, understood.
#[derive(Clone, Debug)]
pub struct Case {
    pub class: String,
    pub name: String,
    /// What an attacker tries, and why it ends as it does: a sentence or two each.
    pub tries: String,
    pub why: String,
    pub at: At,
    /// How it must end, by each way that it can be spelled on.
    pub ends: Vec<(Way, Ending)>,
    /// What older Envoys do otherwise: those before a version, over one way or over all.
    pub before: Vec<(Version, Option<Way>, Promise)>,
    /// The credential that may go upstream.
    pub carries: String,
    /// Whose tunnel it travels in.
    pub session: Option<String>,
    pub scheme: Option<Text>,
    pub tunnel: Option<Message>,
    pub request: Option<Message>,
    /// What is said in a tunnel in place of a request.
    pub said: Option<Text>,
    pub reply: Option<Message>,
    pub trailers: Vec<(Text, Text)>,
    pub answer: Option<Message>,
    pub jwt: Vec<(String, Text)>,
}

/// Where a case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    Gateway,
    Unmatched,
    Identity,
    Proxy,
    Decision,
    Filters,
    Operators,
    Probes,
}

/// How a case ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Promise(Promise),
    /// A door of the broker answers with this status.
    Status(u16),
}

/// A first line, lines and a body.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub first: Text,
    /// The words of the first line, where it is no text: `200 chunked`.
    pub words: Vec<String>,
    pub lines: Vec<(Text, Text)>,
    /// Names of lines that must not be there.
    pub absent: Vec<String>,
    pub body: Option<Text>,
}

/// The words of `at`, and what each means.
pub const PLACES: [(&str, At, &str); 8] = [
    (
        "gateway",
        At::Gateway,
        "the gateway, over HTTP/1.1 and HTTP/2; and in a tunnel of the forward proxy, intercepted",
    ),
    ("unmatched", At::Unmatched, "a gateway that lets hosts pass which no destination names"),
    ("identity", At::Identity, "a gateway that believes an OpenID provider"),
    ("proxy", At::Proxy, "the forward proxy: its door, and what is said in a tunnel"),
    ("decision", At::Decision, "the decision of the forward proxy's door alone: nothing is dialled"),
    ("filters", At::Filters, "the broker's door for filters"),
    ("operators", At::Operators, "the broker's door for operators"),
    ("probes", At::Probes, "the broker's door for probes"),
];

/// The fields of the head.
const FIELDS: [&str; 11] =
    ["tries", "why", "at", "expect", "h1", "h2", "tls", "before", "carries", "session", "scheme"];
/// The sections below it.
const SECTIONS: [&str; 7] = ["tunnel", "request", "said", "reply", "trailers", "answer", "jwt"];
/// What `expect` may say.
const ENDINGS: &str = "served, reached STATUS, refused REASON, challenged REASON, grpc REASON, withheld REASON, cut, envoy STATUS DETAILS, \
                       ended DETAILS, unshaken, shut, status STATUS, or - where it cannot be spelled";

/// A complaint about a line, counted from 1.
type Wrong = (usize, String);

impl Case {
    /// Understands a file.
    ///
    /// # Errors
    /// `FILE:LINE: what is wrong; what to write`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let stem = |path: Option<&std::ffi::OsStr>| path.map(|name| name.to_string_lossy().into_owned());
        let name = stem(path.file_stem()).unwrap_or_default();
        let class = stem(path.parent().and_then(Path::file_name)).unwrap_or_default();
        Self::read(class, name, text).map_err(|(line, why)| format!("{}:{line}: {why}", path.display()))
    }

    fn read(class: String, name: String, text: &str) -> Result<Self, Wrong> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            return Err((1, format!("{name:?} is no name: use a-z, 0-9 and - in the file's name")));
        }
        let parts = sections(text)?;
        let mut case = Self {
            class,
            name,
            tries: String::new(),
            why: String::new(),
            at: At::Gateway,
            ends: Vec::new(),
            before: Vec::new(),
            carries: "github".into(),
            session: None,
            scheme: None,
            tunnel: None,
            request: None,
            said: None,
            reply: None,
            trailers: Vec::new(),
            answer: None,
            jwt: Vec::new(),
        };
        for (section, at, lines) in &parts {
            match *section {
                "" => case.head(lines)?,
                "tunnel" => case.tunnel = Some(message(*at, lines, First::Target)?),
                "request" => case.request = Some(message(*at, lines, First::Target)?),
                "said" => case.said = Some(parsed(*at, &joined(lines))?),
                "reply" => case.reply = Some(message(*at, lines, First::Words)?),
                "trailers" => case.trailers = message(*at, lines, First::None)?.lines,
                "answer" => case.answer = Some(message(*at, lines, First::None)?),
                _ => case.jwt = plain_lines(lines)?,
            }
        }
        case.checked().map_err(|why| (1, why))
    }

    fn head(&mut self, lines: &[(usize, &str)]) -> Result<(), Wrong> {
        let mut seen = BTreeSet::new();
        let mut own: Vec<(Way, Option<Ending>)> = Vec::new();
        let mut all = None;
        for (at, name, value) in fields(lines)? {
            let wrong = |why: String| (at, why);
            let field = name.split(' ').next().unwrap_or_default();
            if !FIELDS.contains(&field) {
                return Err(wrong(format!("there is no field {name:?}: write one of {}", FIELDS.join(", "))));
            }
            if !seen.insert(name.clone()) {
                return Err(wrong(format!("{name} stands there twice: leave one")));
            }
            if value.is_empty() {
                return Err(wrong(format!("{name} says nothing: write it, or leave the line out")));
            }
            match field {
                "tries" => self.tries = value,
                "why" => self.why = value,
                "at" => {
                    let place = PLACES.iter().find(|(word, ..)| *word == value);
                    let words = PLACES.map(|(word, ..)| word).join(", ");
                    self.at = place.ok_or_else(|| wrong(format!("at is no {value:?}: write one of {words}")))?.1;
                }
                "expect" => all = ending(&value).map_err(wrong)?,
                "before" => self.before.push(older(&name, &value).map_err(wrong)?),
                "carries" => self.carries = value,
                "session" => self.session = Some(value),
                "scheme" => self.scheme = Some(Text::parse(&value).map_err(wrong)?),
                way => own.push((self::way(way).expect("a field that is a way"), ending(&value).map_err(wrong)?)),
            }
        }
        for (name, text) in [("tries", &self.tries), ("why", &self.why)] {
            if !text.ends_with(['.', '?']) || text.contains('|') {
                return Err((1, format!("{name} must be a sentence that ends in a full stop, without |: write it")));
            }
        }
        let ends = |way| own.iter().find(|(own, _)| *own == way).map_or(all, |(_, ending)| *ending);
        let ways: &[Way] = match self.at {
            At::Gateway => &[Way::H1, Way::H2, Way::Tls],
            At::Unmatched | At::Identity => &[Way::H1, Way::H2],
            At::Proxy => &[Way::Tls],
            _ => &[Way::H1],
        };
        if let Some((way, _)) = own.iter().find(|(way, _)| !ways.contains(way)) {
            return Err((
                1,
                format!("it does not run over {}: leave that line out, or choose another `at`", way.word()),
            ));
        }
        self.ends = ways.iter().filter_map(|way| Some((*way, ends(*way)?))).collect();
        if self.ends.is_empty() {
            return Err((1, format!("nothing is expected: write `expect: …`, one of {ENDINGS}")));
        }
        Ok(())
    }

    /// What the parts of a case have to do with each other.
    fn checked(self) -> Result<Self, String> {
        let door = matches!(self.at, At::Filters | At::Operators | At::Probes);
        if self.ends.iter().any(|(_, ending)| matches!(ending, Ending::Status(_)) != door) {
            return Err(
                "`status` is what a door of the broker says, and they say nothing else: change expect, or at".into()
            );
        }
        if self.tunnel.is_some() && !matches!(self.at, At::Decision | At::Proxy) {
            return Err("a tunnel is asked for `at: proxy` and `at: decision`: change at, or the section".into());
        }
        if self.request.is_none() && self.tunnel.is_none() {
            return Err("it asks for nothing: write the section `--- request`".into());
        }
        if self.said.is_some() && (self.request.is_some() || self.tunnel.is_none()) {
            return Err("`said` is what goes through a tunnel in place of a request: leave one out".into());
        }
        if !self.jwt.is_empty() && self.at != At::Identity {
            return Err("a JWT is made `at: identity`: change at, or leave the section out".into());
        }
        let asks = [self.request.as_ref(), self.tunnel.as_ref()].into_iter().flatten();
        let shown = asks.flat_map(Message::variables).chain(self.said.iter().flat_map(Text::variables));
        if shown.into_iter().any(|(name, _)| name == "secret") {
            return Err(
                "a request with a secret in it attacks nothing: write {{secret:…}} in reply and answer alone".into()
            );
        }
        Ok(self)
    }

    /// Where its file lies, from the root of the repository.
    pub fn path(&self) -> String {
        format!("tests/corpus/{}/{}.case", self.class, self.name)
    }

    /// The session that its request names first.
    pub fn asker(&self) -> String {
        let shown = self.request.iter().flat_map(Message::variables);
        let named = shown.filter(|(name, _)| matches!(*name, "placeholder" | "token"));
        let first = named.map(|(_, word)| word.split('.').next().unwrap_or_default().to_owned()).next();
        self.session.clone().or(first).unwrap_or_else(|| "writer".into())
    }
}

impl Message {
    fn variables(&self) -> Vec<(&'static str, &str)> {
        let lines = self.lines.iter().flat_map(|(name, value)| [name, value]);
        [Some(&self.first), self.body.as_ref()].into_iter().flatten().chain(lines).flat_map(Text::variables).collect()
    }
}

/// What stands on the first line of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Target,
    Words,
    None,
}

/// The parts of a file: a name (none for the head), the line that names it, and its lines.
type Part<'a> = (&'static str, usize, Vec<(usize, &'a str)>);

fn sections(text: &str) -> Result<Vec<Part<'_>>, Wrong> {
    let mut parts: Vec<Part<'_>> = vec![("", 1, Vec::new())];
    for (at, line) in (1..).zip(text.split('\n')) {
        if line.ends_with([' ', '\t', '\r']) {
            return Err((at, "the line ends in white space that nobody sees: write it as \\x20, \\t or \\r".into()));
        }
        let Some(word) = line.strip_prefix("--- ") else {
            parts.last_mut().expect("the head").2.push((at, line));
            continue;
        };
        let Some(name) = SECTIONS.into_iter().find(|name| *name == word) else {
            return Err((at, format!("there is no section {word:?}: write one of {}", SECTIONS.join(", "))));
        };
        if parts.iter().any(|(other, ..)| *other == name) {
            return Err((at, format!("the section {name} stands there twice: leave one")));
        }
        // An empty line before a section is nobody's.
        if let Some((.., lines)) =
            parts.last_mut().filter(|(.., lines)| lines.last().is_some_and(|(_, line)| line.is_empty()))
        {
            lines.pop();
        }
        parts.push((name, at, Vec::new()));
    }
    // The file's last line ends in a line feed.
    if let Some((at, last)) = parts.last_mut().and_then(|(.., lines)| lines.pop())
        && !last.is_empty()
    {
        return Err((at, "the file does not end in a line feed: write one".into()));
    }
    Ok(parts)
}

/// Fields of the head: a line that begins with two spaces goes on with the one before.
fn fields(lines: &[(usize, &str)]) -> Result<Vec<(usize, String, String)>, Wrong> {
    let mut fields: Vec<(usize, String, String)> = Vec::new();
    for (at, line) in lines.iter().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        if let Some(more) = line.strip_prefix("  ") {
            let (.., value) =
                fields.last_mut().ok_or_else(|| (*at, "nothing goes on here: write `name: …`".to_owned()))?;
            value.push(' ');
            value.push_str(more.trim());
            continue;
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err((*at, "the line is no field: write `name: …`".into()));
        };
        fields.push((*at, name.to_owned(), value.trim().to_owned()));
    }
    Ok(fields)
}

fn plain_lines(lines: &[(usize, &str)]) -> Result<Vec<(String, Text)>, Wrong> {
    let all = fields(lines)?.into_iter().map(|(at, name, value)| {
        if !["header", "claims", "key"].contains(&name.as_str()) {
            return Err((at, format!("a JWT has no {name:?}: write one of header, claims, key")));
        }
        Ok((name, parsed(at, &value)?))
    });
    all.collect()
}

fn parsed(at: usize, raw: &str) -> Result<Text, Wrong> {
    Text::parse(raw).map_err(|why| (at, why))
}

fn joined(lines: &[(usize, &str)]) -> String {
    lines.iter().map(|(_, line)| *line).collect::<Vec<_>>().join("\n")
}

fn message(at: usize, lines: &[(usize, &str)], first: First) -> Result<Message, Wrong> {
    let mut message = Message::default();
    let mut lines = lines.iter();
    if first != First::None {
        let (at, line) =
            lines.next().ok_or_else(|| (at, "the section says nothing: write its first line".to_owned()))?;
        match first {
            First::Words => message.words = line.split(' ').map(str::to_owned).collect(),
            _ => message.first = parsed(*at, line)?,
        }
        let is_known = |word: &String| word == "chunked" || word.parse::<u16>().is_ok();
        if first == First::Words && !message.words.iter().all(is_known) {
            return Err((
                *at,
                "a reply begins with its status, and `chunked` where it has no length: write `200`".into(),
            ));
        }
    }
    for (at, line) in lines.by_ref() {
        if line.is_empty() {
            break;
        }
        if let Some(name) = line.strip_prefix('!') {
            message.absent.push(name.to_owned());
            continue;
        }
        let Some((name, value)) = split_line(line) else {
            return Err((*at, "the line is no header: write `name: value`, or an empty line before a body".into()));
        };
        message.lines.push((parsed(*at, name)?, parsed(*at, value.strip_prefix(' ').unwrap_or(value))?));
    }
    let rest: Vec<_> = lines.copied().collect();
    if let Some((at, _)) = rest.first() {
        message.body = Some(parsed(*at, &joined(&rest))?);
    }
    Ok(message)
}

/// Parts a line at the first colon outside of a variable.
fn split_line(line: &str) -> Option<(&str, &str)> {
    let mut depth = 0;
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b':' if depth == 0 => return Some((&line[..at], &line[at + 1..])),
            _ => {}
        }
    }
    None
}

fn way(word: &str) -> Option<Way> {
    [Way::H1, Way::H2, Way::Tls].into_iter().find(|way| way.word() == word)
}

/// `before 1.39` or `before 1.40 h1`.
fn older(name: &str, value: &str) -> Result<(Version, Option<Way>, Promise), String> {
    let wrong = || format!("write `before 1.39: …` or `before 1.39 h1: …`, with one of {ENDINGS}");
    let mut words = name.split(' ').skip(1);
    let version = words.next().and_then(|word| word.parse().ok()).ok_or_else(wrong)?;
    let over = words.next().map(|word| way(word).ok_or_else(wrong)).transpose()?;
    match ending(value)? {
        Some(Ending::Promise(promise)) if words.next().is_none() => Ok((version, over, promise)),
        _ => Err(wrong()),
    }
}

/// What a line of expectation says. `None`: it cannot be spelled.
fn ending(value: &str) -> Result<Option<Ending>, String> {
    let wrong = || format!("nothing ends in {value:?}: write {ENDINGS}");
    let words: Vec<_> = value.split(' ').collect();
    let reason = |word: &str| Reason::ALL.iter().copied().find(|reason| reason.as_str() == word).ok_or_else(wrong);
    let status = |word: &str| word.parse::<u16>().map_err(|_| wrong());
    let promise = match words[..] {
        ["-"] => return Ok(None),
        ["status", word] => return Ok(Some(Ending::Status(status(word)?))),
        ["served"] => Promise::Served,
        ["reached", word] => Promise::Reached(status(word)?),
        ["refused", word] => Promise::Refused(reason(word)?),
        ["grpc", word] => Promise::Grpc(reason(word)?),
        ["challenged", word] => Promise::Challenged(reason(word)?),
        ["withheld", word] => Promise::Withheld(reason(word)?),
        ["cut"] => Promise::Cut,
        ["unshaken"] => Promise::Unshaken,
        ["shut"] => Promise::Shut,
        // They live as long as the run.
        ["envoy", word, details] => Promise::Envoy(status(word)?, details.to_owned().leak()),
        ["ended", details] => Promise::Ended(details.to_owned().leak()),
        _ => return Err(wrong()),
    };
    Ok(Some(Ending::Promise(promise)))
}
