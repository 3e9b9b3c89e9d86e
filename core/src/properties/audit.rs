//! The audit's promises: tampering is found, and no request breaks a record.

use super::{bytes, config};
use crate::audit::chain::{Verifier, genesis, seal};
use crate::fixture::{Request, compiled};
use crate::names::Name;
use crate::policy::Unmatched;
use crate::request::identify;
use crate::time::Millis;
use crate::wire::UseRecord;
use crate::worker::{Call, Outcome, Report, Settings, Worker, verdict};
use proptest::prelude::*;

fn sealed(records: &[String]) -> Vec<String> {
    let mut prev = genesis();
    let mut seal = |(seq, text): (usize, &String)| {
        let record = serde_json::json!({ "seq": seq, "text": text }).to_string();
        let (line, hash) = seal(&record, &prev).unwrap();
        prev = hash;
        line
    };
    records.iter().enumerate().map(&mut seal).collect()
}

fn verifies(lines: &[String]) -> bool {
    let mut verifier = Verifier::after(genesis());
    lines.iter().all(|line| verifier.check(line).is_ok())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_tampered_chain_does_not_verify(
        records in prop::collection::vec("[ -~]{0,20}", 2..6),
        (line, at) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        byte in prop_oneof![any::<u8>(), Just(b'\n')],
    ) {
        let lines = sealed(&records);
        prop_assert!(verifies(&lines));
        let line = line.index(lines.len());

        // Any byte of the file becomes any other one, the ends of lines among them.
        let mut changed = lines.join("\n").into_bytes();
        let at = at.index(changed.len());
        prop_assume!(changed[at] != byte);
        changed[at] = byte;
        // What is no text is no record.
        if let Ok(changed) = std::str::from_utf8(&changed) {
            let changed: Vec<_> = changed.split('\n').map(str::to_owned).collect();
            prop_assert!(!verifies(&changed), "byte {at}");
        }

        let other = (line + 1) % lines.len();
        let mut swapped = lines.clone();
        swapped.swap(line, other);
        prop_assert!(!verifies(&swapped), "{line} and {other} swapped");

        let mut repeated = lines.clone();
        repeated.insert(line, lines[line].clone());
        prop_assert!(!verifies(&repeated), "{line} twice");

        // What is cut off the end is found by an anchor kept elsewhere, not by the chain.
        if other != 0 {
            let mut dropped = lines.clone();
            dropped.remove(line);
            prop_assert!(!verifies(&dropped), "{line} dropped");
        }
    }

    #[test]
    fn with_the_head_known_no_cut_goes_unseen(
        records in prop::collection::vec("[ -~]{0,20}", 1..6),
        kept in any::<prop::sample::Index>(),
    ) {
        let lines = sealed(&records);
        let head = |lines: &[&str]| {
            let mut verifier = Verifier::after(genesis());
            lines.iter().all(|line| verifier.check(line).is_ok()).then(|| verifier.head().to_owned())
        };
        let log = lines.join("\n");
        let known = head(&log.split('\n').collect::<Vec<_>>()).unwrap();
        // Whole lines, or some bytes of one.
        let kept = &log[..kept.index(log.len())];
        let lines: Vec<_> = kept.split_terminator('\n').collect();
        prop_assert_ne!(head(&lines), Some(known), "{} of {} bytes kept", kept.len(), log.len());
    }

    #[test]
    fn every_record_is_one_line_of_ascii_json(
        (method, authority) in (bytes(12), bytes(24)),
        (target, request_id) in (bytes(40), bytes(12)),
        (at_ms, duration_ms, response_code) in (any::<u64>(), any::<u64>(), any::<u16>()),
        passed in any::<bool>(),
    ) {
        let lines = [(":method", method), (":authority", authority), (":path", target), ("x-request-id", request_id)];
        let request = Request(lines.map(|(name, value)| (name.into(), value)).into());
        let policy = compiled(Unmatched::Pass);
        let snapshot = request.read(&policy);
        let asked = identify(&snapshot, &policy);
        let outcome = match (&asked, passed) {
            (Err(reason), false) => Outcome::Refused(*reason, None),
            (Ok(_), false) => Outcome::Undecided,
            (_, true) => Outcome::Passed,
        };
        let settings =
            Settings { instance: Name::parse("default").unwrap(), stale_after: Millis(1), callout_timeout: Millis(1) };
        let mut worker = Worker::new(settings, "a".into());
        let asked = asked.ok();
        worker.record(&Report { snapshot: &snapshot, asked: asked.as_ref(), outcome: &outcome, cut: None, masked: 0, carried: None, intent: None, at_ms, duration_ms, response_code });
        let due = worker.due(Millis(1_000), String::new);
        let batch = due.into_iter().find(|dispatch| dispatch.call == Call::Audit).unwrap().body;
        let (end, line) = batch.split_last().unwrap();
        prop_assert_eq!(*end, b'\n');
        prop_assert!(line.iter().all(|b| (0x20..0x7f).contains(b)));
        let record: UseRecord = serde_json::from_slice(line).unwrap();
        prop_assert_eq!((record.at_ms, record.duration_ms, record.response_code), (at_ms, duration_ms, response_code));
        let original: String = snapshot.authority().iter().map(|b| char::from(*b)).collect();
        prop_assert_eq!(record.authority, original, "each byte is one character");
        let prefix = br#"{"cluster":""#;
        prop_assert!(verdict(&outcome, "to-x").into_bytes().starts_with(prefix));
    }
}
