//! `attache audit query`: the records that all filters hold for, through all files of the log.

use super::show::plain;
use crate::audit::Files;
use crate::cli::common::say;
use crate::clock::Now;
use jiff::Timestamp;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::ExitCode;

/// What a record must say
#[derive(Debug, Default, clap::Args)]
pub struct QueryArgs {
    /// Of this session, by name or id
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// Of this credential
    #[arg(long, value_name = "NAME")]
    credential: Option<String>,
    /// With this decision: forward, pass, refuse, declare, create, set, end
    #[arg(long, value_name = "DECISION")]
    decision: Option<String>,
    /// Of this kind; several with commas: use, deny, issue, intent, mode, revoke, unaccounted, gap …
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',')]
    kinds: Vec<String>,
    /// Not before: a length of time ago (15m, 8h, 7d), or a time (2026-01-31T12:00:00Z)
    #[arg(long, value_name = "WHEN", value_parser = when)]
    since: Option<Timestamp>,
    /// Before: likewise
    #[arg(long, value_name = "WHEN", value_parser = when)]
    until: Option<Timestamp>,
    /// Only the newest of them, as many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// What filters look at.
#[derive(Deserialize)]
struct Seen<'a> {
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    kind: Cow<'a, str>,
    session: Option<Cow<'a, str>>,
    session_id: Option<Cow<'a, str>>,
    credential: Option<Cow<'a, str>>,
    decision: Option<Cow<'a, str>>,
}

/// Prints the records, oldest first. Lines that are no records are `audit verify`'s business.
pub fn query(path: &Path, args: &QueryArgs, json: bool) -> std::io::Result<ExitCode> {
    let print = |line: &str| say(if json { line.to_owned() } else { plain(line) });
    let mut newest = VecDeque::new();
    for opened in Files::of(path)? {
        let (_, file) = opened?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
            match (text.filter(|text| args.hold_for(text)), args.limit) {
                (Some(text), None) => print(text),
                (Some(text), Some(limit)) => {
                    newest.push_back(text.to_owned());
                    if newest.len() > limit {
                        newest.pop_front();
                    }
                }
                (None, _) => {}
            }
            line.clear();
        }
    }
    newest.iter().for_each(|line| print(line));
    Ok(ExitCode::SUCCESS)
}

impl QueryArgs {
    fn hold_for(&self, line: &str) -> bool {
        let Ok(seen) = serde_json::from_str::<Seen<'_>>(line) else { return false };
        let is = |wanted: &Option<String>, found: [&Option<Cow<'_, str>>; 2]| {
            wanted.as_deref().is_none_or(|wanted| found.iter().any(|found| found.as_deref() == Some(wanted)))
        };
        is(&self.session, [&seen.session, &seen.session_id])
            && is(&self.credential, [&seen.credential, &None])
            && is(&self.decision, [&seen.decision, &None])
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| *kind == seen.kind))
            && self.is_within(&seen.timestamp)
    }

    fn is_within(&self, timestamp: &str) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let Ok(at) = timestamp.parse::<Timestamp>() else { return false };
        self.since.is_none_or(|since| since <= at) && self.until.is_none_or(|until| at < until)
    }
}

/// A time, or how long ago it was.
fn when(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let now = i64::try_from(Now::read().wall_ms).unwrap_or(i64::MAX);
        let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        return Timestamp::from_millisecond(now.saturating_sub(ago)).or(Ok(Timestamp::MIN));
    }
    text.parse().map_err(|_| "expected a length of time (15m, 8h, 7d) or a time (2026-01-31T12:00:00Z)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"timestamp":"2026-01-31T12:00:00.120Z","session_id":"s-1","kind":"use","session":"a","decision":"forward","credential":"github"}"#;

    fn holds(change: impl FnOnce(&mut QueryArgs)) -> bool {
        let mut args = QueryArgs::default();
        change(&mut args);
        args.hold_for(LINE)
    }

    #[test]
    fn every_filter_holds_or_does_not() {
        assert!(holds(|_| ()));
        assert!(holds(|a| a.session = Some("a".into())) && holds(|a| a.session = Some("s-1".into())));
        assert!(!holds(|a| a.session = Some("b".into())));
        assert!(holds(|a| a.credential = Some("github".into())) && !holds(|a| a.credential = Some("git".into())));
        assert!(holds(|a| a.decision = Some("forward".into())) && !holds(|a| a.decision = Some("refuse".into())));
        assert!(holds(|a| a.kinds = vec!["deny".into(), "use".into()]) && !holds(|a| a.kinds = vec!["deny".into()]));
        assert!(!QueryArgs::default().hold_for("no record"));
    }

    #[test]
    fn since_is_included_and_until_is_not() {
        let at = |text| Some(when(text).unwrap());
        assert!(holds(|a| a.since = at("2026-01-31T12:00:00.120Z")));
        assert!(!holds(|a| a.since = at("2026-01-31T12:00:00.121Z")));
        assert!(!holds(|a| a.until = at("2026-01-31T12:00:00.120Z")));
        assert!(holds(|a| a.until = at("2026-01-31T13:00:00.121+01:00")));
    }

    #[test]
    fn times_are_told_by_the_clock_or_from_now() {
        let ago = when("90m").unwrap().as_millisecond();
        let now = i64::try_from(Now::read().wall_ms).unwrap();
        assert!((now - 91 * 60_000..=now - 90 * 60_000).contains(&ago));
        for bad in ["", "yesterday", "-5m", "2026-01-31"] {
            assert!(when(bad).is_err(), "{bad}");
        }
    }
}
