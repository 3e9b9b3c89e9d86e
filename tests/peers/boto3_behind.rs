//! boto3 behind the forward proxy, whose host is passed through: it signs what it sends, so nobody may
//! change that, and nobody looks at it.

use attache_tests::oracle::Audit;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{Ca, Dns, Reply, Upstream, util};

use crate::behind::Client;
use crate::scene::{Scene, is_installed};

const HOST: &str = "storage.extra.test";
const LETTER: &str = "Good day, unseen";

#[tokio::test(flavor = "multi_thread")]
async fn what_it_signs_passes_unseen() {
    if !is_installed("boto3-") {
        return;
    }
    let (dns, ca) = (Dns::start().await, Ca::new());
    dns.set(HOST, &["127.0.0.1"]);
    let storage =
        Upstream::tls(&ca, &[HOST]).alpn(&["http/1.1"]).handler(|_| Reply::new(200).body(LETTER)).start().await;
    let port = storage.addr().port();
    let extra = format!(
        "dns: {{servers: ['{}']}}\nhosts: [{{host: {HOST}, port: {port}, tls: passthrough, private: true}}]\n",
        dns.address()
    );
    let scene = Scene::of(Plan::default().extra(&extra).forward_proxy()).await;
    // A real one's authority is among the system's already.
    std::fs::write(scene.path("storage.pem"), ca.pem()).expect("a file");
    let python = util::workspace_root().join(".tools/boto3/bin/python").display().to_string();
    let script = format!(
        "cat storage.pem \"$AWS_CA_BUNDLE\" > trusted.pem\nexport AWS_CA_BUNDLE=$PWD/trusted.pem\n\
         export AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE AWS_SECRET_ACCESS_KEY=its-own AWS_DEFAULT_REGION=us-east-1\n\
         {python} -c \"import boto3; s3 = boto3.client('s3', endpoint_url='https://{HOST}:{port}'); \
         print(s3.get_object(Bucket='letters', Key='a')['Body'].read().decode())\""
    );
    let said = scene.run_by("reader", "AWS_CA_BUNDLE", &script).await.ok();
    assert_eq!(said.out.trim(), LETTER, "{}", said.err);
    let asked = storage.requests();
    let [asked] = &asked[..] else { panic!("one request, not {asked:?}") };
    assert!(asked.fields.text("authorization").is_some_and(|text| text.starts_with("AWS4-HMAC-SHA256 ")), "{asked:?}");
    let log = scene.stack.dir().join("state/default/audit.jsonl");
    let told = || {
        let (audit, _) = Audit::read(Some(&log));
        let tunnel = audit.of_kind("tunnel").next()?;
        Some((tunnel.text("decision"), tunnel.text("destination"), tunnel.text("session")))
    };
    let tunnel = util::eventually_some(SOON, told).await;
    assert_eq!(tunnel, ("tunnel".into(), format!("{HOST}:{port}"), "reader".into()));
    let version = format!("{python} -c 'import boto3; print(boto3.__version__)'");
    let tested = "S3 get_object, signed, passed through";
    scene.row("reader", &Client { name: "boto3", host: HOST, version: &version, ca: "AWS_CA_BUNDLE", tested }).await;
    scene.stack.reconcile().await;
}
