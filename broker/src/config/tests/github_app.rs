//! An App, its tokens, and what sessions have of them.

use super::load;
use crate::config::Lookup;
use std::time::Duration;

const APP: &str = "sources: {github_app: {client_id: Iv1.x, installation_id: 7, private_key: {file: app.pem}}}\n";

#[test]
fn a_github_app_gives_each_session_a_token_that_is_within_its_credentials() {
    let text = format!(
        "{APP}credentials:\n  github: {{preset: github, source: {{github_app: {{repositories: [one, two], permissions: \
         {{contents: write}}}}}}}}\nsessions:\n  - {{name: a, credentials: [github]}}\n  - {{name: b, credentials: [github], \
         scopes: {{github: {{repositories: [one], permissions: {{contents: read}}}}}}}}\n"
    );
    let config = load(&text).unwrap();
    let [Lookup::GitHubApp(token)] = &config.credentials[0].lookup[..] else { panic!("{config:?}") };
    let app = &token.app;
    assert_eq!((&*app.issuer, app.installation, &*app.api), ("Iv1.x", 7, "https://api.github.com"));
    assert_eq!((app.refresh, &app.ca_file), (Duration::from_secs(2400), &None));
    assert!(app.key.file().unwrap().ends_with("default/secrets/app.pem"));
    assert!(config.out_of_reach().directories.iter().any(|dir| app.key.file().unwrap().starts_with(dir)));
    assert_eq!(token.scope.to_string(), "one, two (contents: write)");
    assert_eq!(config.sessions[0].scopes.len(), 0);
    let scope = config.sessions[1].scopes.values().next().unwrap();
    assert_eq!(token.scope.narrowed(scope).unwrap().to_string(), "one (contents: read)");
    let by_number = APP.replace("client_id: Iv1.x", "app_id: 12").replace("{file: app.pem}", "{env: APP_KEY}");
    let config = load(&text.replace(APP, &by_number)).unwrap();
    let app = config.sources.github_app.clone().unwrap();
    assert_eq!((&*app.issuer, app.key.variable()), ("12", Some("APP_KEY")));
    assert!(config.out_of_reach().variables.contains(&"APP_KEY".to_owned()));
}

#[test]
fn what_is_wrong_with_an_app_or_a_scope_is_told_where_it_stands_all_at_once() {
    let credential = "credentials:\n  it: {source: SOURCE, inject: bearer, destinations: [{host: h}]}\n  plain: {source: \
                      {env: X}, inject: bearer, destinations: [{host: i}]}\n";
    let source = "{github_app: {repositories: [one], permissions: {contents: write}}}";
    let with =
        |sources: &str, source: &str, rest: &str| format!("{sources}{}{rest}", credential.replace("SOURCE", source));
    for (text, told) in [
        (with("", source, ""), vec![("credentials.it.source.github_app", "which GitHub App?")]),
        (
            with("sources: {github_app: {api: 'https://h/api/v3'}}\n", source, ""),
            vec![
                ("sources.github_app", "add `client_id: CLIENT_ID`"),
                ("sources.github_app", "add `installation_id: NUMBER`"),
                ("sources.github_app", "add `private_key: {file: github_app.pem}`"),
            ],
        ),
        (
            with(&APP.replace("client_id", "app_id: 1, client_id"), source, ""),
            vec![("sources.github_app", "or by `app_id`")],
        ),
        (
            with(&APP.replace("7,", "7, refresh: 1s,"), source, ""),
            vec![("sources.github_app.refresh", "from 10s to 1h")],
        ),
        (with(&APP.replace("7,", "7, api: 'http://h',"), source, ""), vec![("sources.github_app.api", "loopback")]),
        (with(APP, "{env: Y, github_app: {}}", ""), vec![("credentials.it.source.github_app", "stands alone")]),
        (with(APP, "{github_app: {repositories: []}}", ""), vec![("credentials.it.source.github_app", "empty list")]),
        (
            with(
                APP,
                source,
                "sessions:\n  - {name: a, credentials: [it, plain], scopes: {it: {permissions: {contents: admin}}, plain: {}}}\n  - {name: b, scopes: {it: {}}}\n",
            ),
            vec![
                ("sessions[0].scopes.it", "contents: admin is more than the credential has (write)"),
                ("sessions[0].scopes.plain", "scopes go with"),
                ("sessions[1].scopes.it", "may not use this credential"),
            ],
        ),
        (
            with(
                APP,
                source,
                "sessions: [{name: a, credentials: [it], scopes: {it: {permissions: {contents: all}}}}]\n",
            ),
            vec![("sessions[0].scopes.it.permissions.contents", "`write` or `admin`")],
        ),
    ] {
        let errors = load(&text).unwrap_err().0;
        let found: Vec<_> = errors.iter().map(|error| (error.path.as_str(), error.problem.to_string())).collect();
        assert_eq!(found.len(), told.len(), "{text}\n{found:?}");
        for ((path, words), (found_path, said)) in told.iter().zip(&found) {
            assert!(path == found_path && said.contains(words), "{text}\n{path}: {words}\n{found_path}: {said}");
        }
    }
}
