//! What the demo prints: numbered steps, short lines, colours where a terminal shows them.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a step promised and did not keep.
#[derive(Debug)]
pub struct Failed(String);

impl Failed {
    /// With the reason in words.
    pub fn because(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// The screen.
pub struct Screen {
    colours: bool,
    steps: AtomicUsize,
}

/// SGR codes (ECMA-48, 8.3.117).
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "1;31";
const GREEN: &str = "32";

impl Screen {
    /// Colours on a terminal, unless `NO_COLOR` is set (no-color.org).
    pub fn of_terminal() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colours: wanted && std::io::stdout().is_terminal(), steps: AtomicUsize::new(0) }
    }

    /// A line between the steps.
    pub fn title(&self, text: &str) {
        say(format_args!("\n{}", self.painted(BOLD, text)));
    }

    /// Begins a step.
    pub fn step(&self, what: &str) {
        let number = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        say(format_args!("\n{} {}", self.painted(BOLD, &format!("{number:>2}.")), self.painted(BOLD, what)));
    }

    /// Something the step shows: a word on what it is, and what it is.
    pub fn shows(&self, what: &str, it: impl Display) {
        say(format_args!("    {what:18}{it}"));
    }

    /// Something on the way, of interest to the patient.
    pub fn passes_by(&self, text: &str) {
        say(format_args!("    {}", self.painted(DIM, text)));
    }

    /// A promise of the step: kept, or the end of the demo.
    pub fn check(&self, holds: bool, promise: &str) -> Result<(), Failed> {
        if !holds {
            return Err(Failed(promise.to_owned()));
        }
        say(format_args!("    {} {promise}", self.painted(GREEN, "✓")));
        Ok(())
    }

    /// Says which step failed.
    pub fn failed(&self, Failed(why): &Failed) {
        let at = format!("✗ Step {} failed: {why}", self.steps.load(Ordering::Relaxed));
        say(format_args!("\n    {}", self.painted(RED, &at)));
    }

    /// Shows logs, by name; empty ones are left out.
    pub fn logs(&self, logs: &[(&str, String)]) {
        for (name, text) in logs.iter().filter(|(_, text)| !text.trim().is_empty()) {
            say(format_args!("\n{}\n{}", self.painted(BOLD, &format!("--- {name}")), text.trim_end()));
        }
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A reader that has gone away is no reason to stop.
fn say(text: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
