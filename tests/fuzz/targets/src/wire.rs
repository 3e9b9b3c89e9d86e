//! What filter and broker say to each other, and what is kept of it.

use crate::parts;
use attache_core::audit::chain::{self, Verifier};
use attache_core::masking::Masker;
use attache_core::policy::{Policy, Spec};
use attache_core::wire::{
    AuditAnswer, Changes, EvidenceDigests, GrantAnswer, GrantRequest, Intent, IntentAnswer, Plugin, TunnelAnswer,
    TunnelRequest, UseRecord,
};
use attache_core::worker::{Facts, Grant};
use attache_core::{Millis, object};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::rc::Rc;

/// A text in JSON. Whatever it is taken for is written, and read again, as the same.
pub fn wire(data: &[u8]) {
    again::<AuditAnswer>(data);
    again::<Changes>(data);
    again::<EvidenceDigests>(data);
    again::<GrantAnswer>(data);
    again::<GrantRequest>(data);
    again::<Intent>(data);
    again::<IntentAnswer>(data);
    again::<TunnelAnswer>(data);
    again::<TunnelRequest>(data);
    again::<UseRecord>(data);
    again::<Spec>(data);
    let _ = serde_json::from_slice::<Plugin>(data);
    if let Ok(spec) = serde_json::from_slice::<Spec>(data) {
        let _ = Policy::compile(spec);
    }
}

fn again<T: Serialize + DeserializeOwned>(data: &[u8]) {
    let read = |text: &[u8]| {
        let mut input = serde_json::Deserializer::from_slice(text);
        object::object::<T, _>(&mut input).ok().filter(|_| input.end().is_ok())
    };
    let Some(value) = read(data) else { return };
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    let value = read(&written).expect("what was written can be read");
    let twice = serde_json::to_vec(&value).expect("and written again");
    assert_eq!(written, twice, "it is not what was written");
}

/// An answer with a grant. What a worker takes of it ends, and cannot end a header.
pub fn grant(data: &[u8]) {
    let Ok(answer) = serde_json::from_slice::<GrantAnswer>(data) else { return };
    let Some(granted) = answer.granted else { return };
    let masker = Masker::new(&granted.mask).ok().map(Rc::new);
    let evidence = EvidenceDigests::default();
    let facts = Facts { destination: "a:443", cluster: "c", service: "s", evidence: &evidence, masker, life: 1 };
    let sent = Millis(1_000);
    let Some(grant) = Grant::accept(granted, sent, facts) else { return };
    assert!(grant.expires > sent && grant.expires <= Millis(1_000 + 24 * 3_600_000), "it does not end");
    assert!(grant.headers().count() + grant.parameters().count() > 0, "it injects nothing");
    for (name, value) in grant.headers().chain(grant.parameters()) {
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
        let value = value.expose();
        assert!(!value.is_empty() && value.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    }
    let whole: serde_json::Value = serde_json::from_str(&grant.verdict).expect("the verdict is JSON");
    assert!(whole.is_object());
}

/// Two numbers and records, a line each. Whatever is changed, dropped or swapped in a sealed chain is found.
pub fn audit_chain(data: &[u8]) {
    let Some((&[place, bit], records)) = data.split_first_chunk::<2>() else { return };
    let mut lines = Vec::new();
    let mut head = chain::genesis();
    for record in records.split(|byte| *byte == b'\n').take(16) {
        let Ok(record) = std::str::from_utf8(record) else { continue };
        if let Ok((line, hash)) = chain::seal(record, &head) {
            (lines, head) = ([lines, vec![line]].concat(), hash);
        }
    }
    assert!(holds(&lines), "what was sealed does not hold");
    let at = usize::from(place);
    if let Some(line) = lines.get(at % lines.len().max(1)) {
        let mut changed = line.clone().into_bytes();
        let byte = (at.wrapping_mul(31)) % changed.len();
        changed[byte] ^= 1 << (bit % 8);
        if let Ok(changed) = String::from_utf8(changed) {
            let mut forged = lines.clone();
            let index = at % lines.len();
            forged[index] = changed;
            assert!(!holds(&forged), "a changed bit is not found");
        }
        let mut dropped = lines.clone();
        let index = at % lines.len();
        dropped.remove(index);
        assert!(index + 1 == lines.len() || !holds(&dropped), "a dropped line is not found");
        if index + 1 < lines.len() {
            let mut swapped = lines.clone();
            swapped.swap(index, index + 1);
            assert!(swapped == lines || !holds(&swapped), "swapped lines are not found");
        }
    }
    let [line] = parts(records);
    if let Ok(line) = std::str::from_utf8(line) {
        let _ = Verifier::after(chain::genesis()).check(line);
    }
}

fn holds(lines: &[String]) -> bool {
    let mut verifier = Verifier::after(chain::genesis());
    lines.iter().all(|line| verifier.check(line).is_ok())
}
