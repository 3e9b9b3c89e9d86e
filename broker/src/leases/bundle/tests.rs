//! Documents, taken apart.

use super::*;
use crate::config::{Config, Credential, Overrides};
use attache_core::policy::Carrier;

const TOKEN: &str = "s3cret-token-0123456789";
const ACCOUNT: &str = "s3cret-account-0123";

fn credential(bundle: &str) -> Credential {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("attache.yaml");
    let yaml = format!(
        "state_dir: s\ncredentials:\n  it:\n    source: {{file: it}}\n    inject: bearer\n    bundle: {bundle}\n    destinations: \
         [{{host: a.test}}, {{host: b.test, port: 8443}}, {{host: quiet.test, mask: false}}]\n"
    );
    std::fs::write(&file, yaml).unwrap();
    Config::load(Some(&file), &Overrides::default(), &|_| None).unwrap().credentials.remove(0)
}

fn all() -> Credential {
    credential(
        "{secret: tokens.access, headers: {X-Account: tokens.account, x-plan: plan}, expires: until, fields: {plan: plan}, \
         destinations: hosts}",
    )
}

fn document(until: &str, hosts: &str) -> String {
    format!(
        r#"{{"tokens":{{"access":"{TOKEN}","account":"{ACCOUNT}","refresh":"{TOKEN}-r"}},"plan":7,"until":{until},"hosts":{hosts},
           "unknown":[null]}}"#
    )
}

fn unpacked(credential: &Credential, text: &str) -> Result<Unpacked, BundleError> {
    unpack(credential.bundle.as_ref().unwrap(), &Secret::new(text), &credential.destinations, Now::read())
}

fn error(credential: &Credential, text: &str) -> BundleError {
    let error = unpacked(credential, text).err().unwrap();
    assert!(!format!("{error} {error:?} {}", error.fix()).contains("s3cret"), "{error:?}");
    error
}

#[test]
fn each_field_goes_where_the_config_says() {
    let (credential, now) = (all(), Now::read());
    let until = now.wall_ms / 1000 + 3600;
    let one =
        unpacked(&credential, &document(&until.to_string(), r#"["A.test","b.test:8443","other.test"]"#)).ok().unwrap();
    assert_eq!(one.secret.expose(), TOKEN);
    let headers = one.headers().ok().unwrap();
    let told: Vec<_> = headers.iter().map(|header| (header.carrier.clone(), header.value.expose())).collect();
    let header = |name: &str| Carrier::Header(name.into());
    assert_eq!(told, [(header("x-account"), ACCOUNT), (header("x-plan"), "7")]);
    let masked = one.masked().ok().unwrap();
    assert_eq!(masked.iter().map(Secret::expose).collect::<Vec<_>>(), [ACCOUNT], "what is public is not searched for");
    assert_eq!(one.public, BTreeMap::from([("plan".to_owned(), "7".to_owned())]));
    let left = now.until(one.ends.unwrap()).as_secs();
    assert!((3590..=3600).contains(&left), "{left}");
    let reached: Vec<_> = credential.destinations.iter().map(|to| one.reaches(to)).collect();
    assert_eq!(reached, [true, true, false]);
}

#[test]
fn a_time_is_written_in_one_of_three_ways() {
    let credential = all();
    let ahead = Now::read().wall_ms + 3_600_000;
    let at =
        |until: &str| unpacked(&credential, &document(until, r#"["a.test"]"#)).map(|one| one.ends.unwrap().wall_ms);
    for until in [
        format!("{ahead}"),
        format!("\"{ahead}\""),
        format!("{}.5", ahead / 1000),
        format!("\"{}\"", crate::clock::rfc3339(ahead)),
    ] {
        let found = at(&until).ok().unwrap();
        assert!(found.abs_diff(ahead) < 1_500, "{until}: {found}, not {ahead}");
    }
    for until in ["1", "1700000000", "1700000000000", "\"2024-01-01T00:00:00Z\""] {
        assert!(matches!(at(until), Err(BundleError::Over(_))), "{until}");
    }
    for until in ["\"soon\"", "-5", "0", "1e300", "[]", "true", "\"\""] {
        assert!(matches!(at(until), Err(BundleError::NotATime(_))), "{until}");
    }
}

#[test]
fn what_is_wrong_names_the_field_and_never_its_content() {
    let credential = all();
    let until = (Now::read().wall_ms + 3_600_000).to_string();
    let good = document(&until, r#"["a.test"]"#);
    assert!(unpacked(&credential, &good).is_ok());
    let with = |from: &str, to: &str| error(&credential, &good.replace(from, to)).to_string();
    assert!(with(&format!("\"{TOKEN}\""), "5").contains("field tokens.access is no text"));
    assert!(with("\"access\"", "\"access2\"").contains("field tokens.access is not there"));
    assert!(with(&format!("\"{ACCOUNT}\""), "null").contains("field tokens.account is not there"));
    assert!(with(&format!("\"{ACCOUNT}\""), "{\"a\":1}").contains("field tokens.account is no text"));
    assert!(with("\"plan\":7", "\"plan\":\"s3cret\\nx\"").contains("public field plan is no text of one line"));
    assert!(with("\"plan\":7", &format!("\"plan\":\"{}\"", "p".repeat(1025))).contains("at most 1 KiB"));
    assert!(with("\"plan\":7", &format!("\"plan\":\"x{TOKEN}\"")).contains("public field plan holds what is injected"));
    assert!(
        with("\"plan\":7", &format!("\"plan\":\"{ACCOUNT}\"")).contains("public field plan holds what is injected")
    );
    assert!(with("[\"a.test\"]", "[\"https://a.test\"]").contains("field hosts is no list of hosts"));
    assert!(with("[\"a.test\"]", "\"a.test\"").contains("field hosts is no list of hosts"));
    assert!(with("[\"a.test\"]", "[]").contains("names none of the credential's destinations"));
    assert!(with("[\"a.test\"]", "[\"a.test:444\",\"other.test\"]").contains("names none"));
    assert!(with("\"plan\":7", "\"plan\":7,\"plan\":7").contains("no JSON"));
    for text in [TOKEN, "", "{", "\u{feff}{}"] {
        assert!(matches!(error(&credential, text), BundleError::NotJson(_)), "{text}");
    }
    assert_eq!(error(&credential, "[]"), BundleError::NotAnObject);
    assert_eq!(error(&credential, &format!("{{\"a\":\"{}\"}}", "s3cret".repeat(11_000))), BundleError::TooLong);
}

#[test]
fn a_header_holds_one_line_and_is_masked_unless_it_is_public() {
    let hidden = credential("{secret: t, headers: {x-account: a}}");
    let public = credential("{secret: t, headers: {x-account: a}, fields: {account: a}}");
    let text = |account: &str| format!(r#"{{"t":"{TOKEN}","a":"{account}"}}"#);
    let why = |one: Result<Unpacked, BundleError>| one.ok().unwrap().headers().err().map(|why| why.to_string());
    for account in ["a\\r\\nx-admin: 1", "a\\u0000", " a", "\\u00e9", "", "ghp_ATTACHEz438zSqfC5v1GCjipcn64xlMQ9JHv"] {
        let said = why(unpacked(&hidden, &text(account))).unwrap_or_else(|| panic!("{account}"));
        assert!(said.starts_with("its field a cannot be injected: ") && !said.contains("x-admin"), "{said}");
    }
    assert_eq!(why(unpacked(&hidden, &text("short"))), None);
    let masked =
        |credential: &Credential| unpacked(credential, &text("short")).ok().unwrap().masked().map(|all| all.len());
    assert!(matches!(masked(&hidden), Err(BundleError::NotMaskable(field)) if field.to_string() == "a"));
    assert_eq!(masked(&public).ok(), Some(0));
}

#[test]
fn a_number_is_injected_as_it_is_written_or_not_at_all() {
    let credential = credential("{secret: t, headers: {x-account: a}, fields: {account: a}}");
    let with = |number: &str| unpacked(&credential, &format!(r#"{{"t":"{TOKEN}","a":{number}}}"#));
    for number in ["0", "7", "-7", "9007199254740993", "18446744073709551615", "-9223372036854775808"] {
        let one = with(number).ok().unwrap();
        assert_eq!((one.headers().ok().unwrap()[0].value.expose(), one.public["account"].as_str()), (number, number));
    }
    for number in ["18446744073709551616", "12345678901234567890123", "-9223372036854775809", "1.10", "1.0", "1e3"] {
        assert!(matches!(with(number), Err(BundleError::NotText(_))), "{number}");
    }
}
