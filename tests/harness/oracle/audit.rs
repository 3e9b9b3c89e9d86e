//! Reads the audit log: JSON lines, hash-chained.

use std::collections::HashMap;
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::Violation;
use crate::rotated;

/// The records of an audit log, in order.
#[derive(Debug, Default)]
pub struct Audit {
    pub records: Vec<Record>,
    /// Where the records of a kind that name this are, by [`Self::KEYS`]: logs of a load are long.
    named: HashMap<(&'static str, String), Vec<usize>>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Record {
    /// Counted from 1, through rotated files.
    pub line: usize,
    /// The length of the log up to the end of this line, in bytes.
    pub end: u64,
    pub json: Value,
}

impl Audit {
    /// What the records of each kind are looked for by.
    const KEYS: [(&'static str, &'static str); 4] =
        [("use", "request_id"), ("intent", "request_id"), ("issue", "lease_id"), ("revoke", "session_id")];

    /// Reads a log with what was rotated away from it, oldest first; a last line without its line break is still being written and is left out.
    #[must_use]
    pub fn read(path: Option<&Path>) -> (Self, Vec<Violation>) {
        let bytes = path.map(rotated::read).unwrap_or_default();
        let (mut records, mut violations) = (Vec::new(), Vec::new());
        let (mut end, mut chain) = (0, Chain::default());
        for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let Some(text) = line.strip_suffix(b"\n") else { break };
            end += line.len() as u64;
            let line = index + 1;
            match serde_json::from_slice::<Value>(text) {
                Ok(json) => {
                    let why = chain.follow(text, &json).err();
                    violations.extend(why.map(|why| Violation::AuditBroken { line, why: why.to_owned() }));
                    records.push(Record { line, end, json });
                }
                Err(error) => violations.push(Violation::AuditBroken { line, why: error.to_string() }),
            }
        }
        (Self { named: named(&records), records }, violations)
    }

    /// The records of a kind.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.json["kind"] == kind)
    }

    /// The records of a kind whose member (one of [`Self::KEYS`]) is this, in order.
    pub(super) fn named(&self, kind: &'static str, name: &str) -> impl Iterator<Item = &Record> {
        let at = self.named.get(&(kind, name.to_owned())).map(Vec::as_slice).unwrap_or_default();
        at.iter().map(|at| &self.records[*at])
    }
}

impl Record {
    /// A member as text: strings as they are, other values as JSON, absent ones empty.
    #[must_use]
    pub fn text(&self, member: &str) -> String {
        match self.json.get(member) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }

    /// `ttl_ms`: how long a lease lives, in milliseconds.
    pub(super) fn ttl_ms(&self) -> Option<u64> {
        self.json.get("ttl_ms")?.as_u64()
    }

    /// `timestamp` in milliseconds since the epoch, from RFC 3339 or a number.
    #[must_use]
    pub fn at_ms(&self) -> Option<u64> {
        match self.json.get("timestamp")? {
            Value::String(text) => {
                let at = humantime::parse_rfc3339_weak(text).ok()?;
                u64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
            }
            number => number.as_u64(),
        }
    }
}

fn named(records: &[Record]) -> HashMap<(&'static str, String), Vec<usize>> {
    let mut named: HashMap<_, Vec<usize>> = HashMap::new();
    for (at, record) in records.iter().enumerate() {
        for (kind, member) in Audit::KEYS {
            if record.json["kind"] == kind {
                named.entry((kind, record.text(member))).or_default().push(at);
            }
        }
    }
    named
}

/// Follows `prev` and `hash`, where a log has them: `hash` is the SHA-256 of the line up to the
/// comma before it, `prev` the hash of the line before.
#[derive(Default)]
struct Chain {
    head: Option<String>,
}

impl Chain {
    fn follow(&mut self, line: &[u8], json: &Value) -> Result<(), &'static str> {
        let (prev, hash) = (json.get("prev").and_then(Value::as_str), json.get("hash").and_then(Value::as_str));
        let (Some(prev), Some(hash)) = (prev, hash) else {
            return if self.head.is_some() { Err("not chained, but the lines before are") } else { Ok(()) };
        };
        let before = self.head.replace(hash.to_owned());
        let hashed = memchr::memmem::rfind(line, b",\"hash\":").map(|at| &line[..at]);
        let digest = Sha256::digest(hashed.unwrap_or_default());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        if digest != hash {
            return Err("its hash does not fit its bytes");
        }
        match before {
            Some(before) if before != prev => Err("it does not follow the line before"),
            None if prev.bytes().any(|digit| digit != b'0') => Err("it claims a line before the first"),
            _ => Ok(()),
        }
    }
}
