//! WebSocket: where a binding says so, for sessions that may write. Nothing else is spoken after HTTP.

use crate::fixture::{PLACEHOLDER, SECRET, accepted, bind, destination, granted, header, request, spec, test};
use crate::policy::{AccessMode, BindingSpec, MissingPlaceholder, Policy, Unmatched};
use crate::refusal::Reason;
use crate::request::Way;

/// The standard policy; its first destination takes WebSocket, or not.
fn policy(websocket: bool) -> Policy {
    let mut spec = spec();
    spec.destinations[destination::API].bindings = vec![BindingSpec { websocket, ..bind("github", "authorization") }];
    Policy::compile(spec).unwrap()
}

fn asks(policy: &Policy, access_mode: AccessMode, method: &str, lines: &[(&str, &str)]) -> Result<(), Reason> {
    let mut answer = granted("github", header("authorization", SECRET));
    answer.access_mode = access_mode;
    let grant = accepted(policy, destination::API, answer);
    let asked = request(method, "api.github.com", "/live").bearer(PLACEHOLDER);
    let asked = lines.iter().fold(asked, |asked, (name, value)| asked.with(name, value));
    asked.upstream(policy, &grant).map(drop)
}

#[test]
fn a_binding_permits_it_to_sessions_that_may_write() {
    use AccessMode::{ReadOnly, ReadWrite};
    let websocket = [("connection", "Upgrade"), ("upgrade", "WebSocket")];
    for (permitted, mode, verdict) in [
        (true, ReadWrite, Ok(())),
        (true, ReadOnly, Err(Reason::ReadOnly)),
        // It asks again without, and is judged then.
        (false, ReadWrite, Err(Reason::UpgradeRefused)),
        (false, ReadOnly, Err(Reason::UpgradeRefused)),
    ] {
        assert_eq!(asks(&policy(permitted), mode, "GET", &websocket), verdict, "{permitted} {mode:?}");
    }
}

#[test]
fn nothing_else_is_spoken() {
    for (method, lines) in [
        ("GET", &[("upgrade", "h2c")][..]),
        ("GET", &[("upgrade", "websocket, h2c")]),
        ("GET", &[("upgrade", "websocket"), ("upgrade", "h2c")]),
        ("GET", &[("upgrade", "websocket"), ("upgrade", "websocket")]),
        ("GET", &[("upgrade", "")]),
        ("GET", &[(":protocol", "websocket")]),
        ("POST", &[("upgrade", "websocket")]),
        ("HEAD", &[("upgrade", "websocket")]),
    ] {
        let verdict = asks(&policy(true), AccessMode::ReadWrite, method, lines);
        assert_eq!(verdict, Err(Reason::UpgradeRefused), "{method} {lines:?}");
    }
}

#[test]
fn what_passes_without_a_credential_needs_the_permission_of_all() {
    let open = |both: [bool; 2]| {
        let passing = |credential: &str, websocket| BindingSpec {
            websocket,
            missing_placeholder: MissingPlaceholder::Pass,
            ..bind(credential, "authorization")
        };
        let mut spec = spec();
        spec.destinations[destination::OPEN].bindings = vec![passing("open", both[0]), passing("other", both[1])];
        let asked = request("GET", "open.example", "/live").with("upgrade", "websocket");
        asked.identify(&Policy::compile(spec).unwrap()).map(|asked| asked.way)
    };
    assert_eq!(open([true, true]), Ok(Way::Unclaimed(destination::OPEN)));
    assert_eq!(open([true, false]), Err(Reason::UpgradeRefused));
    let elsewhere = request("GET", "unknown.example", "/live").with("upgrade", "websocket");
    let way = elsewhere.identify(&crate::fixture::compiled(Unmatched::Pass)).map(|asked| asked.way);
    assert_eq!(way, Ok(Way::Unmatched), "nobody's business");
}
