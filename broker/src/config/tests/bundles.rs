//! Bundles and volumes, as a config writes them.

use super::{load, places};
use crate::config::{AgentValue, Lookup};
use std::path::Path;

fn written(bundle: &str, rest: &str) -> String {
    format!(
        "credentials:\n  it:\n    source: {{file: it}}\n    inject: {{header: X-Key}}\n    bundle: {bundle}\n    destinations: \
         [{{host: h.test}}]\n{rest}"
    )
}

#[test]
fn a_bundle_takes_its_headers_out_of_what_agents_send_and_hands_out_public_fields() {
    let text = written(
        "{secret: a.b, headers: {X-Account: c}, fields: {prefix: d}}",
        "    strip: {query: [key]}\n    agent_env: {KEY: placeholder, PREFIX: {field: prefix}}\n",
    );
    let config = load(&text).unwrap();
    let it = &config.credentials[0];
    let bundle = it.bundle.as_ref().unwrap();
    assert_eq!((bundle.headers[0].name.as_str(), bundle.headers[0].is_public), ("x-account", false));
    assert_eq!(bundle.secret.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(it.agent_env[1].value, AgentValue::Field("prefix".into()));
    let strip = &config.policy().destinations[0].strip;
    assert_eq!((&strip.headers[..], &strip.query[..]), (&["x-account".to_owned()][..], &["key".to_owned()][..]));
}

#[test]
fn what_a_bundle_cannot_do_is_told_at_its_place() {
    let at = |bundle: &str, rest: &str| {
        let places = places(&written(bundle, rest));
        places.iter().map(|place| place.split_once(' ').unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    let headers = |name: &str| at(&format!("{{secret: a, headers: {{{name}: b}}}}"), "");
    for name in
        ["Host", "Transfer-Encoding", "Content-Type", "x-attache-session", "x-forwarded-for", "range", "a(b", "x.y"]
    {
        assert_eq!(headers(name), [format!("credentials.it.bundle.headers.{name}")], "{name}");
    }
    assert_eq!(headers("x-key"), ["credentials.it.bundle.headers"], "it is injected there");
    let with = "    with: [{header: X-B, value: v}]\n";
    assert_eq!(at("{secret: a, headers: {x-b: b}}", with), ["credentials.it.bundle.headers.x-b"]);
    assert_eq!(at("{secret: a, headers: {X-B: b, x-b: c}}", ""), ["credentials.it.bundle.headers.x-b"]);
    let oidc = "oidc: [{name: i, issuer: 'https://i.test', audience: a, jwks: k, algorithms: [ES256], header: x-b, rules: \
                [{claims: {sub: s}, session: s}]}]\nsessions: [{name: s, credentials: [it]}]\n";
    assert_eq!(at("{secret: a, headers: {X-B: b}}", oidc), ["credentials.it.bundle.headers.X-B"]);
    assert_eq!(at("{secret: a, fields: {x: a}}", ""), ["credentials.it.bundle.fields.x"]);
    assert_eq!(at("{secret: a, bogus: b}", ""), ["credentials.it.bundle.bogus"]);
    assert_eq!(at("{headers: {}}", ""), ["credentials.it.bundle"]);
    for path in ["''", "a..b", ".a", "'a b'", "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a"] {
        assert_eq!(at(&format!("{{secret: {path}}}"), ""), ["credentials.it.bundle.secret"], "{path}");
    }
    let other = "  other: {source: {file: o}, inject: bearer, with: [{header: X-B, value: v}], destinations: [{host: h.test}]}\n";
    let said = load(&written("{secret: a, headers: {x-b: b}}", other)).unwrap_err().to_string();
    assert!(said.contains("`with`: this header carries credentials"), "another credential's, at the same host: {said}");
    assert_eq!(at("{secret: a}", "    rotation: {command: [/bin/rotate]}\n"), ["credentials.it.rotation"]);
    let env = "    agent_env: {PREFIX: {field: none}}\n";
    assert_eq!(at("{secret: a}", env), ["credentials.it.agent_env.PREFIX"]);
    assert_eq!(places(&written("{secret: a}", env).replace("    bundle: {secret: a}\n", "")).len(), 1);
}

#[test]
fn an_artifact_reference_may_name_a_whole_document() {
    let text = "
sources:
  openbao:
    address: https://bao.test:8200
    auth: {token: {env: BAO}}
    references: {mount: secret, base: base, templates: {runtime-providers: '{base}/runtime-providers/{provider}/secrets'}}
credentials:
  codex-cli-runtime:
    preset: codex
    source: {ref: 'runtime-providers/cliproxy:CODEX_OAUTH_BUNDLE'}
    bundle: {secret: tokens.access_token, headers: {ChatGPT-Account-ID: tokens.account_id}}
  plain: {source: {ref: 'runtime-providers/cliproxy:KEY'}, inject: bearer, destinations: [{host: h.test}]}
";
    let config = load(text).unwrap();
    let document = |index: usize| match &config.credentials[index].lookup[..] {
        [Lookup::OpenBao(secret)] => secret.document,
        other => panic!("{other:?}"),
    };
    assert!(document(0) && !document(1), "who has no bundle takes a text alone");
}

#[test]
fn volumes_and_clusters_are_resolved_and_kept_from_agents() {
    let text = "
sources: {kubernetes: {namespace: agents, kubeconfig: kube/config, context: prod, refresh: 30s}}
credentials:
  a: {source: {mounted: {volume: /var/run/secrets/attache/a, file: sub/token}}, inject: bearer, destinations: [{host: a.test}]}
  b: {source: {kubernetes: {secret: github, key: token}}, inject: bearer, destinations: [{host: b.test}]}
  c: {source: {kubernetes: {secret: github, key: token, namespace: other}}, inject: bearer, destinations: [{host: c.test}]}
";
    let config = load(text).unwrap();
    let place = |index: usize| config.credentials[index].lookup[0].place();
    assert_eq!(place(0), "mounted /var/run/secrets/attache/a/sub/token");
    assert_eq!(
        (place(1).as_str(), place(2).as_str()),
        ("kubernetes agents/github#token", "kubernetes other/github#token")
    );
    let cluster = config.sources.kubernetes.as_ref().unwrap();
    let (kubeconfig, context) = cluster.kubeconfig.as_ref().unwrap();
    assert!(kubeconfig.is_absolute() && kubeconfig.ends_with("kube/config") && context.as_deref() == Some("prod"));
    let hidden = config.out_of_reach().directories;
    assert!(hidden.iter().any(|dir| dir == Path::new("/var/run/secrets/attache/a")), "{hidden:?}");
    assert!(hidden.iter().any(|dir| dir.ends_with("kube")), "{hidden:?}");
    // In a pod it is the service account, where one is used.
    let in_pod = load(&text.replace(text.lines().nth(1).unwrap(), "")).unwrap();
    let account = Path::new("/var/run/secrets/kubernetes.io/serviceaccount");
    assert!(in_pod.out_of_reach().directories.iter().any(|dir| dir == account));
    assert!(load("").unwrap().sources.kubernetes.is_none());
    assert_eq!(places("sources: {kubernetes: {context: c}}\n"), ["1:33 sources.kubernetes.context"]);
    let empty =
        "credentials: {a: {source: {mounted: {volume: '', file: t}}, inject: bearer, destinations: [{host: a}]}}\n";
    assert!(places(empty)[0].ends_with("credentials.a.source.mounted.volume"), "{:?}", places(empty));
}
