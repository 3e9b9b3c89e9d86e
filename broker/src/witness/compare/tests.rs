use super::*;

const BEGAN_MS: u64 = 1_000_000;
const LATER: Duration = Duration::from_secs(11);

fn entry(request_id: &str, verdict: &str) -> Entry {
    let (request_id, verdict) = (request_id.to_owned(), verdict.to_owned());
    Entry { request_id, verdict, method: "GET".into(), response_code: 200, ..Entry::default() }
}

fn decided(request_id: &str) -> Entry {
    entry(request_id, "{\"cluster\":\"c\",\"decision\":\"forward\"}")
}

fn record(comparison: &Comparison, seq: u64, request_id: &str) -> Recorded {
    Recorded { seq, key: comparison.key("", request_id), ended_ms: BEGAN_MS + 1 }
}

/// What is found when all have been waited for.
fn at_last(comparison: &mut Comparison, now: Instant) -> News {
    comparison.news(now + LATER)
}

#[test]
fn a_request_that_both_saw_is_nothing_to_tell_of_whoever_told_first() {
    let (now, mut comparison) = (Instant::now(), Comparison::new(BEGAN_MS));
    comparison.saw(decided("a"), now);
    let records = [record(&comparison, 1, "a"), record(&comparison, 2, "b")];
    comparison.recorded(("", "w"), &records, 2, now);
    comparison.saw(decided("b"), now);
    assert_eq!(at_last(&mut comparison, now), News { explained: 2, ..News::default() });
}

#[test]
fn a_record_explains_one_request_however_often_its_id_is_used() {
    let (now, mut comparison) = (Instant::now(), Comparison::new(BEGAN_MS));
    let records = [record(&comparison, 1, "a")];
    comparison.recorded(("", "w"), &records, 1, now);
    comparison.saw(decided("a"), now);
    comparison.saw(decided("a"), now);
    assert_eq!(at_last(&mut comparison, now).findings, [Finding::Unrecorded(Box::new(decided("a")))]);
}

#[test]
fn no_record_explains_a_request_that_no_filter_decided_on() {
    let (now, mut comparison) = (Instant::now(), Comparison::new(BEGAN_MS));
    let records = [record(&comparison, 1, "a")];
    comparison.recorded(("", "w"), &records, 1, now);
    let by_envoy = Entry { response_code: 426, ..entry("a", "") };
    comparison.saw(by_envoy.clone(), now);
    let past_us = Entry { upstream: "10.0.0.1:443".into(), ..entry("a", "") };
    comparison.saw(past_us.clone(), now);
    let expected = [Finding::NotDecided(Box::new(by_envoy)), Finding::Bypassed(Box::new(past_us))];
    assert_eq!(comparison.news(now).findings, expected, "and at once");
}

#[test]
fn what_is_envoys_own_and_harmless_is_not_told() {
    let (now, mut comparison) = (Instant::now(), Comparison::new(BEGAN_MS));
    comparison.saw(Entry { route: "health".into(), ..entry("a", "") }, now);
    comparison.saw(Entry { response_code: 0, method: String::new(), ..entry("", "") }, now);
    assert_eq!(at_last(&mut comparison, now), News::default());
    let aborted = Entry { response_code: 0, ..entry("a", "") };
    comparison.saw(aborted.clone(), now);
    assert_eq!(comparison.news(now).findings, [Finding::NotDecided(Box::new(aborted))]);
}

#[test]
fn a_lost_line_is_counted_once_and_not_before_its_time() {
    let (now, mut comparison) = (Instant::now(), Comparison::new(BEGAN_MS));
    let records = [record(&comparison, 1, "a")];
    comparison.recorded(("", "w"), &records, 1, now);
    // Sent again, for the answer was lost; and one that is not on disk.
    let again = [records[0], record(&comparison, 2, "b")];
    comparison.recorded(("", "w"), &again, 1, now);
    assert_eq!(comparison.news(now + WINDOW / 2), News::default());
    assert_eq!(at_last(&mut comparison, now).without_entry, 1);
    assert_eq!(at_last(&mut comparison, now), News::default());
}

#[test]
fn what_ended_before_the_broker_began_lacks_nothing() {
    let (now, mut comparison) = (Instant::now(), Comparison::new(BEGAN_MS));
    let before = Recorded { ended_ms: BEGAN_MS - 1, ..record(&comparison, 1, "a") };
    comparison.recorded(("", "w"), &[before], 1, now);
    assert_eq!(at_last(&mut comparison, now), News::default());
    comparison.saw(decided("b"), now);
    let before = Recorded { ended_ms: BEGAN_MS - 1, ..record(&comparison, 2, "b") };
    comparison.recorded(("", "w"), &[before], 2, now);
    let explained = News { explained: 1, ..News::default() };
    assert_eq!(at_last(&mut comparison, now), explained, "and explains what it explains");
}

#[test]
fn after_a_time_in_which_nothing_could_come_nothing_is_missing_yet() {
    let (now, mut comparison) = (Instant::now(), Comparison::new(BEGAN_MS));
    comparison.saw(decided("a"), now);
    comparison.be_patient(now + LATER);
    assert_eq!(at_last(&mut comparison, now), News::default());
    let records = [record(&comparison, 1, "a")];
    comparison.recorded(("", "w"), &records, 1, now + LATER);
    assert_eq!(comparison.news(now + LATER + LATER), News { explained: 1, ..News::default() });
}

#[test]
fn a_flood_is_bounded_and_hides_nothing() {
    let (now, mut comparison) = (Instant::now(), Comparison::new(BEGAN_MS));
    for _ in 0..FINDINGS + 3 {
        comparison.saw(entry("a", ""), now);
    }
    let past_us = Entry { upstream: "10.0.0.1:443".into(), ..entry("b", "") };
    comparison.saw(past_us.clone(), now);
    let news = comparison.news(now);
    assert_eq!((news.findings.len(), news.dropped), (FINDINGS + 1, 3));
    assert_eq!(news.findings.last(), Some(&Finding::Bypassed(Box::new(past_us))));
}

#[test]
fn an_id_is_found_however_it_was_escaped() {
    let comparison = Comparison::new(BEGAN_MS);
    assert_eq!(comparison.key("", "a-1\u{ff}\""), comparison.key("", "a-1\u{fffd}"));
    assert_eq!((comparison.key("", ""), comparison.key("", "\u{ff}")), (None, None));
}

#[test]
fn the_highest_number_is_a_number() {
    let (now, mut comparison) = (Instant::now(), Comparison::new(BEGAN_MS));
    comparison.recorded(("", "w"), &[record(&comparison, u64::MAX, "a")], u64::MAX, now);
    comparison.recorded(("", "w"), &[record(&comparison, u64::MAX, "b")], u64::MAX, now);
    comparison.saw(decided("a"), now);
    assert_eq!(at_last(&mut comparison, now), News { explained: 1, ..News::default() });
}

#[test]
fn a_request_that_went_where_its_verdict_does_not_name_is_an_alarm_whatever_is_on_record() {
    let (now, mut comparison) = (Instant::now(), Comparison::new(BEGAN_MS));
    let records = [record(&comparison, 1, "a"), record(&comparison, 2, "b"), record(&comparison, 3, "c")];
    comparison.recorded(("", "w"), &records, 3, now);
    let to = |cluster: &str, entry: Entry| Entry { cluster: cluster.into(), upstream: "10.0.0.1:443".into(), ..entry };
    let refused = to("c", entry("a", "{\"cluster\":\"\",\"decision\":\"refuse\",\"reason\":\"read_only\"}"));
    let elsewhere = to("d", decided("b"));
    for went in [&refused, &elsewhere] {
        comparison.saw(went.clone(), now);
    }
    comparison.saw(to("c", decided("c")), now);
    let nameless = to("c", decided(""));
    comparison.saw(nameless.clone(), now);
    let found =
        [Finding::Unrecorded(nameless.into()), Finding::Bypassed(refused.into()), Finding::Bypassed(elsewhere.into())];
    assert_eq!(comparison.news(now).findings, found);
}

#[test]
fn one_envoys_flood_costs_another_neither_lines_nor_records_nor_findings() {
    let (now, mut comparison) = (Instant::now(), Comparison::new(BEGAN_MS));
    let of = |from: &str, entry: Entry| Entry { from: from.into(), ..entry };
    let record_of =
        |comparison: &Comparison, id: &str| Recorded { key: comparison.key("other", id), ..record(comparison, 1, id) };
    comparison.saw(of("other", decided("line")), now);
    let waits = [record_of(&comparison, "record")];
    comparison.recorded(("other", "w"), &waits, 1, now);
    let (refused, past_us) = (of("other", entry("a", "")), Entry { upstream: "10.0.0.1:443".into(), ..entry("b", "") });
    comparison.saw(refused.clone(), now);
    for n in 0..FINDINGS + ENTRIES {
        comparison.saw(of("greedy", decided(&n.to_string())), now);
        comparison.saw(of("greedy", past_us.clone()), now);
        comparison.saw(of("greedy", entry("a", "")), now);
    }
    for n in 0..RECORDS as u64 + 3 {
        let key = comparison.key("greedy", &format!("r{n}"));
        comparison.recorded(("greedy", "v"), &[Recorded { seq: n + 1, key, ended_ms: BEGAN_MS }], n + 1, now);
    }
    comparison.saw(of("other", past_us.clone()), now);
    // Both still find their counterparts.
    let line = [Recorded { seq: 2, ..record_of(&comparison, "line") }];
    comparison.recorded(("other", "w"), &line, 2, now);
    comparison.saw(of("other", decided("record")), now);
    let news = comparison.news(now);
    assert_eq!(news.explained, 2);
    for told in [Finding::NotDecided(refused.into()), Finding::Bypassed(of("other", past_us).into())] {
        assert!(news.findings.contains(&told), "{told:?}");
    }
    assert!(news.dropped > 0);
}
