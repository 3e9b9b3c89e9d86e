//! What is wrong with a case is told with its file, its line, and what to write.

use std::path::Path;

use crate::case::Case;
use crate::corpus;

const GOOD: &str = "\
tries: Asks for more.
why: It may not.
expect: refused read_only
h2: ended http2.invalid.header.field
tls: -
before 1.39 h1: served

--- request
POST /x y
host: api.github.com
authorization: Bearer {{placeholder:reader.github}}
x-{{nothing}}: \\x00\\\\

{\"a\": {{repeat:3:\"{{hex:\\xff}}\"}}}
";

fn parse(text: &str) -> Result<Case, String> {
    Case::parse(Path::new("tests/corpus/read-only/x.case"), text)
}

#[test]
fn a_case_is_understood() {
    let case = parse(GOOD).expect("it is good");
    assert_eq!((case.class.as_str(), case.name.as_str(), case.ends.len(), case.before.len()), ("read-only", "x", 2, 1));
    assert_eq!(case.asker(), "reader");
    let request = case.request.expect("a request");
    let known = crate::values::Known::default();
    let body = request.body.expect("a body").bytes(&known);
    assert_eq!(body, b"{\"a\": \"ff\"\"ff\"\"ff\"}");
    assert_eq!(request.lines[2].0.bytes(&known), b"x-");
    assert_eq!(request.lines[2].1.bytes(&known), b"\0\\");
}

#[test]
fn what_is_wrong_is_told_with_file_line_and_remedy() {
    for (this, that, line, said) in [
        ("tries: ", "tried: ", 1, "there is no field \"tried\": write one of tries, why"),
        ("why: It may not.\n", "", 1, "why must be a sentence"),
        ("may not.", "may not", 1, "ends in a full stop"),
        ("why:", "tries: Twice.\nwhy:", 2, "tries stands there twice: leave one"),
        ("expect: refused read_only", "expect: refused read_onl", 3, "write served, reached STATUS"),
        ("expect: refused read_only", "expect: 403", 3, "nothing ends in \"403\""),
        ("expect: refused read_only\nh2: ended http2.invalid.header.field\n", "", 1, "nothing is expected"),
        ("expect: refused read_only", "expect: status 403", 1, "`status` is what a door of the broker says"),
        ("tls: -", "at: everywhere", 5, "at is no \"everywhere\": write one of gateway"),
        ("tls: -", "tls: -\nat: unmatched", 1, "it does not run over tls"),
        ("tls: -", "session:", 5, "session says nothing"),
        ("before 1.39 h1", "before 1.39 h3", 6, "write `before 1.39: …`"),
        ("--- request", "--- requests", 8, "there is no section \"requests\": write one of tunnel, request"),
        ("--- request", "--- reply\n200\n\n--- reply", 11, "stands there twice"),
        ("--- request", "--- reply\nOK\n--- request", 9, "a reply begins with its status"),
        ("--- request", "--- jwt\nclaim: {}\n--- request", 9, "a JWT has no \"claim\""),
        ("--- request", "--- tunnel\nx:443\n--- request", 1, "a tunnel is asked for `at: proxy`"),
        ("host: api.github.com", "host api.github.com", 10, "the line is no header: write `name: value`"),
        ("{{placeholder:reader.github}}", "{{placeholder}}", 11, "`{{placeholder:writer.github}}`"),
        ("{{placeholder:reader.github}}", "{{github}}", 11, "there is no variable \"github\": write one of"),
        ("{{placeholder:reader.github}}", "{{secret:github}}", 1, "a request with a secret in it attacks nothing"),
        ("\\x00", "\\xg0", 12, "after \\ write x and two hex digits"),
        ("\\x00", "\\x00 ", 12, "white space"),
        ("{{hex:\\xff}}\"}}", "{{hex:\\xff}}\"", 14, "a variable has no end"),
        ("repeat:3", "repeat:many", 14, "`{{repeat:100:TEXT}}`"),
    ] {
        let text = GOOD.replacen(this, that, 1);
        assert_ne!(text, GOOD, "{this}");
        let why = parse(&text.replace("\\x00 ", "\\x00 \n")).expect_err(that);
        let place = format!("tests/corpus/read-only/x.case:{line}: ");
        assert!(why.starts_with(&place) && why.contains(said), "{that:?}: {why}");
    }
    assert!(parse(GOOD.trim_end()).expect_err("no line feed").contains("does not end in a line feed"));
    let named = Case::parse(Path::new("tests/corpus/read-only/A_b.case"), GOOD).expect_err("a name");
    assert!(named.contains("use a-z, 0-9 and -"), "{named}");
}

#[test]
fn a_file_that_is_no_case_or_has_no_class_is_refused() {
    let dir = attache_tests::util::temp_dir();
    for (path, text) in [("path/a.case", GOOD), ("path/b.txt", GOOD), ("paths/c.case", GOOD), ("path/d.case", "")] {
        let file = dir.path().join(path);
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
        std::fs::write(file, text).expect("a file");
    }
    let wrong = corpus::read_from(dir.path()).expect_err("three are wrong");
    assert_eq!(wrong.len(), 3, "{wrong:#?}");
    for said in ["there is no class \"paths\": move it to one of", "b.txt: a case is one file: call it NAME.case"] {
        assert!(wrong.iter().any(|why| why.contains(said)), "{said}: {wrong:#?}");
    }
}
