//! Tables that repeat what the code says, say the same.

use std::collections::BTreeSet;
use std::path::Path;

use attache_broker::audit::{Kind, Record};
use attache_broker::config::access::RuleSet;
use attache_broker::config::presets;
use attache_core::access::mcp;
use attache_core::names::Name;
use attache_core::policy::AccessMode;
use attache_core::refusal::Reason;

use super::markdown::{Document, spans};
use super::{at, none, read};

#[test]
fn the_refusals_are_those_of_the_code() {
    let gateway = Document::read(Path::new("docs/gateway.md"));
    let rows = gateway.rows().map(|(_, cells)| cells.join(" | ")).collect::<BTreeSet<_>>();
    let told = |reason: &&Reason| format!("`{}` | {} | {}", reason.as_str(), reason.status(), reason.hint());
    none(Reason::ALL.iter().map(|reason| told(&reason)).filter(|row| !rows.contains(row)).collect());
    let words: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let statuses = gateway.rows().filter(|(_, cells)| cells.get(1).is_some_and(|cell| cell.parse::<u16>().is_ok()));
    let unknown = statuses.filter(|(_, cells)| !words.contains(cells[0].trim_matches('`')));
    none(unknown.map(|(line, cells)| format!("{}: no reason is {}", gateway.place(line), cells[0])).collect());
}

/// The table of presets says what their files say.
#[test]
fn the_presets_are_those_of_the_code() {
    let page = Document::read(Path::new("docs/credentials.md"));
    let rows: BTreeSet<_> = page.rows().map(|(_, cells)| cells.join(" | ")).collect();
    none(presets::NAMES.into_iter().map(row_of).filter(|row| !rows.contains(row)).collect());
    let named = page.rows().filter(|(_, cells)| cells.len() == 6).count();
    assert_eq!(named, presets::NAMES.len() + 1, "a row for each, and the header");
}

fn row_of(name: &str) -> String {
    let preset = presets::find(name).expect("a preset");
    let hosts = preset.destinations.iter().map(|destination| {
        let path = destination.paths.first().map(|path| path.0.as_str()).unwrap_or_default();
        format!("`{}{path}`", destination.host.0)
    });
    let hosts: Vec<_> = hosts.collect();
    let own = preset.destinations.iter().map(|destination| destination.inject.as_ref());
    let mut forms: Vec<String> = Vec::new();
    for inject in own.chain(hosts.is_empty().then_some(None)).map(|own| own.or(preset.inject.as_ref())) {
        let outline = inject.map_or("Authorization: Basic base64(USER:…)".into(), |inject| inject.0.outline());
        if !forms.contains(&format!("`{outline}`")) {
            forms.push(format!("`{outline}`"));
        }
    }
    let with = preset.with.iter().map(|with| format!(" and `{}: {}`", with.header, with.value)).collect::<String>();
    let source = preset.source.as_ref().expect("a source");
    let (variable, file) = (&source.env.as_ref().expect("a variable").0, &source.file.as_ref().expect("a file").0);
    let prefix = &preset.placeholder.as_ref().expect("a shape").prefix;
    let prefix = if prefix.len() < 20 { prefix.clone() } else { format!("{}…_", &prefix[..10]) };
    let agent_env = preset.agent_env.iter().flatten().map(|(name, _)| format!("`{}`", name.0));
    [
        format!("`{name}`"),
        if hosts.is_empty() { "(yours)".to_owned() } else { hosts.join(", ") },
        format!("`{variable}`, `{}`", file.display()),
        forms.join(", ") + &with,
        format!("`{prefix}ATTACHE…`"),
        agent_env.collect::<Vec<_>>().join(", "),
    ]
    .join(" | ")
}

/// The page on read-only tells all rule sets, all words and all methods of MCP that read.
#[test]
fn what_reads_is_what_the_code_says() {
    let page = Document::read(Path::new("docs/read-only.md"));
    let first: Vec<_> = page.rows().filter_map(|(_, cells)| cells.into_iter().next()).collect();
    let told = |name: &str| first.iter().any(|cell| cell.trim_matches('`') == name);
    none(RuleSet::names().filter(|name| !told(name)).map(|name| format!("the set {name} is missing")).collect());
    let text = read(&at("docs/read-only.md"));
    let missing = mcp::READS.iter().filter(|method| !text.contains(&format!("`{method}`")));
    none(missing.map(|method| format!("the method {method} of MCP is missing")).collect());
    let schema: serde_json::Value = serde_json::from_str(&read(&at("docs/attache.schema.json"))).expect("JSON");
    let words = schema["$defs"]["AccessSpec"]["properties"].as_object().expect("the words of `access`").keys();
    let begins = |word: &str| first.iter().any(|cell| cell.starts_with(&format!("`{word}")));
    none(words.filter(|word| !begins(word)).map(|word| format!("the word {word} is missing")).collect());
}

/// Whether a constant of this name is this, which may be written with its type: `AFTER: u64 = 480`.
fn has_value(text: &str, name: &str, written: &str) -> bool {
    let value = written.rsplit(" = ").next().unwrap_or(written);
    text.lines().any(|line| line.contains(&format!("const {name}: ")) && line.contains(&format!("= {value};")))
}

/// A row of bounds names a place and what stands there.
#[test]
fn the_bounds_are_those_of_the_code() {
    let architecture = Document::read(Path::new("docs/ARCHITECTURE.md"));
    let (mut bounds, mut complaints) = (0, Vec::new());
    for (line, cells) in architecture.rows() {
        let [_, place, written] = &cells[..] else { continue };
        let (places, values) = (spans(place), spans(written));
        if !places.iter().all(|place| place.contains(".rs")) || places.is_empty() {
            continue;
        }
        // One for all of the others, or one for each.
        let many = places.len().max(values.len());
        if [places.len(), values.len()].iter().any(|count| *count != 1 && *count != many) || values.is_empty() {
            complaints.push(format!("{}: {} places, {} values", architecture.place(line), places.len(), values.len()));
        }
        for (place, written) in places.iter().cycle().zip(values.iter().cycle()).take(many) {
            bounds += 1;
            let (file, name) = place.split_once("::").map_or((*place, None), |(file, name)| (file, Some(name)));
            let text = read(&at(file));
            let stands = match name {
                None => text.contains(written),
                Some(name) => text.contains(&format!("const {name}: ")) && has_value(&text, name, written),
            };
            if !stands {
                complaints.push(format!("{}: {place} is not {written}", architecture.place(line)));
            }
        }
    }
    assert!(bounds >= 20, "the tables of bounds are not found: {bounds}");
    none(complaints);
}

#[test]
fn the_fields_of_a_record_are_those_of_the_code() {
    let audit = Document::read(Path::new("docs/audit.md"));
    let first = |header: &str| {
        let rows: Vec<_> = audit.rows().map(|(_, cells)| cells[0].to_owned()).collect();
        let from = rows.iter().position(|cell| cell == header).expect("the table is there");
        let until =
            rows[from + 1..].iter().position(|cell| !cell.starts_with('`')).map_or(rows.len(), |n| from + 1 + n);
        rows[from + 1..until].iter().flat_map(|cell| spans(cell)).map(str::to_owned).collect::<Vec<_>>()
    };
    let line = serde_json::to_string(&full()).expect("a record is JSON");
    let mut fields: Vec<_> = line.split("\":").filter_map(|part| Some(part.rsplit_once('"')?.1.to_owned())).collect();
    fields.retain(|field| field.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
    fields.extend(["prev".to_owned(), "hash".to_owned()]);
    assert_eq!(first("field"), fields);

    let kinds = [
        Kind::Use,
        Kind::Tunnel,
        Kind::Deny,
        Kind::Issue,
        Kind::Intent,
        Kind::Mode,
        Kind::Revoke,
        Kind::Unaccounted,
        Kind::Gap,
        Kind::Ca,
        Kind::Renew,
        Kind::Alarm,
        Kind::Start,
        Kind::Stop,
        Kind::Checkpoint,
    ];
    let word = |kind| serde_json::to_value(kind).ok().and_then(|word| Some(word.as_str()?.to_owned()));
    assert_eq!(first("kind"), kinds.into_iter().filter_map(word).collect::<Vec<_>>());
}

/// A record with every field in it. A field that is added must be added here, and then there.
pub fn full() -> Record {
    let text = |text: &str| Some(text.to_owned());
    let name = |text| Name::parse(text).ok();
    Record {
        at_ms: 1_769_860_800_120,
        instance: name("default"),
        session_id: text("s-37e85251aa56e342"),
        service: text("github"),
        method: text("POST"),
        path: text("/user/repos"),
        auth_injected: true,
        response_code: Some(200),
        duration_ms: Some(21),
        kind: Kind::Use,
        seq: 1,
        worker: "eacd475a".into(),
        request_id: text("7eb48f8a-10a1-4a95-97d0-de5281c61afb"),
        session: name("reviewer"),
        authority: text("127.0.0.1:3030"),
        destination: text("api.github.com:443"),
        decision: text("forward"),
        reason: text("read_only"),
        access_mode: Some(AccessMode::ReadOnly),
        credential: name("github"),
        lease_id: text("l-ac452ec074517bcf"),
        fingerprint: text("02fe76d3e39997f6"),
        replaced: text("5c3f76d3e39997f6"),
        evidence: text("placeholder"),
        bytes_in: Some(517),
        bytes_out: Some(4096),
        upstream: text("127.0.0.1:9443"),
        details: text("low_version"),
        masked: Some(1),
        issued_to: text("eacd475a"),
        asked_by: text("spiffe://cluster.local/ns/attache-egress/sa/attache-egress"),
        intent: Some(7),
        ttl_ms: Some(300_000),
        count: Some(8192),
        key: text("5f78c33274e43fa9"),
        signature: text("ilKPAMTzZ4"),
    }
}

/// README.md and SECURITY.md count what was tried as the pages and the tree do.
#[test]
fn what_was_tried_is_counted_as_the_pages_have_it() {
    let page = |path| Document::read(Path::new(path));
    let (attacks, faults, incidents) = (page("docs/attacks.md"), page("docs/faults.md"), page("docs/incidents.md"));
    let attacks = attacks.rows().find(|(_, cells)| cells[0] == "all").map(|(_, cells)| cells[1].to_owned());
    let attacks = attacks.expect("a sum of the attacks");
    let faults = faults.rows().filter(|(_, cells)| cells.get(1) == Some(&"max")).count();
    // Of each table, all rows but its head.
    let incidents = incidents.rows().filter(|(_, cells)| cells[0] != "what happened").count();
    let fuzzed = std::fs::read_dir(at("tests/fuzz/fuzz_targets")).expect("targets").count();
    let [readme, security] = ["README.md", "SECURITY.md"].map(|path| read(&at(path)));
    for (text, claim) in [
        (&readme, format!("[{attacks} attacks](docs/attacks.md)")),
        (&readme, format!("[{faults} faults](docs/faults.md), each at three loads")),
        (&readme, format!("[{incidents} rows of published holes and incidents]")),
        (&readme, format!("| {fuzzed} fuzz targets |")),
        (&security, format!("| {attacks} cases over HTTP/1.1, HTTP/2 and intercepted tunnels;")),
        (&security, format!("| {faults} under three loads,")),
        (&security, format!("| {incidents} rows of published holes and incidents:")),
        (&security, format!("| {fuzzed} fuzz targets;")),
    ] {
        assert!(text.contains(&claim), "nowhere: {claim}");
    }
}
