//! What is minted: a leaf for one name, for a day, that the exported authority vouches for.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use attache_tests::matrix::promises_less;
use attache_tests::util;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use crate::scene::{HOST, Scene, records};

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_is_for_one_name_and_one_day() {
    let scene = Scene::start().await;
    assert!(!scene.file("ca.key").exists(), "nobody has asked for an authority yet");
    let before = util::wall_ms() / 1000;
    let ours = scene.export();
    let leaf = scene.shake(HOST, &ours).await.expect("a handshake");
    let (_, leaf) = X509Certificate::from_der(&leaf).expect("a certificate");
    let names = leaf.subject_alternative_name().expect("one extension").expect("names");
    assert_eq!(names.value.general_names, [GeneralName::DNSName(HOST)]);
    let (serial, common) = (leaf.raw_serial_as_string().replace(':', ""), leaf.subject().iter_common_name().next());
    let common = common.and_then(|name| name.as_str().ok()).expect("a common name");
    assert_eq!(common, format!("{} {HOST}", &serial[..8]), "no two leaves are of one subject");
    let (begin, end) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    assert!(end - begin <= 86_400 && begin < before as i64 && end > before as i64 + 80_000, "{begin} to {end}");
    assert!(!leaf.is_ca());
    let (oid, bits) = (&leaf.public_key().algorithm.algorithm, leaf.public_key().parsed().expect("a key").key_size());
    assert_eq!((oid.to_id_string().as_str(), bits), ("1.2.840.10045.2.1", 256), "an elliptic curve: P-256");

    let (_, pem) = x509_parser::pem::parse_x509_pem(ours.as_bytes()).expect("PEM");
    let authority = pem.parse_x509().expect("a certificate");
    let constraints = authority.basic_constraints().expect("one extension").expect("constraints");
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = authority.key_usage().expect("one extension").expect("usage").value;
    assert!(usage.key_cert_sign() && !usage.digital_signature());
    assert!(authority.subject().to_string().contains("default"), "{}", authority.subject());
    assert!(authority.name_constraints().expect("at most one").is_none());
    leaf.verify_signature(Some(authority.public_key())).expect("signed by the authority");

    for (file, mode) in [("ca.key", 0o600), ("ca.pem", 0o600)] {
        let found = std::fs::metadata(scene.file(file)).expect(file).permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{file}");
    }
    assert_eq!(std::fs::read_to_string(scene.file("ca.pem")).expect("ca.pem"), ours);
    let made = records(&scene.config, "ca");
    assert_eq!(made.len(), 1, "{made:#?}");
    assert_eq!(made[0]["decision"], "create");
    let shown = scene.broker.json(&["ca", "show"]);
    assert_eq!(made[0]["fingerprint"], shown[0]["fingerprint"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_handshakes_have_one_leaf_and_no_session_is_taken_up_again() {
    let scene = Scene::start().await;
    let tls = crate::scene::client(&scene.export());
    let first = scene.shake_with(HOST, tls.clone()).await.expect("a handshake");
    let second = scene.shake_with(HOST, tls).await.expect("another");
    assert_eq!(first, second);
    let reused = scene.envoy.stat("listener.127.0.0.1_0.ssl.session_reused").await;
    // What a session outlives, where it is taken up again, is told in `lapses` and `denies`.
    let less = promises_less("mints::leaves::two_handshakes_have_one_leaf_and_no_session_is_taken_up_again");
    assert_eq!(reused, Some(u64::from(less)));
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_trusts_it() {
    let scene = Scene::start().await;
    let addr = scene.addr().await;
    scene.export();
    for host in [HOST, "api.other.test"] {
        let done = Command::new("curl")
            .args(["-sS", "--fail", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}"])
            .arg("--cacert")
            .arg(scene.file("ca.pem"))
            .args(["--connect-to", &format!("{host}:443:127.0.0.1:{}", addr.port()), &format!("https://{host}/")])
            .output()
            .expect("curl runs");
        let said = String::from_utf8_lossy(&done.stdout);
        assert_eq!(said, "200", "{host}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_in_the_dump_of_the_config() {
    let scene = Scene::start().await;
    scene.shake(HOST, &scene.export()).await.expect("a handshake");
    let dump = scene.envoy.config_dump().await;
    assert!(dump.contains("\"@type\": \"type.googleapis.com/envoy.admin.v3.SecretsConfigDump\""), "{dump}");
    assert!(dump.contains(HOST), "{dump}");
    assert!(!dump.contains("PRIVATE KEY"), "a key in the clear");
    // Inline bytes are dumped as base64.
    assert!(!dump.contains("LS0tLS1CRUdJTiBQUklWQVRF"), "a key in base64");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constrained_authority_permits_the_hosts_of_the_config_and_no_others() {
    let constrained = "ca: {constrained: true}\n# no other host";
    let scene = Scene::with(constrained).await;
    let ours = scene.export();
    scene.shake(HOST, &ours).await.expect("a handshake");
    let (_, pem) = x509_parser::pem::parse_x509_pem(ours.as_bytes()).expect("PEM");
    let authority = pem.parse_x509().expect("a certificate");
    let constraints = authority.name_constraints().expect("one extension").expect("constraints");
    let ParsedExtension::NameConstraints(_) = authority
        .extensions()
        .iter()
        .find(|e| e.oid == x509_parser::oid_registry::OID_X509_EXT_NAME_CONSTRAINTS)
        .expect("the extension")
        .parsed_extension()
    else {
        panic!("name constraints")
    };
    assert!(constraints.critical);
    let permitted = constraints.value.permitted_subtrees.as_ref().expect("permitted");
    let permitted: Vec<_> = permitted.iter().map(|subtree| &subtree.base).collect();
    assert_eq!(permitted, [&GeneralName::DNSName(HOST)]);
    // A constraint on names says nothing of addresses.
    let excluded = constraints.value.excluded_subtrees.as_ref().expect("excluded");
    let excluded: Vec<_> = excluded.iter().map(|subtree| &subtree.base).collect();
    assert_eq!(excluded, [&GeneralName::IPAddress(&[0; 8]), &GeneralName::IPAddress(&[0; 32])]);
}
