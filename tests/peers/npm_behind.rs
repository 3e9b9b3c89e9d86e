//! npm behind the forward proxy, against verdaccio, which gives nothing to whoever does not show its own token.

use attache_core::refusal::Reason;
use attache_tests::stack::Plan;

use crate::behind::Client;
use crate::registry::Registry;
use crate::scene::{Scene, has, is_installed};

const CA: &str = "npm_config_cafile";
const HOST: &str = "registry.example.com";
const CREDENTIAL: &str = "{preset: npm, source: {file: npm}, agent_env: {NPM_TOKEN: placeholder}, destinations: [{host: registry.example.com, upstream: DIAL}]}";
/// What its user would have written for this registry without a proxy, too.
const SETTINGS: &str = "registry=https://registry.example.com/\n//registry.example.com/:_authToken=${NPM_TOKEN}\n";
/// A package of one file.
const PACKAGE: &str = "mkdir -p letter && cd letter && echo 'module.exports = \"Good day\"' > index.js && \
     echo '{\"name\": \"letter\", \"version\": \"1.0.0\"}' > package.json";

#[tokio::test(flavor = "multi_thread")]
async fn it_publishes_and_installs_and_a_reader_is_told_why_it_may_not() {
    if !has(&["npm", "node"]) || !is_installed("verdaccio-") {
        return;
    }
    let plan = Plan::default().credential("npm", "npm_NotTheTokenYetButAsLongAsOne00000000", CREDENTIAL);
    let plan = plan.session("{name: publisher, credentials: [npm]}");
    let plan = plan.session("{name: installer, credentials: [npm], access_mode: read-only}");
    let url = format!("https://{HOST}/");
    let (scene, registry) = tokio::join!(Scene::of(plan.forward_proxy()), Registry::start(Some(&url)));
    scene.stack.upstream().lead(HOST, registry.addr);
    scene.stack.site.secrets.add("npm", &registry.token);
    scene.stack.site.keep("npm", &registry.token);
    assert!(scene.stack.broker.cli(&["credential", "reload", "npm"]).status.success());
    std::fs::write(scene.path(".npmrc"), SETTINGS).expect("a file");

    let quietly = "export npm_config_update_notifier=false npm_config_fetch_retries=0 npm_config_fund=false npm_config_audit=false";
    let npm = |rest: &str| format!("{quietly}\n{rest}");
    let publish = npm(&format!("{PACKAGE} && npm publish"));
    scene.run_by("installer", CA, &publish).await.refused(Reason::ReadOnly);
    let before = scene.stack.upstream().requests();
    assert!(before.iter().all(|hit| hit.method != "PUT"), "a publication of a reader arrived");
    scene.run_by("publisher", CA, &publish).await.ok();
    // npm keeps what it has published.
    let install = "npm cache clean --force && mkdir -p use && cd use && echo '{}' > package.json && \
         npm install letter && node -p 'require(\"letter\")'";
    let said = scene.run_by("installer", CA, &npm(install)).await.ok();
    assert!(said.out.ends_with("Good day\n"), "{}", said.out);
    let hits = scene.stack.upstream().hits();
    assert!(hits.iter().any(|hit| hit.path_text() == "/letter/-/letter-1.0.0.tgz"), "the tarball came another way");
    let bearer = format!("Bearer {}", registry.token);
    assert!(hits.iter().all(|hit| hit.fields.all("authorization") == [bearer.as_bytes()]));
    let tested = "publish to and install from verdaccio; a reader's publication is refused";
    let version = "npm --version";
    scene.row("installer", &Client { name: "npm", version, ca: CA, host: HOST, tested }).await;
    scene.reconcile().await;
}
