//! Records are numbered without gaps, kept until acknowledged, and bounded.

use super::records::record;
use super::{Desk, api, usual};
use crate::fixture::{get, request, test};
use crate::refusal::Reason;
use crate::wire::{AuditAnswer, Granted, UseKind, UseRecord};
use crate::worker::{Call, Outcome, Records};
use std::rc::Rc;

fn parsed(batch: &str) -> Vec<UseRecord> {
    batch.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(batch: &str) -> Vec<u64> {
    parsed(batch).iter().map(|record| record.seq).collect()
}

fn refused() -> Outcome {
    Outcome::Refused(Reason::HostNotAllowed, None)
}

#[test]
fn records_are_numbered_from_one_without_gaps() {
    let mut desk = Desk::ready();
    assert!(desk.batch().is_none(), "nothing to say");
    (0..3).for_each(|_| record(&mut desk, &api(), &refused()));
    let (token, batch) = desk.batch().unwrap();
    assert_eq!(numbers(&batch), [1, 2, 3]);
    record(&mut desk, &api(), &Outcome::Undecided);
    assert!(desk.batch().is_none(), "one batch at a time");
    desk.answer(token, &AuditAnswer { acked: 3 });
    desk.wait(99);
    assert!(desk.batch().is_none(), "records travel together");
    desk.wait(1);
    assert_eq!(numbers(&desk.batch().unwrap().1), [4]);
}

#[test]
fn a_batch_names_its_worker() {
    let mut desk = Desk::ready();
    record(&mut desk, &api(), &refused());
    let (_, dispatch) = desk.take(Call::Audit).unwrap();
    assert_eq!((dispatch.method, &*dispatch.path), ("POST", "/v1/audit?worker=0000000a"));
}

#[test]
fn what_is_not_acknowledged_is_sent_again() {
    let mut desk = Desk::ready();
    (0..2).for_each(|_| record(&mut desk, &api(), &refused()));
    let (mut token, batch) = desk.batch().unwrap();
    type Answer = fn(&mut Desk, u32);
    let unacknowledged: [(&str, Answer); 5] = [
        ("a broken link", |desk, token| drop(desk.fail(token))),
        ("a part", |desk, token| drop(desk.answer(token, &AuditAnswer { acked: 1 }))),
        ("nothing", |desk, token| drop(desk.answer(token, &AuditAnswer { acked: 0 }))),
        ("an odd answer", |desk, token| drop(desk.answer_with(token, Some(200), true, b"{\"acked\":2,\"acked\":2}"))),
        ("another type", |desk, token| drop(desk.answer_with(token, Some(200), false, b"{\"acked\":2}"))),
    ];
    for (what, answer) in unacknowledged {
        answer(&mut desk, token);
        desk.wait(199);
        assert!(desk.batch().is_none(), "{what}: not at once");
        desk.wait(1);
        let again = desk.batch().unwrap_or_else(|| panic!("{what}: again"));
        assert_eq!(again.1, batch, "{what}: the same bytes");
        token = again.0;
    }
    desk.answer(token, &AuditAnswer { acked: 2 });
    desk.wait(1_000);
    assert!(desk.batch().is_none());
}

#[test]
fn a_batch_that_cannot_be_sent_is_kept() {
    let mut desk = Desk::ready();
    record(&mut desk, &api(), &refused());
    let due = desk.worker.due(desk.now(), String::new);
    let call = due.into_iter().map(|d| d.call).find(|call| *call == Call::Audit).unwrap();
    assert!(desk.worker.unsent(call, desk.now()).is_empty());
    desk.wait(200);
    assert_eq!(numbers(&desk.batch().unwrap().1), [1]);
}

#[test]
fn uses_without_acknowledgement_are_bounded() {
    let mut desk = Desk::ready();
    let mut answer = usual();
    answer.max_unacked_uses = 3;
    let grant = desk.have_granted(&api(), answer);
    for _ in 0..3 {
        assert!(desk.worker.admits(&grant));
        record(&mut desk, &api(), &Outcome::Forwarded(Rc::clone(&grant)));
    }
    assert!(!desk.worker.admits(&grant));
    let (token, _) = desk.batch().unwrap();
    assert!(!desk.worker.admits(&grant), "sent is not acknowledged");
    desk.fail(token);
    assert!(!desk.worker.admits(&grant));
    desk.wait(200);
    let (token, _) = desk.batch().unwrap();
    desk.answer(token, &AuditAnswer { acked: 3 });
    assert!(desk.worker.admits(&grant));
}

#[test]
fn uses_under_way_count_like_unacknowledged_ones() {
    let mut desk = Desk::ready();
    let mut answer = usual();
    answer.max_unacked_uses = 2;
    let grant = desk.have_granted(&api(), answer);
    desk.worker.begin_use();
    assert!(desk.worker.admits(&grant));
    desk.worker.begin_use();
    assert!(!desk.worker.admits(&grant), "both are still under way");
    desk.worker.end_use();
    record(&mut desk, &api(), &Outcome::Forwarded(Rc::clone(&grant)));
    assert!(!desk.worker.admits(&grant), "one is under way, one unacknowledged");
    desk.worker.end_use();
    assert!(desk.worker.admits(&grant), "one went without a record");
    record(&mut desk, &api(), &Outcome::Passed);
    assert!(desk.worker.admits(&grant), "nor does what passes without a credential count");
    (0..50).for_each(|_| record(&mut desk, &api(), &refused()));
    assert!(desk.worker.admits(&grant), "refusals, which anybody can cause, do not count");
}

#[test]
fn more_bytes_than_a_worker_holds_are_not_admitted() {
    let mut desk = Desk::ready();
    let mut answer = usual();
    answer.max_unacked_uses = u32::MAX;
    let grant = desk.have_granted(&api(), answer);
    let text = "X".repeat(4_096);
    let long = request(&text, &text, &text);
    let mut uses = 0;
    while desk.worker.admits(&grant) && uses < 5_000 {
        record(&mut desk, &long, &Outcome::Forwarded(Rc::clone(&grant)));
        uses += 1;
    }
    assert!((2_000..3_000).contains(&uses), "32 MB of records, 12 kB each: {uses}");
    assert!(!desk.worker.has_room());
    // They are all delivered, and then there is room again.
    let mut delivered = 0;
    let mut deliver = |desk: &mut Desk| {
        let (token, batch) = desk.batch()?;
        delivered += batch.lines().count();
        desk.answer(token, &AuditAnswer { acked: delivered as u64 });
        Some(delivered)
    };
    assert!(deliver(&mut desk).is_some() && deliver(&mut desk).is_some(), "what did not fit waits for nothing");
    while deliver(&mut desk).is_some() {
        desk.wait(100);
    }
    assert_eq!(delivered, uses);
    assert!(desk.worker.admits(&grant) && desk.worker.has_room());
}

#[test]
fn what_a_batch_acknowledges_is_admitted_again_and_no_more() {
    let mut desk = Desk::ready();
    let mut answer = usual();
    answer.max_unacked_uses = 300;
    let grant = desk.have_granted(&api(), answer);
    let text = "X".repeat(4_096);
    let long = request(&text, &text, &text);
    // Refusals between them, which do not count: the first batch holds a part of both.
    for _ in 0..300 {
        record(&mut desk, &long, &Outcome::Forwarded(Rc::clone(&grant)));
        record(&mut desk, &api(), &refused());
    }
    assert!(!desk.worker.admits(&grant));
    let (token, batch) = desk.batch().unwrap();
    let uses = parsed(&batch).iter().filter(|record| record.kind == UseKind::Use).count();
    assert!((100..200).contains(&uses), "2 MB of records: {uses}");
    desk.answer(token, &AuditAnswer { acked: batch.lines().count() as u64 });
    let admitted = (0..300)
        .take_while(|_| {
            desk.worker.admits(&grant) && {
                desk.worker.begin_use();
                true
            }
        })
        .count();
    assert_eq!(admitted, uses);
}

#[test]
fn a_grant_that_admits_nothing_is_never_used() {
    let mut desk = Desk::ready();
    let mut answer = usual();
    answer.max_unacked_uses = 0;
    let grant = desk.have_granted(&api(), answer);
    assert!(!desk.worker.admits(&grant));
}

#[test]
fn refusals_beyond_the_bound_are_counted_and_uses_are_always_kept() {
    const MOST: u64 = 16_384;
    let mut desk = Desk::ready();
    let grant = desk.have_granted(&api(), usual());
    (0..MOST).for_each(|_| record(&mut desk, &api(), &refused()));
    (0..5).for_each(|_| record(&mut desk, &api(), &refused()));
    record(&mut desk, &api(), &Outcome::Undecided);
    record(&mut desk, &api(), &Outcome::Forwarded(grant));
    record(&mut desk, &api(), &Outcome::Passed);
    let mut records = Vec::new();
    while let Some((token, batch)) = desk.batch() {
        records.extend(parsed(&batch));
        desk.answer(token, &AuditAnswer { acked: records.last().unwrap().seq });
        desk.wait(100);
    }
    assert_eq!(records.iter().map(|r| r.seq).collect::<Vec<_>>(), (1..=MOST + 3).collect::<Vec<_>>());
    let kinds: Vec<_> = records.iter().rev().take(4).map(|r| r.kind).collect();
    assert_eq!(kinds, [UseKind::Gap, UseKind::Use, UseKind::Use, UseKind::Deny]);
    assert_eq!(records.iter().filter(|r| r.kind == UseKind::Gap).count(), 1, "the gap is told once");
    let gap = records.last().unwrap();
    assert_eq!(gap.reason.as_deref(), Some("6 refusals not kept"));
    assert!(!gap.auth_injected);
    let told = Records { made: MOST + 3, acknowledged: MOST + 3, dropped: 6 };
    assert_eq!(desk.worker.records(), told, "what metrics tell");
    record(&mut desk, &api(), &refused());
    assert_eq!(numbers(&desk.batch().unwrap().1), [MOST + 4], "and refusals are kept again");
}

#[test]
fn requests_that_pass_never_count_against_a_grant() {
    let mut desk = Desk::ready();
    let grant = desk.have_granted(&api(), Granted { max_unacked_uses: 2, ..usual() });
    record(&mut desk, &api(), &Outcome::Forwarded(Rc::clone(&grant)));
    let long = get("open.example", format!("/{}", "p".repeat(4_000)));
    // More than one batch holds.
    (0..600).for_each(|_| record(&mut desk, &long, &Outcome::Passed));
    record(&mut desk, &api(), &Outcome::Forwarded(Rc::clone(&grant)));
    assert!(!desk.worker.admits(&grant), "two uses");
    let (token, batch) = desk.batch().unwrap();
    let sent = parsed(&batch).last().unwrap().seq;
    assert!(sent < 602, "the second use is not in it");
    assert!(!desk.worker.admits(&grant));
    desk.answer(token, &AuditAnswer { acked: sent });
    assert!(desk.worker.admits(&grant), "one of them is acknowledged");
}
