//! npm, against verdaccio, which gives nothing to whoever does not show its own token.

use attache_core::refusal::Reason;
use attache_tests::stack::Plan;

use crate::registry::Registry;
use crate::scene::{Scene, has, is_installed, shown};

const HOST: &str = "registry.example.com";
const CREDENTIAL: &str = "{preset: npm, source: {file: npm}, agent_env: {NPM_TOKEN: placeholder}, destinations: [{host: registry.example.com, upstream: DIAL}]}";
const QUIETLY: &str = "export npm_config_update_notifier=false npm_config_fetch_retries=0 npm_config_fund=false\n";
/// A package of one file.
const PACKAGE: &str = "mkdir -p letter && cd letter && echo 'module.exports = \"Good day\"' > index.js && \
     echo '{\"name\": \"letter\", \"version\": \"1.0.0\"}' > package.json";

/// `settings` become the agent's `.npmrc`. `public`: whether the registry knows where it is called.
async fn start(settings: &str, public: bool) -> Option<(Scene, Registry)> {
    if !has(&["npm", "node"]) || !is_installed("verdaccio-") {
        return None;
    }
    let plan = Plan::default().credential("npm", "npm_NotTheTokenYetButAsLongAsOne00000000", CREDENTIAL);
    let plan = plan.session("{name: publisher, credentials: [npm]}");
    let scene = Scene::of(plan.session("{name: installer, credentials: [npm], access_mode: read-only}")).await;
    let url = format!("http://{}/{HOST}/", scene.gateway());
    let registry = Registry::start(public.then_some(&url)).await;
    scene.stack.upstream().lead(HOST, registry.addr);
    scene.stack.site.secrets.add("npm", &registry.token);
    scene.stack.site.keep("npm", &registry.token);
    assert!(scene.stack.broker.cli(&["credential", "reload", "npm"]).status.success());
    std::fs::write(scene.path(".npmrc"), settings.replace("127.0.0.1:3030", &scene.gateway())).expect("a file");
    Some((scene, registry))
}

async fn publish_install_and_be_refused(scene: &Scene) {
    let publish = format!("{QUIETLY}{PACKAGE} && npm publish");
    scene.shell("installer", &publish).await.refused(Reason::ReadOnly);
    let before = scene.stack.upstream().requests();
    assert!(before.iter().all(|hit| hit.method != "PUT"), "a publication of a reader arrived");
    scene.shell("publisher", &publish).await.ok();
    let view = scene.shell("installer", &format!("{QUIETLY}npm view letter version")).await.ok();
    assert_eq!(view.out, "1.0.0\n");
    // npm keeps what it has published.
    let install = "npm cache clean --force && mkdir -p use && cd use && echo '{}' > package.json && npm install --no-audit letter && \
         node -p 'require(\"letter\")'";
    let said = scene.shell("installer", &format!("{QUIETLY}{install}")).await.ok();
    assert!(said.out.ends_with("Good day\n"), "{}", said.out);
    let hits = scene.stack.upstream().hits();
    assert!(hits.iter().any(|hit| hit.path_text() == "/letter/-/letter-1.0.0.tgz"), "the tarball came another way");
    // And once more, by the lock file.
    let again = "cd use && rm -rf node_modules && npm cache clean --force && npm ci --no-audit && ls node_modules";
    let said = scene.shell("installer", &format!("{QUIETLY}{again}")).await.ok();
    assert!(said.out.ends_with("letter\n"), "{}", said.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_knows_its_address() {
    let Some((scene, registry)) = start(&shown("ini npm"), true).await else { return };
    publish_install_and_be_refused(&scene).await;
    let bearer = format!("Bearer {}", registry.token);
    let hits = scene.stack.upstream().hits();
    assert!(hits.iter().all(|hit| hit.fields.all("authorization") == [bearer.as_bytes()]));
    // This registry has no advisories; that it was asked is what matters.
    scene.shell("installer", &format!("{QUIETLY}cd use && npm audit")).await;
    let audited = |hit: &attache_tests::Recorded| hit.path_text() == "/-/npm/v1/security/advisories/bulk";
    assert!(scene.stack.upstream().hits().iter().any(audited), "an audit is a read");
    scene.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_names_itself() {
    let Some((scene, _registry)) = start(&shown("ini npm of a registry that names itself"), false).await else {
        return;
    };
    publish_install_and_be_refused(&scene).await;
    scene.reconcile().await;
}
