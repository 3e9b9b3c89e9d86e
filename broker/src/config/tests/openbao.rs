//! OpenBao, as a config writes it.

use super::super::*;
use super::{load, places};

#[test]
fn openbao_is_one_for_all_its_secrets_and_each_mistake_has_its_place() {
    use crate::config::handed::SecretAt;
    use crate::config::openbao::{Auth, SecretId};
    let text = |openbao: &str, source: &str| {
        format!(
            "sources:\n  openbao: {{{openbao}}}\ncredentials:\n  it: {{source: {{{source}}}, inject: bearer, \
             destinations: [{{host: h}}]}}\n"
        )
    };
    let secret = "openbao: {path: secret/data/app, field: token, version: 3}";
    let server = "address: 'https://bao.lan:8200/', namespace: team-a, ca_file: ca.pem, auth: {token: {file: bao}}";
    let config = load(&text(server, secret)).unwrap();
    let [Lookup::OpenBao(found)] = &config.credentials[0].lookup[..] else { panic!("{config:?}") };
    assert_eq!(found.place(), "openbao secret/data/app#token (version 3)");
    assert_eq!(
        (found.server.address.as_str(), found.server.refresh),
        ("https://bao.lan:8200", Duration::from_secs(60))
    );
    let file = "/home/op/.attache/default/secrets/bao".into();
    assert_eq!(found.server.auth, Auth::Token(SecretAt::Private(file)));

    let wrapped = "address: 'http://127.0.0.1:8200', auth: {approle: {role_id: r, wrapped_secret_id: stdin, \
                   creation_path: auth/approle/role/attache/secret-id}}";
    let config = load(&text(wrapped, secret)).unwrap();
    let server_of = |config: &Config| config.sources.openbao.clone().unwrap();
    let Auth::AppRole { secret_id: SecretId::Wrapped { token, .. }, mount, .. } = &server_of(&config).auth else {
        panic!("{config:?}")
    };
    assert_eq!((token, mount.as_str()), (&SecretAt::Stdin, "approle"));
    let kubernetes = "address: 'https://b', auth: {kubernetes: {role: attache}}";
    let Auth::Jwt { jwt, mount, .. } = server_of(&load(&text(kubernetes, secret)).unwrap()).auth.clone() else {
        panic!()
    };
    assert_eq!(mount, "kubernetes");
    assert!(matches!(jwt, SecretAt::Shared(path) if path.ends_with("serviceaccount/token")));

    let reference = "ref: 'runtime-providers/cliproxy:CODEX_OAUTH_BUNDLE'";
    let templates = "templates: {runtime-providers: '{base}/runtime-providers/{provider}/{environment}/secrets'}";
    for (references, path) in [
        (format!("base: fractalops/default, {templates}"), "fractalops/default/runtime-providers/cliproxy/secrets"),
        (
            format!("mount: kv, base: b, environment: prod, {templates}"),
            "kv/data/b/runtime-providers/cliproxy/prod/secrets",
        ),
    ] {
        let config = load(&text(&format!("{server}, references: {{{references}}}"), reference)).unwrap();
        assert_eq!(config.credentials[0].lookup[0].place(), format!("openbao {path}#CODEX_OAUTH_BUNDLE"));
    }

    let role = |more: &str| format!("address: 'https://b', auth: {{approle: {{role_id: r{more}}}}}");
    for (openbao, source, place) in [
        ("", secret, "4:16 credentials.it.source.openbao"),
        ("address: 'https://b'", secret, "2:12 sources.openbao"),
        ("address: 'http://bao.lan', auth: {token: {env: T}}", secret, "2:22 sources.openbao.address"),
        ("address: 'https://b', auth: {token: hvs.secret}", secret, "2:42 sources.openbao.auth"),
        ("address: 'https://b', auth: {token: {env: T}}, adress: x", secret, "2:58 sources.openbao.adress"),
        (&role(""), secret, "2:48 sources.openbao.auth.approle"),
        (&role(", wrapped_secret_id: stdin"), secret, "2:48 sources.openbao.auth.approle"),
        (&role(", secret_id: {env: S}, wrapped_secret_id: stdin"), secret, "2:48 sources.openbao.auth.approle"),
        (server, "openbao: {path: /v1/secret, field: f}", "4:32 credentials.it.source.openbao.path"),
        (server, "openbao: {path: secret/a, field: f}, ref: 'a/b:C'", "4:8 credentials.it.source"),
        (server, "ref: 'nothing'", "4:22 credentials.it.source.ref"),
        (server, "ref: 'a/../b:C'", "4:22 credentials.it.source.ref"),
        (server, reference, "4:22 credentials.it.source.ref"),
    ] {
        let found = places(&text(openbao, source));
        let path = |text: &str| text.split(' ').nth(1).unwrap_or_default().to_owned();
        assert!(found.iter().any(|found| path(found).starts_with(&path(place))), "{openbao}; {source}: {found:?}");
        assert_eq!(found.len(), 1, "{openbao}; {source}: {found:?}");
    }
}
