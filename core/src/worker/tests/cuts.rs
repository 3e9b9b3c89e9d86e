//! What is taken away ends streams that are open on it, and no others.

use super::{Desk, api, change, usual};
use crate::access::Body;
use crate::digest::Digest;
use crate::fixture::{self, Request, destination, name, request, test};
use crate::policy::{BindingSpec, Spec, Unmatched};
use crate::refusal::Reason;
use crate::request::stands;
use crate::time::Millis;
use crate::wire::{Change, Changes, EvidenceDigests, Left, ShownJwt};
use crate::worker::{Call, Cut, Facts, Grant};
use core::net::Ipv4Addr;
use std::rc::Rc;

fn taken(change: Change, left: Left) -> Change {
    Change { left: Some(left), ..change }
}

/// A worker with a grant of session `s-1`, as of no change, that hears of these.
fn told(changes: Vec<Change>) -> (Vec<Cut>, Rc<Grant>) {
    let mut desk = Desk::ready();
    let grant = desk.have_granted(&api(), usual());
    desk.poll_answered(changes.len() as u64, changes);
    (desk.worker.take_cuts(), grant)
}

/// What becomes of a stream that reads and of one that writes.
fn ends(cuts: &[Cut], grant: &Grant) -> [Option<Reason>; 2] {
    [true, false].map(|reads| cuts.iter().find_map(|cut| cut.ends(grant, || reads, |_| Ok(()))))
}

#[test]
fn a_session_that_is_over_keeps_nothing_and_one_that_may_read_keeps_its_reads() {
    for (change, expected) in [
        (taken(change(1, Some("s-1"), None), Left::Nothing), [Some(Reason::SessionExpired); 2]),
        (taken(change(1, Some("s-1"), None), Left::Reads), [None, Some(Reason::ReadOnly)]),
        (taken(change(1, None, None), Left::Nothing), [Some(Reason::SessionExpired); 2]),
        (taken(change(1, Some("s-2"), None), Left::Nothing), [None; 2]),
        (taken(change(1, Some("s-11"), None), Left::Nothing), [None; 2]),
        // Another secret, or more rights: what is open goes on.
        (change(1, None, Some("github")), [None; 2]),
        (change(1, Some("s-1"), None), [None; 2]),
        (change(1, None, None), [None; 2]),
    ] {
        let (cuts, grant) = told(vec![change.clone()]);
        assert_eq!(ends(&cuts, &grant), expected, "{change:?}");
    }
}

#[test]
fn what_is_capped_at_one_destination_goes_on_at_another() {
    let at = |destination: &str| Change {
        destination: Some(destination.into()),
        ..taken(change(1, None, Some("github")), Left::Reads)
    };
    for (destination, expected) in
        [("api.github.com:443", [None, Some(Reason::ReadOnly)]), ("github.com:443", [None; 2])]
    {
        let (cuts, grant) = told(vec![at(destination)]);
        assert_eq!(ends(&cuts, &grant), expected, "{destination}");
    }
}

#[test]
fn what_only_a_connection_named_ends_when_another_session_is_bound_to_it() {
    let none = EvidenceDigests::default();
    let token = Some(Digest::of(b""));
    let jwt = Some(ShownJwt { header: String::new(), token: String::new() });
    let peer = Some("spiffe://test/agent".to_owned());
    let (source, listener) = (Some(Ipv4Addr::LOCALHOST.into()), Some(name("attache")));
    for (evidence, named) in [
        (EvidenceDigests { peer: peer.clone(), ..none.clone() }, false),
        (EvidenceDigests { peer: peer.clone(), source, listener: listener.clone(), ..none.clone() }, false),
        (none.clone(), false),
        (EvidenceDigests { placeholder: token, ..none.clone() }, true),
        (EvidenceDigests { session_token: token, peer, ..none.clone() }, true),
        (EvidenceDigests { jwt, listener, ..none.clone() }, true),
    ] {
        let evidence = &evidence;
        let (cuts, _) = told(vec![taken(change(1, Some("s-1"), None), Left::Named)]);
        let facts = Facts {
            destination: "api.github.com:443",
            cluster: "to-api",
            service: "github",
            evidence,
            masker: None,
            life: 1,
        };
        let grant = Grant::accept(usual(), Millis(0), facts).unwrap();
        let expected = (!named).then_some(Reason::EvidenceConflict);
        assert_eq!(ends(&cuts, &grant), [expected; 2], "{evidence:?}");
    }
}

#[test]
fn another_policy_ends_what_it_does_not_let_through() {
    let under = |change: &dyn Fn(&mut Spec), request: &Request| {
        let mut desk = Desk::ready();
        let grant = desk.have_granted(request, usual());
        let snapshot = request.read(&desk.worker.policy());
        let mut spec = super::spec_version("v2");
        change(&mut spec);
        desk.worker.take_cuts();
        let poll = desk.take(Call::Changes).unwrap().0;
        desk.answer(poll, &Changes { epoch: "e1".into(), cursor: 0, policy: "v2".into(), changes: Vec::new() });
        let fetch = desk.take(Call::Policy).unwrap().0;
        desk.answer(fetch, &spec);
        let cuts = desk.worker.take_cuts();
        assert_eq!(cuts.len(), 1);
        cuts[0].ends(&grant, || true, |policy| stands(policy, &snapshot, &grant, || Body::Unread))
    };
    let push = request("POST", "api.github.com", "/v1/x").bearer(fixture::PLACEHOLDER);
    let binding = |spec: &mut Spec| spec.destinations[destination::API].bindings.remove(0);
    assert_eq!(under(&|_| (), &push), None, "the same rules under another name");
    assert_eq!(under(&|spec| spec.unmatched = Unmatched::Pass, &push), None);
    assert_eq!(under(&|spec| drop(spec.destinations.remove(0)), &push), Some(Reason::HostNotAllowed));
    let only = |path: &'static str| {
        move |spec: &mut Spec| {
            let narrowed = BindingSpec { paths: vec![path.into()], ..binding(spec) };
            spec.destinations[destination::API].bindings.push(narrowed);
        }
    };
    assert_eq!(under(&only("/v2/"), &push), Some(Reason::CredentialNotGranted));
    assert_eq!(under(&only("/v1/"), &push), None);
    let other = |spec: &mut Spec| {
        drop(binding(spec));
        spec.destinations[destination::API].bindings.push(fixture::bind("maps", "authorization"));
    };
    assert!(under(&other, &push).is_some(), "another credential's destination now");
    // Its place in the list is no matter.
    assert_eq!(under(&|spec| spec.destinations.reverse(), &push), None);
}

#[test]
fn a_grant_that_knows_of_the_change_keeps_its_streams() {
    let mut desk = Desk::ready();
    let grant = desk.have_granted(&api(), crate::wire::Granted { as_of: 1, ..usual() });
    desk.poll_answered(1, vec![taken(change(1, Some("s-1"), None), Left::Reads)]);
    assert_eq!(ends(&desk.worker.take_cuts(), &grant), [None; 2]);
    desk.poll_answered(2, vec![taken(change(2, Some("s-1"), None), Left::Reads)]);
    assert_eq!(ends(&desk.worker.take_cuts(), &grant), [None, Some(Reason::ReadOnly)]);
    assert!(desk.worker.take_cuts().is_empty(), "said once");
}

#[test]
fn a_broker_that_has_begun_anew_cuts_by_what_it_says_whatever_its_cursors() {
    let mut desk = Desk::ready();
    let grant = desk.have_granted(&api(), crate::wire::Granted { as_of: 900, ..usual() });
    let poll = desk.take(Call::Changes).unwrap().0;
    let changes = vec![taken(change(2, Some("s-1"), None), Left::Nothing)];
    desk.answer(poll, &Changes { epoch: "e2".into(), cursor: 3, policy: "v1".into(), changes });
    assert_eq!(ends(&desk.worker.take_cuts(), &grant), [Some(Reason::SessionExpired); 2]);

    // What it says later, too, however far the one before had got; and what was granted since is held against its own.
    let poll = desk.take(Call::Changes).unwrap().0;
    let later = |cursor| vec![taken(change(cursor, Some("s-1"), None), Left::Reads)];
    desk.answer(poll, &Changes { epoch: "e2".into(), cursor: 4, policy: "v1".into(), changes: later(4) });
    assert_eq!(ends(&desk.worker.take_cuts(), &grant), [None, Some(Reason::ReadOnly)]);
    let grant = desk.have_granted(&api(), crate::wire::Granted { as_of: 5, ..usual() });
    let poll = desk.take(Call::Changes).unwrap().0;
    desk.answer(poll, &Changes { epoch: "e2".into(), cursor: 5, policy: "v1".into(), changes: later(5) });
    assert_eq!(ends(&desk.worker.take_cuts(), &grant), [None; 2]);

    // That it has begun anew is no reason by itself.
    let poll = desk.take(Call::Changes).unwrap().0;
    desk.answer(poll, &Changes { epoch: "e3".into(), cursor: 0, policy: "v1".into(), changes: Vec::new() });
    assert!(desk.worker.take_cuts().is_empty());
}

#[test]
fn out_of_touch_nothing_older_than_the_bound_stays_open() {
    let mut desk = Desk::ready();
    let answered = desk.now;
    desk.wait(super::STALE_AFTER - 1);
    assert_eq!(desk.worker.stale_since(desk.now()), None);
    desk.wait(1);
    assert_eq!(desk.worker.stale_since(desk.now()), Some(Millis(answered)));
    // What a broker that answers questions, but no polls, lets through has the same time.
    desk.wait(500);
    assert_eq!(desk.worker.stale_since(desk.now()), Some(Millis(answered + 500)));
    desk.poll_answered(0, Vec::new());
    assert_eq!(desk.worker.stale_since(desk.now()), None);
}

#[test]
fn a_worker_that_was_never_in_touch_keeps_nothing_for_longer() {
    let desk = Desk::new();
    assert_eq!(desk.worker.stale_since(Millis(super::STALE_AFTER - 1)), None, "nothing is that old");
    assert_eq!(desk.worker.stale_since(Millis(super::STALE_AFTER)), Some(Millis(0)));
}
