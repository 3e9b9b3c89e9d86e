//! How secrets are replaced.

use super::*;
use crate::config::handed::SecretAt;

#[test]
fn what_is_rotated_is_kept_in_one_file_by_one_rotator_and_written_over_by_nobody() {
    let one = |source: &str, rotation: &str| {
        load(&format!(
            "credentials:\n  it: {{source: {source}, inject: bearer, destinations: [{{host: a.test}}], rotation: \
             {{{rotation}}}}}\n"
        ))
    };
    let command = "command: [/usr/bin/rotate, now]";
    let config = one("{file: it}", &format!("{command}, every: 30d, env: [ADMIN, HOME]")).unwrap();
    let rotation = config.credentials[0].rotation.clone().unwrap();
    assert_eq!(rotation.file, Path::new("/home/op/.attache/default/secrets/it"));
    assert_eq!((rotation.every, rotation.overlap), (Some(Duration::from_secs(30 * 86_400)), Duration::from_secs(3600)));
    assert_eq!(rotation.environment().collect::<Vec<_>>(), ["PATH", "HOME", "ADMIN"]);
    let error = |source: &str, rotation: &str| one(source, rotation).unwrap_err().to_string();
    assert!(
        error("{env: IT, file: it}", command).contains("it.rotation: a secret that is rotated here is kept in a file")
    );
    assert!(error("{env: IT}", command).contains("`source: {file: NAME}`, and no other"));
    for (rotation, at) in [
        ("every: 30d", "it.rotation: who makes the new secret?"),
        ("command: [/x], hook: {url: 'https://r.test'}", "it.rotation: who makes the new secret?"),
        ("command: [rotate]", "it.rotation.command: expected a list that begins with an absolute path"),
        ("command: []", "it.rotation.command: expected a list"),
        ("hook: {url: 'http://r.test'}", "it.rotation.hook.url: expected https://"),
        ("hook: {url: 'https://r.test'}, env: [A]", "it.rotation.env: a hook has no environment"),
        ("command: [/x], every: 1s", "it.rotation.every: expected a length of time from 1m"),
        ("command: [/x], every: 1h, overlap: 1h", "it.rotation.overlap: expected less than `every`"),
        ("command: [/x], timeout: 1h", "it.rotation.timeout: expected a length of time from 1s to 15m"),
        ("command: [/x], shell: true", "it.rotation.shell: "),
    ] {
        let told = error("{file: it}", rotation);
        assert!(told.contains(at), "{rotation}: {told}");
    }
    let two = |file: &str, rotation: &str| {
        let text = format!(
            "credentials:\n  a: {{source: {{file: it}}, inject: bearer, destinations: [{{host: a.test}}], rotation: \
             {{{command}}}}}\n  b: {{source: {{file: {file}}}, inject: bearer, destinations: [{{host: b.test}}]{rotation}}}\n"
        );
        load(&text).map_err(|errors| errors.to_string())
    };
    assert!(two("it", "").is_ok(), "both get the new one");
    assert!(
        two("it", ", rotation: {command: [/x]}").unwrap_err().contains("b.rotation: credential `a` rotates the same")
    );
    assert!(
        two("it.retiring", "")
            .unwrap_err()
            .contains("a.rotation: credential `b` reads a file that this rotation writes")
    );
}

#[test]
fn what_a_hook_knows_the_broker_by_is_among_what_makes_it_somebody_once_and_so_is_what_opens_the_seal() {
    let text = "state: {seal: {transit: {key: k}}}\nsources:\n  openbao: {address: 'https://b', auth: {token: {env: \
                BAO}}}\n  infisical: {project: p, environment: e, auth: {universal: {client_id: c, client_secret: {env: \
                INFISICAL}}}}\ncredentials:\n  it: {source: {file: it}, inject: bearer, destinations: [{host: a.test}], \
                rotation: {hook: {url: 'https://r.test', token: {file: deep/rotator}}}}\n";
    let config = load(text).unwrap();
    let places = |all: Vec<&SecretAt>| all.into_iter().map(SecretAt::place).collect::<std::collections::BTreeSet<_>>();
    let rotator = "file /home/op/.attache/default/secrets/deep/rotator";
    let expected = ["env BAO", "env INFISICAL", rotator].map(str::to_owned);
    assert_eq!(places(config.own_secrets().collect()), expected.into());
    // No credential is looked for in Infisical.
    assert_eq!(places(config.own_secrets_in_use().collect()), ["env BAO", rotator].map(str::to_owned).into());
    let kept = config.out_of_reach();
    assert!(["BAO", "INFISICAL"].iter().all(|name| kept.variables.contains(&(*name).to_owned())), "{kept:?}");
    assert!(kept.directories.iter().any(|dir| Path::new("/home/op/.attache/default/secrets/deep").starts_with(dir)));
}
