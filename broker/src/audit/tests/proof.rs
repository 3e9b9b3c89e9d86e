//! Whatever is done to a log is found, and named.

use super::*;
use crate::audit::head::{Anchor, Head};
use crate::audit::verify::Known;
use attache_core::audit::chain;

/// A log of three files, each line with its file and its number in it.
struct Log {
    dir: Dir,
    files: Vec<PathBuf>,
    lines: Vec<(usize, u64, String)>,
}

impl Log {
    async fn write() -> Self {
        let dir = Dir::new();
        let log = dir.try_open(1600, Checkpoints { records: 3, ..RARELY }).unwrap();
        for seq in 1..=7 {
            log.append_uses("w1".into(), None, vec![used(seq)]).await.unwrap();
        }
        drop(log);
        let report = verify(&dir.path(), None).unwrap();
        assert_eq!((report.broken, report.files.len(), report.unsigned), (None, 3, Some(0)));
        let mut lines = Vec::new();
        for (index, file) in report.files.iter().enumerate() {
            let text = std::fs::read_to_string(file).unwrap();
            lines.extend(text.lines().zip(1..).map(|(line, number)| (index, number, line.to_owned())));
        }
        assert!(lines.len() >= 10 && lines.iter().any(|(file, ..)| *file == 2));
        Self { dir, files: report.files, lines }
    }

    /// What is found when the files hold these lines; the files are as they were afterwards.
    fn with(&self, lines: &[(usize, String)], against: &Against) -> Option<(usize, u64, Why)> {
        for (index, file) in self.files.iter().enumerate() {
            let text: String =
                lines.iter().filter(|(of, _)| *of == index).map(|(_, line)| format!("{line}\n")).collect();
            std::fs::write(file, text).unwrap();
        }
        self.broken(against)
    }

    fn broken(&self, against: &Against) -> Option<(usize, u64, Why)> {
        let broken = crate::audit::verify::verify(&self.dir.path(), against).unwrap().broken?;
        let file = self.files.iter().position(|file| *file == broken.file).unwrap();
        Some((file, broken.line, broken.why))
    }

    fn whole(&self) -> Vec<(usize, String)> {
        self.lines.iter().map(|(file, _, line)| (*file, line.clone())).collect()
    }

    fn hash(&self, record: usize) -> String {
        self.lines[record - 1].2.rsplit('"').nth(1).unwrap().to_owned()
    }

    fn against(&self, record: usize) -> Against {
        let head = Known { hash: self.hash(record), count: Some(record as u64) };
        Against { head: Some(head), ..signed() }
    }
}

fn signed() -> Against {
    Against { keys: keys(), ..Against::default() }
}

#[tokio::test]
async fn any_changed_byte_is_found_and_its_line_is_named() {
    let log = Log::write().await;
    for (index, file) in log.files.iter().enumerate() {
        let good = std::fs::read(file).unwrap();
        let mut line = 1;
        for at in 0..good.len() {
            line += u64::from(at > 0 && good[at - 1] == b'\n');
            // Every byte of the file in the middle; of the others, which differ in nothing, some.
            if index != 1 && at % 7 != 0 {
                continue;
            }
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 7);
            std::fs::write(file, &bad).unwrap();
            let found = log.broken(&signed());
            assert_eq!(found.map(|(file, line, _)| (file, line)), Some((index, line)), "byte {at}");
        }
        std::fs::write(file, good).unwrap();
    }
    assert_eq!(log.broken(&signed()), None);
}

#[tokio::test]
async fn any_dropped_repeated_or_swapped_line_is_found_and_named() {
    let log = Log::write().await;
    let last = log.lines.len() - 1;
    let place = |at: usize| (log.lines[at].0, log.lines[at].1);
    for one in 0..last {
        let mut dropped = log.whole();
        dropped.remove(one);
        let (file, line, why) = log.with(&dropped, &signed()).unwrap();
        // The line that followed is the first that does not fit, in its file as it is now.
        let same_file = log.lines[one + 1].0 == log.lines[one].0;
        assert_eq!((file, line), if same_file { place(one) } else { place(one + 1) }, "line {one} dropped");
        assert_eq!(why, Why::Chain(Broken::Unlinked));
        let mut twice = log.whole();
        twice.insert(one + 1, twice[one].clone());
        let (file, line, _) = log.with(&twice, &signed()).unwrap();
        assert_eq!((file, line), (place(one).0, place(one).1 + 1), "line {one} twice");
        for other in one + 1..=last {
            let mut swapped = log.whole();
            let (a, b) = (swapped[one].1.clone(), swapped[other].1.clone());
            (swapped[one].1, swapped[other].1) = (b, a);
            let (file, line, _) = log.with(&swapped, &signed()).unwrap();
            assert_eq!((file, line), place(one), "lines {one} and {other} swapped");
        }
    }
    assert_eq!(log.with(&log.whole(), &signed()), None);
}

#[tokio::test]
async fn with_an_anchor_any_cut_is_found() {
    let log = Log::write().await;
    let total = log.lines.len();
    for anchored in [1, total / 2, total - 1, total] {
        let against = log.against(anchored);
        for kept in 0..=total {
            let found = log.with(&log.whole()[..kept], &against);
            match kept < anchored {
                true => assert_eq!(found.map(|(.., why)| why), Some(Why::CutOff), "{kept} of {anchored} kept"),
                // Not even the checkpoint after the first record is left.
                false if kept == 1 => assert_eq!(found.map(|(.., why)| why), Some(Why::NeverSigned)),
                false => assert_eq!(found, None, "{kept} kept, {anchored} anchored"),
            }
        }
    }
    // Any byte cut off the end of the last file.
    log.with(&log.whole(), &signed());
    let whole = std::fs::read(&log.files[2]).unwrap();
    for kept in 0..whole.len() {
        std::fs::write(&log.files[2], &whole[..kept]).unwrap();
        assert!(log.broken(&log.against(total)).is_some(), "{kept} bytes kept");
    }
    // Whole files cut off the end: the one before takes the current one's place.
    std::fs::rename(&log.files[1], &log.files[2]).unwrap();
    let report = crate::audit::verify::verify(&log.dir.path(), &log.against(total)).unwrap();
    assert_eq!(report.broken.map(|b| b.why), Some(Why::CutOff));
}

#[tokio::test]
async fn a_log_that_is_written_anew_is_found_by_its_signatures_and_by_an_anchor() {
    let log = Log::write().await;
    let is_checkpoint = |at: usize| log.lines[at].2.contains("\"kind\":\"checkpoint\"");
    let anew = |from: usize, key: Option<&AuditKey>| {
        let mut head = chain::genesis();
        let mut written = Vec::new();
        for (at, (file, _, line)) in log.lines.iter().enumerate() {
            let mut body = line.split(",\"prev\":").next().unwrap().to_owned();
            if at == from {
                body = body.replacen("\"instance\":\"test\"", "\"instance\":\"text\"", 1);
            }
            if is_checkpoint(at)
                && let Some(key) = key
            {
                let record: serde_json::Value = serde_json::from_str(line).unwrap();
                let text = |field: &str| record[field].as_str().unwrap().to_owned();
                let instance = Name::parse(if at == from { "text" } else { "test" }).unwrap();
                let anchor = Head { instance, count: at as u64, hash: head.clone(), timestamp: text("timestamp") };
                body = body.replacen(&text("signature"), &anchor.sign(key).signature, 1);
            }
            let (line, hash) = chain::seal(&format!("{body}}}"), &head).unwrap();
            head = hash;
            written.push((*file, line));
        }
        written
    };
    let last = log.lines.len() - 1;
    for from in 0..last {
        let caught = (from..=last).find(|at| is_checkpoint(*at)).unwrap();
        let (file, line, why) = log.with(&anew(from, None), &signed()).unwrap();
        assert_eq!((file, line, why), (log.lines[caught].0, log.lines[caught].1, Why::Signature));
        assert_eq!(log.with(&anew(from, None), &Against::default()), None, "the chain alone shows nothing");
        // Whoever has the key, too, can only be told by an anchor.
        let stolen = anew(from, Some(&key()));
        assert_eq!(log.with(&stolen, &signed()), None);
        let (file, line, why) = log.with(&stolen, &log.against(last + 1)).unwrap();
        assert_eq!((file, line, why), (log.lines[last].0, log.lines[last].1, Why::Rewritten(last as u64 + 1)));
    }
    let unsigned: Vec<_> = log.lines.iter().filter(|(.., line)| !line.contains("checkpoint")).collect();
    let mut head = chain::genesis();
    let mut written = Vec::new();
    for (file, _, line) in unsigned {
        let body = line.split(",\"prev\":").next().unwrap();
        let (line, hash) = chain::seal(&format!("{body}}}"), &head).unwrap();
        head = hash;
        written.push((*file, line));
    }
    assert_eq!(log.with(&written, &signed()).map(|(.., why)| why), Some(Why::NeverSigned));
}

#[tokio::test]
async fn a_checkpoint_counts_what_stands_before_it() {
    let log = Log::write().await;
    for (at, (.., line)) in log.lines.iter().enumerate() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        if record["kind"] == "checkpoint" {
            assert_eq!(record["count"], at as u64);
            assert_eq!(record["key"].as_str(), Some(key().public().id().as_str()));
            // A checkpoint is an anchor: of its fields, one can be put together.
            let text = |field: &str| record[field].as_str().unwrap().to_owned();
            let anchor = format!("test,{at},{},{},{}", text("prev"), text("timestamp"), text("signature"));
            assert_eq!(anchor.parse::<Anchor>().unwrap().check(&keys()), Ok(()));
        }
    }
    // Each file that was rotated ends in one, and so does a log that was closed in order.
    for file in 0..3 {
        let last = log.lines.iter().rfind(|(of, ..)| *of == file).unwrap();
        assert!(last.2.contains("\"kind\":\"checkpoint\""), "{}", last.2);
    }
    // The count goes on, whichever files are still there.
    let again = log.dir.try_open(u64::MAX, RARELY).unwrap();
    again.append(start()).await.unwrap();
    drop(again);
    assert_eq!(verify(&log.dir.path(), None).unwrap().count, Some(log.lines.len() as u64 + 2));
    std::fs::remove_file(&log.files[0]).unwrap();
    let rest = verify(&log.dir.path(), Some(log.hash(log.lines.iter().filter(|(of, ..)| *of == 0).count()))).unwrap();
    assert_eq!((rest.broken, rest.count), (None, Some(log.lines.len() as u64 + 2)));
}

#[tokio::test]
async fn new_records_are_signed_in_time() {
    let dir = Dir::new();
    let log = dir.try_open(u64::MAX, Checkpoints { records: 10_000, every: Duration::from_millis(50) }).unwrap();
    for n in 1..=3 {
        log.append(start()).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while verify(&dir.path(), None).unwrap().unsigned != Some(0) {
            assert!(Instant::now() < deadline, "record {n} is signed by itself");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let before = verify(&dir.path(), None).unwrap();
    assert_eq!(before.checkpoints, 3);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(verify(&dir.path(), None).unwrap(), before, "nothing new is signed twice");
}

#[tokio::test]
async fn a_life_that_writes_nothing_signs_nothing() {
    let dir = Dir::new();
    let log = dir.open();
    log.append(start()).await.unwrap();
    drop(log);
    let whole = std::fs::read_to_string(dir.path()).unwrap();
    // A tail that is nobody's, as far as this life knows.
    let (unsigned, checkpoint) = (whole.lines().next().unwrap().to_owned() + "\n", whole.lines().nth(1).unwrap());
    assert!(checkpoint.contains("\"kind\":\"checkpoint\""));
    std::fs::write(dir.path(), &unsigned).unwrap();
    drop(dir.open());
    assert_eq!(std::fs::read_to_string(dir.path()).unwrap(), unsigned);
    dir.open().append(start()).await.unwrap();
    assert_eq!(verify(&dir.path(), None).unwrap().unsigned, Some(0), "with its own first record it signs all");
}
