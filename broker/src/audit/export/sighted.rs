//! What the systems that records are exported to want to see of them without reading JSON.

use serde_json::Value;

/// A record, parsed.
pub struct Sighted(Value);

/// How much it matters: RFC 5424's severities, which journald shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Records are missing, or may be, or somebody has to look into something.
    Warning = 4,
    /// Something was refused, or an operator did something.
    Notice = 5,
    /// Everything else.
    Info = 6,
}

impl Sighted {
    /// Reads a line; what is no JSON object has no members.
    pub fn read(line: &str) -> Self {
        Self(serde_json::from_str(line).unwrap_or_default())
    }

    /// A member that is text.
    pub fn text(&self, member: &str) -> Option<&str> {
        self.0.get(member)?.as_str()
    }

    /// What it records.
    pub fn kind(&self) -> &str {
        self.text("kind").unwrap_or("record")
    }

    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self.kind() {
            "gap" | "unaccounted" | "alarm" => Severity::Warning,
            "deny" | "mode" | "revoke" => Severity::Notice,
            _ => Severity::Info,
        }
    }

    /// All members that say something.
    pub fn members(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null())
    }
}
