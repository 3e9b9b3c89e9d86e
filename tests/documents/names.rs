//! Every link, path, test, `make` target and `attache` command that a document names exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use attache_tests::util::broker_bin;

use super::markdown::{Document, spans};
use super::{at, documents, files, none, read, sources};

/// Where a path from the root begins.
const TOP: [&str; 8] = ["core/", "filter/", "broker/", "envoy/", "tests/", "docs/", "scripts/", ".ci/"];

#[test]
fn every_link_leads_somewhere() {
    let mut complaints = Vec::new();
    for document in documents() {
        for (line, target) in document.links() {
            if target.starts_with("https://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = match file {
                "" => document.path.clone(),
                file => document.path.parent().unwrap_or(Path::new("")).join(file),
            };
            let found = at(&path.to_string_lossy());
            let has_anchor = || Document::read(&path).anchors().iter().any(|known| known == anchor);
            if !found.exists() || (!anchor.is_empty() && !has_anchor()) {
                complaints.push(format!("{}: the link {target} leads nowhere", document.place(line)));
            }
        }
    }
    none(complaints);
}

#[test]
fn every_path_that_is_named_exists() {
    let all = files();
    let mut complaints = Vec::new();
    for document in documents() {
        for (line, text) in &document.prose {
            // A name in capitals stands for any.
            let paths: Vec<_> = spans(text).into_iter().filter(|s| is_path(s) && !s.contains("NAME")).collect();
            for path in &paths {
                if !at(path.split("::").next().unwrap_or(path)).exists() {
                    complaints.push(format!("{}: there is no {path}", document.place(*line)));
                }
            }
            // `spec.rs` in a line that names a directory stands in there; alone, anywhere.
            let bare = spans(text).into_iter().filter(|span| span.ends_with(".rs") && !is_path(span));
            for name in bare {
                let near = |file: &Path| paths.is_empty() || paths.iter().any(|path| file.starts_with(dir_of(path)));
                if !all.iter().any(|file| file.ends_with(name) && near(file)) {
                    complaints.push(format!("{}: there is no {name} in {paths:?}", document.place(*line)));
                }
            }
        }
    }
    none(complaints);
}

/// `file.rs::name` is a test, a function, a constant or a type of that file; `Type::function` is a
/// function of some file with that type.
#[test]
fn every_item_that_is_named_exists() {
    let all = sources(&["core", "filter", "broker", "tests"]);
    let mut complaints = Vec::new();
    for document in documents() {
        for (line, span) in document.spans() {
            let Some((owner, name)) = span.split_once("::").filter(|(_, name)| is_word(name)) else { continue };
            let found = match is_path(span) {
                true => defines(&read(&at(owner)), name),
                false if !is_word(owner) => continue,
                // A variant stands in the type's own file, a function wherever the type is at hand.
                false if name.starts_with(char::is_uppercase) => {
                    all.iter().any(|(_, text)| defines(text, owner) && text.contains(name))
                }
                false => all.iter().any(|(_, text)| defines(text, name) && text.contains(owner)),
            };
            if !found {
                complaints.push(format!("{}: there is no {span}", document.place(line)));
            }
        }
    }
    none(complaints);
}

/// A promise of SECURITY.md that is shown by a file of `tests/` as a whole is shown by some test in
/// it, or in the directory of its name.
#[test]
fn every_file_that_shows_a_promise_holds_a_test() {
    let security = Document::read(Path::new("SECURITY.md"));
    let named = security.spans().filter(|(_, span)| span.starts_with("tests/") && span.ends_with(".rs"));
    let holds_a_test = |file: &str| {
        let all = sources(&[file, file.trim_end_matches(".rs")]);
        all.iter().any(|(_, text)| text.contains("#[test]\n") || text.contains("#[tokio::test"))
    };
    let empty = named.filter(|(_, file)| !holds_a_test(file));
    none(empty.map(|(line, file)| format!("{}: {file} holds no test", security.place(line))).collect());
}

/// Each promise of SECURITY.md names a test that shows it, in its last column; only one that is *not yet*
/// kept has none.
#[test]
fn every_promise_names_a_test_that_exists() {
    let security = read(&at("SECURITY.md"));
    let promises: Vec<_> = security.lines().filter(|line| line.starts_with("| P")).collect();
    let numbers: Vec<_> = promises.iter().filter_map(|line| line.split('|').nth(1)).map(str::trim).collect();
    assert_eq!(numbers, (1..=10).map(|n| format!("P{n}")).collect::<Vec<_>>());
    none(promises.into_iter().filter_map(unshown).collect());
}

/// What is wrong with the row of a promise.
fn unshown(row: &str) -> Option<String> {
    let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
    let [number, _, today, shown] = cells[..] else { return Some(format!("{row}: not four columns")) };
    if shown == "none" {
        return (!today.starts_with("**not yet**")).then(|| format!("{number}: no test, though it holds"));
    }
    let is_test = |span: &&str| {
        let (file, name) = span.split_once("::").unwrap_or((span, ""));
        let text = read(&at(file));
        let line = [format!("fn {name}("), format!("fn {name}<")];
        text.lines().zip(text.lines().skip(1)).any(|(above, below)| {
            (above.contains("test]") || above.contains("::test(")) && line.iter().any(|line| below.contains(line))
        })
    };
    let named = spans(shown);
    let missing: Vec<_> = named.iter().filter(|span| !is_test(span)).collect();
    (named.is_empty() || !missing.is_empty()).then(|| format!("{number}: no such test: {missing:?}"))
}

#[test]
fn a_promise_without_its_test_is_missed() {
    let row = |today: &str, shown: &str| unshown(&format!("| P3 | No decision, no forward | {today} | {shown} |"));
    assert_eq!(row("holds", "`tests/documents/names.rs::a_promise_without_its_test_is_missed`"), None);
    assert_eq!(row("**not yet**: no masking", "none"), None);
    for (today, shown) in [
        ("holds", "none"),
        ("holds", ""),
        ("holds", "a test"),
        ("holds", "`tests/documents/names.rs::unshown`"),
        ("holds", "`tests/documents/names.rs::nothing_like_it`"),
    ] {
        assert!(row(today, shown).is_some(), "{today}, {shown}");
    }
}

#[test]
fn every_make_target_that_is_named_exists() {
    let makefile = read(&at("Makefile"));
    let targets: BTreeSet<_> = makefile.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    let mut complaints = Vec::new();
    for document in documents() {
        for (line, command) in commands(&document, "make") {
            for word in command.iter().filter(|word| !word.contains('=')) {
                if !targets.contains(word.as_str()) {
                    complaints.push(format!("{}: there is no make {word}", document.place(line)));
                }
            }
        }
    }
    none(complaints);
}

#[test]
fn every_command_and_flag_that_is_named_exists() {
    let tree = Tree::of_the_binary();
    assert!(tree.0.len() > 15, "the commands are not listed as they were");
    let mut complaints = Vec::new();
    let mut seen = 0;
    for document in documents() {
        for (line, command) in commands(&document, "attache") {
            seen += 1;
            complaints.extend(tree.misses(&command).map(|why| format!("{}: {why}", document.place(line))));
        }
    }
    // What refusals tell agents is documentation, too.
    for reason in attache_core::refusal::Reason::ALL {
        let hints = spans(reason.hint()).into_iter().filter_map(|span| span.strip_prefix("attache "));
        for hint in hints {
            complaints.extend(tree.misses(&words(hint)).map(|why| format!("{}: {why}", reason.as_str())));
        }
    }
    assert!(seen > 30, "commands are not found in the documents: {seen}");
    none(complaints);
}

/// The help of each command, by its words.
struct Tree(BTreeMap<Vec<String>, String>);

impl Tree {
    fn of_the_binary() -> Self {
        let mut tree = BTreeMap::new();
        let mut open = vec![Vec::<String>::new()];
        while let Some(path) = open.pop() {
            let output = Command::new(broker_bin()).args(&path).arg("--help").output().expect("attache runs");
            assert!(output.status.success(), "attache {path:?} --help: {output:?}");
            let help = String::from_utf8_lossy(&output.stdout).into_owned();
            for command in subcommands(&help).filter(|command| *command != "help") {
                open.push([&path[..], &[command.to_owned()]].concat());
            }
            tree.insert(path, help);
        }
        Self(tree)
    }

    /// What is wrong with a command line, if anything is.
    fn misses(&self, command: &[String]) -> Option<String> {
        let mut path = Vec::<String>::new();
        let mut after_flag = false;
        for word in command {
            let help = self.0.get(&path)?;
            let deeper = [&path[..], std::slice::from_ref(word)].concat();
            if let Some(flag) = word.split('=').next().filter(|flag| flag.starts_with("--")) {
                if !help.split_whitespace().any(|known| known.trim_end_matches(',') == flag) {
                    return Some(format!("attache {} has no {flag}", path.join(" ")));
                }
            } else if self.0.contains_key(&deeper) {
                path = deeper;
            } else if !after_flag && subcommands(help).next().is_some() && is_lower(word) {
                return Some(format!("there is no attache {}", deeper.join(" ")));
            }
            after_flag = word.starts_with('-');
        }
        None
    }
}

fn subcommands(help: &str) -> impl Iterator<Item = &str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    listed.filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
}

/// All calls of `program` in a document: in code spans, and in blocks of shell.
fn commands(document: &Document, program: &str) -> Vec<(usize, Vec<String>)> {
    let call = |text: &str| text.strip_prefix(program)?.strip_prefix(' ').map(words);
    let mut found: Vec<_> = document.spans().filter_map(|(line, span)| Some((line, call(span)?))).collect();
    for block in document.blocks.iter().filter(|block| block.info.starts_with("sh")) {
        for (index, line) in block.text.lines().enumerate() {
            let code = line.split(" # ").next().unwrap_or(line);
            let parts = code.split(['|', '(', ')', ';', '>', '&']).map(str::trim);
            found.extend(parts.filter_map(|part| Some((block.line + 1 + index, call(part)?))));
        }
    }
    found
}

fn words(command: &str) -> Vec<String> {
    let code = command.split(" > ").next().unwrap_or(command);
    code.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect()
}

fn is_path(span: &str) -> bool {
    let file = span.split("::").next().unwrap_or(span);
    let plain = file.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    let at_root = ["README.md", "SECURITY.md", "CHANGELOG.md", "Makefile", "deny.toml", "clippy.toml"].contains(&file);
    plain && (at_root || TOP.iter().any(|top| file.starts_with(top)))
}

fn dir_of(path: &str) -> &Path {
    let path = Path::new(path);
    if path.extension().is_some() { path.parent().unwrap_or(path) } else { path }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_lower(word: &str) -> bool {
    word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
}

fn defines(text: &str, name: &str) -> bool {
    ["fn ", "const ", "static ", "struct ", "enum ", "trait ", "type "].iter().any(|kind| {
        let defined = format!("{kind}{name}");
        text.match_indices(&defined).any(|(at, _)| {
            let next = text[at + defined.len()..].bytes().next().unwrap_or(b' ');
            !next.is_ascii_alphanumeric() && next != b'_'
        })
    })
}

#[test]
fn what_does_not_exist_is_missed() {
    let tree = Tree::of_the_binary();
    for good in ["session create x --credential y --ttl=1h", "audit tail -n 3 --json", "--json session …", "up"] {
        assert_eq!(tree.misses(&words(good)), None, "{good}");
    }
    for bad in ["session invent", "audit tail --backwards", "fly"] {
        assert!(tree.misses(&words(bad)).is_some(), "{bad}");
    }
    assert!(defines("pub fn whole<T>()", "whole") && !defines("fn wholesale()", "whole"));
}
