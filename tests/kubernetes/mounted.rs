//! A volume as a kubelet mounts it, swapped under load.

use std::fs::{Permissions, create_dir, rename, set_permissions, write};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use attache_tests::stack::{Plan, SOON};
use attache_tests::util;

const FIRST: &str = "the-first-secret-of-a-volume-0123456";
const SECOND: &str = "the-second-secret-of-a-volume-654321";
const HOST: &str = "mounted.extra.test";
const AGENTS: usize = 3;

/// A new version of the volume, and the one link that leads to it: in one step, as a kubelet does.
fn swap(volume: &Path, version: &str, secret: &str) {
    let dir = volume.join(version);
    create_dir(&dir).expect("a version");
    set_permissions(&dir, Permissions::from_mode(0o755)).expect("its mode");
    write(dir.join("token"), format!("{secret}\n")).expect("a key");
    set_permissions(dir.join("token"), Permissions::from_mode(0o440)).expect("its mode");
    symlink(version, volume.join("..data_tmp")).expect("a link");
    rename(volume.join("..data_tmp"), volume.join("..data")).expect("the swap");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_under_load_fails_no_request_and_the_new_secret_is_injected_soon_after() {
    let volume = util::temp_dir();
    set_permissions(volume.path(), Permissions::from_mode(0o1777)).expect("its mode");
    swap(volume.path(), "..2026_11_26_10_00_00.1", FIRST);
    symlink("..data/token", volume.path().join("token")).expect("a link");
    let source = format!("{{mounted: {{volume: {}, file: token}}}}", volume.path().display());
    let yaml = format!(
        "{{source: {source}, inject: bearer, destinations: [{{host: {HOST}, upstream: DIAL}}], agent_env: {{MOUNTED: \
         placeholder}}}}"
    );
    let plan = Plan::default().credential("mounted", FIRST, &yaml).session("{name: app, credentials: [mounted]}");
    let stack = plan.start().await;
    stack.site.secrets.add("mounted", SECOND);
    let placeholder = stack.broker.exported("app", "MOUNTED");

    let until_new = |after: Instant| {
        let new = Some(format!("Bearer {SECOND}"));
        stack.upstream().requests().iter().filter(|hit| hit.at >= after && hit.header("authorization") == new).count()
            >= 20
    };
    let agent = async |done: &dyn Fn() -> bool| {
        let mut answers = 0;
        let end = Instant::now() + SOON;
        while !done() {
            let answer = stack.get(HOST, "/", &placeholder).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            answers += 1;
            assert!(Instant::now() < end, "the new secret never came");
        }
        answers
    };
    let swapped = std::cell::Cell::new(None::<Instant>);
    let load = async {
        let done = || swapped.get().is_some_and(&until_new);
        let (one, two, three) = tokio::join!(agent(&done), agent(&done), agent(&done));
        [one, two, three]
    };
    let kubelet = async {
        let busy = || stack.upstream().requests().len() >= 20 * AGENTS;
        util::eventually(SOON, busy).await;
        swap(volume.path(), "..2026_11_26_10_01_00.2", SECOND);
        swapped.set(Some(Instant::now()));
    };
    let (answers, ()) = tokio::join!(load, kubelet);
    let swapped = swapped.get().expect("the swap");
    let old = Some(format!("Bearer {FIRST}"));
    let hits = stack.upstream().requests();
    let last =
        hits.iter().filter(|hit| hit.header("authorization") == old && hit.at >= swapped).map(|hit| hit.at - swapped);
    let last = last.max().unwrap_or_default();
    println!("{answers:?} answers, none failed; the old secret until {last:?} after the swap");
    assert!(last < Duration::from_millis(1_500), "{last:?}");
    let listed = stack.broker.json(&["credential", "list"]);
    let places: Vec<_> = listed.as_array().expect("a list").iter().filter_map(|one| one["source"].as_str()).collect();
    assert!(places.iter().any(|place| place.starts_with("mounted /") && place.ends_with("/token")), "{places:?}");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_out_of_the_volume_is_refused_and_the_reason_names_it() {
    let (volume, outside) = (util::temp_dir(), util::temp_dir());
    swap(volume.path(), "..2026_11_26_10_00_00.1", FIRST);
    write(outside.path().join("stolen"), SECOND).expect("a file");
    symlink(outside.path().join("stolen"), volume.path().join("token")).expect("a link");
    let yaml = format!(
        "{{source: {{mounted: {{volume: {}, file: token}}}}, inject: bearer, destinations: [{{host: {HOST}, upstream: DIAL}}], \
         agent_env: {{MOUNTED: placeholder}}}}",
        volume.path().display()
    );
    let plan = Plan::default().credential("mounted", FIRST, &yaml).session("{name: app, credentials: [mounted]}");
    let stack = plan.start().await;
    stack.site.secrets.add("mounted", SECOND);
    let placeholder = stack.broker.exported("app", "MOUNTED");
    let answer = stack.get(HOST, "/", &placeholder).await;
    assert_eq!((answer.status, answer.header("x-attache-reason").as_deref()), (503, Some("source_unavailable")));
    let tested = stack.broker.cli(&["credential", "test", "mounted"]);
    let said = String::from_utf8_lossy(&tested.stderr).into_owned();
    assert!(said.contains("/token leads out of its volume") && said.contains("mountPath"), "{said}");
    stack.reconcile().await;
}
