//! Faults under load: those that no other test causes, each once, and the page that tells of all.
//!
//! `make test-faults` causes all of them, at three loads.

use std::collections::BTreeSet;

use attache_tests::disk::Disk;
use attache_tests::faults::{self, BRIEF, Cell, Fault, LOADS, ROWS, page};
use attache_tests::util;

#[tokio::test(flavor = "multi_thread")]
async fn under_load_nothing_is_forwarded_undecided_nothing_gets_out_and_nobody_waits_for_ever() {
    let mut failures = Vec::new();
    for row in ROWS.iter().filter(|row| row.short) {
        if matches!(row.fault, Fault::DiskFull) && !Disk::may_be_mounted() {
            util::skipped("only root can mount a small disk: run this test as root");
            continue;
        }
        for cell in faults::run(row, &[BRIEF]).await {
            print!("{}", page::lines(row, std::slice::from_ref(&cell)));
            if cell.is_void() {
                util::skipped(format_args!("{}: this machine is too busy to hold it to times", row.name));
                continue;
            }
            failures.extend(cell.wrong().map(|why| format!("{}: {why}", row.name)));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn the_page_tells_of_every_fault_at_every_load_and_none_fails() {
    let generated = page::generated();
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows: Vec<_> = generated.lines().filter(|line| line.starts_with("| ")).map(cells).collect();
    let (head, rows) = rows.split_first().expect("a head");
    assert_eq!(Some(head), page::HEAD.lines().next().map(cells).as_ref(), "run `make test-faults`");
    let told: BTreeSet<_> = rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let loads =
        |fault: Fault| LOADS.iter().filter(move |load| load.name == "100/s" || !matches!(fault, Fault::Kills(_)));
    let all = ROWS.iter().flat_map(|row| loads(row.fault).map(|load| (row.name.to_owned(), load.name.to_owned())));
    assert_eq!(told, all.collect(), "run `make test-faults`");
    for row in rows {
        assert_eq!(row.len(), head.len(), "{row:?}");
        let (verdict, counts) = (&row[10], &row[5..8]);
        let is_good = verdict.starts_with("holds") && counts == ["0", "0", "0"];
        assert!(is_good || verdict.starts_with("not judged: "), "{row:?}");
    }
    assert!(generated.contains("The soak: ") && !generated.contains("fails"), "{generated}");
}

#[test]
fn what_fails_is_not_tried_again_however_busy_the_machine_is() {
    let late = Cell { late: vec!["answered after 9s".into()], waited: 0.9, ..Cell::default() };
    let (holds, slow) = (Cell::default(), Cell { waited: 0.1, ..late.clone() });
    let failed = Cell { failures: vec!["a leak".into()], ..late.clone() };
    let panicked = Cell::failed("all", "an agent panicked".into());
    for (cells, expected) in [
        (vec![], false),
        (vec![&holds], false),
        (vec![&holds, &late], true),
        (vec![&late, &late], true),
        (vec![&late, &slow], false),
        (vec![&late, &failed], false),
        (vec![&failed], false),
        (vec![&panicked], false),
    ] {
        let cells: Vec<Cell> = cells.into_iter().cloned().collect();
        assert_eq!(faults::says_nothing(&cells), expected, "{cells:#?}");
    }
}

#[test]
fn each_fault_has_a_name_of_its_own() {
    let names: BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), ROWS.len());
}
