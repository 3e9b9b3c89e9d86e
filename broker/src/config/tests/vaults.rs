//! Infisical, and 1Password behind a Connect server: what is written, what comes of it, and where mistakes are told.

use super::{load, places};
use crate::config::handed::SecretAt;
use crate::config::{Config, Lookup};
use std::path::Path;
use std::time::Duration;

fn text(sources: &str, source: &str) -> String {
    format!(
        "sources:\n  {sources}\ncredentials:\n  it: {{source: {{{source}}}, inject: bearer, destinations: [{{host: h}}]}}\n"
    )
}

/// Each is told once, where it is.
fn each_is_told(cases: &[(&str, &str, &str)]) {
    for (sources, source, at) in cases {
        let found = places(&text(sources, source));
        let paths: Vec<_> = found.iter().filter_map(|place| place.split(' ').nth(1)).collect();
        assert_eq!(paths, [*at], "{sources}; {source}");
    }
}

const AUTH: &str = "auth: {universal: {client_id: c, client_secret: {file: infisical}}}";

#[test]
fn a_secret_of_infisical_is_where_it_says_itself_or_where_all_are() {
    let of = |config: &Config| {
        let [Lookup::Infisical(found)] = &config.credentials[0].lookup[..] else { panic!("{config:?}") };
        found.clone()
    };
    let shared = format!("infisical: {{project: p, environment: prod, path: /apps/, refresh: 5s, {AUTH}}}");
    let config = load(&text(&shared, "infisical: {name: TOKEN}")).unwrap();
    let found = of(&config);
    assert_eq!(found.place(), "infisical prod:/apps/TOKEN");
    assert_eq!((found.project.as_str(), found.server.address.as_str()), ("p", "https://app.infisical.com"));
    assert_eq!((found.server.client_id.as_str(), found.server.refresh), ("c", Duration::from_secs(5)));
    let file = SecretAt::Private("/home/op/.attache/default/secrets/infisical".into());
    assert_eq!(config.credentials[0].lookup[0].own_secret(), Some(&file));
    assert_eq!(config.own_secrets().collect::<Vec<_>>(), [&file]);
    let own = "infisical: {name: TOKEN, project: q, environment: dev, path: /, version: 3}";
    let found = of(&load(&text(&shared, own)).unwrap());
    assert_eq!((found.place().as_str(), found.project.as_str()), ("infisical dev:/TOKEN (version 3)", "q"));
    let elsewhere = format!("infisical: {{address: 'https://eu.infisical.com/', ca_file: ca.pem, {AUTH}}}");
    let found = of(&load(&text(&elsewhere, own)).unwrap());
    assert_eq!(
        (found.server.address.as_str(), found.server.refresh),
        ("https://eu.infisical.com", Duration::from_secs(60))
    );
    assert!(found.server.ca_file.as_ref().is_some_and(|file| file.is_absolute() && file.ends_with("ca.pem")));
}

#[test]
fn what_is_wrong_with_infisical_is_told_at_its_place() {
    let secret = "infisical: {name: TOKEN}";
    let with = |more: &str| format!("infisical: {{project: p, environment: e, {AUTH}{more}}}");
    let both = places(&text(&format!("infisical: {{{AUTH}}}"), secret));
    assert_eq!(both.len(), 2, "project and environment: {both:?}");
    each_is_told(&[
        ("file: {}", secret, "credentials.it.source.infisical"),
        ("infisical: {project: p, environment: e}", secret, "sources.infisical"),
        (&format!("infisical: {{project: p, {AUTH}}}"), secret, "credentials.it.source.infisical"),
        (&with(", address: 'http://infisical.lan'"), secret, "sources.infisical.address"),
        (&with(", refresh: 0s"), secret, "sources.infisical.refresh"),
        (&with(", path: apps"), secret, "sources.infisical.path"),
        (&with(", token: t"), secret, "sources.infisical.token"),
        (&with(""), "infisical: {name: a/b}", "credentials.it.source.infisical.name"),
        (&with(""), "infisical: {name: T, version: 0}", "credentials.it.source.infisical.version"),
        (&with(""), "infisical: {path: /}", "credentials.it.source.infisical"),
    ]);
    let said = load(&text(&with("").replace("{file: infisical}", "st.the-secret"), secret)).unwrap_err().to_string();
    assert!(said.contains("sources.infisical.auth") && !said.contains("st.the-secret"), "{said}");
}

#[test]
fn a_connect_server_is_asked_in_place_of_op() {
    let connect = "onepassword: {connect: {address: 'https://c.lan/', token: {env: T}, ca_file: ca.pem}}";
    let reference = "onepassword: 'op://Private/GitHub/token'";
    let config = load(&text(connect, reference)).unwrap();
    let [Lookup::OnePassword(item)] = &config.credentials[0].lookup[..] else { panic!("{config:?}") };
    let server = item.connect.as_ref().unwrap();
    assert_eq!((server.address.as_str(), item.refresh), ("https://c.lan", Duration::from_secs(60)));
    assert_eq!(server.token, SecretAt::Env("T".into()));
    assert!(server.ca_file.as_deref().is_some_and(Path::is_absolute));
    assert!(config.out_of_reach().variables.contains(&"T".to_owned()));
    // One attribute of a field only `op` reads.
    let totp = "onepassword: 'op://Private/GitHub/one-time password?attribute=otp'";
    assert!(load(&text("onepassword: {enabled: true}", totp)).is_ok());
    each_is_told(&[
        (connect, totp, "credentials.it.source.onepassword"),
        (&connect.replace("{connect", "{enabled: false, connect"), reference, "credentials.it.source.onepassword"),
        (&connect.replace("{connect", "{refresh: 500ms, connect"), reference, "sources.onepassword.refresh"),
        ("onepassword: {enabled: true, refresh: 1s}", reference, "sources.onepassword.refresh"),
        (&connect.replace("https", "http"), reference, "sources.onepassword.connect.address"),
        (&connect.replace("{env: T}", "eyJ.token"), reference, "sources.onepassword.connect.token"),
    ]);
}
