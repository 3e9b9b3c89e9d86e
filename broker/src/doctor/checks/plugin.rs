//! How Envoy runs our plugin.

use serde_json::Value;

use super::super::node::{Node, shown};
use super::super::scene::{Plugin, Role, Scene, opened_settings};
use super::super::{Check, Symptom};
use super::credentials::{is_placeholder, looks_secret, names_secret};

pub(super) const FAILURE_POLICY: Check = Check {
    id: "failure-policy",
    purpose: "a trapped VM refuses, and comes back",
    attack: "FAIL_OPEN: what traps the VM once lets the next requests skip the filter. FAIL_CLOSED, also when left out: \
             one trap refuses every agent, until Envoy is started again",
    fix: "failure_policy: FAIL_RELOAD with reload_config.backoff {base_interval: 0.2s, max_interval: 1s}",
    find: |scene| scene.plugins().filter_map(failure_policy).collect(),
};

fn failure_policy(plugin: &Plugin<'_>) -> Option<Symptom> {
    let deprecated = plugin.node.field("fail_open").filter(Node::is_true);
    if let Some(open) = deprecated {
        return Some(Symptom::fail(open.path(), shown(Some(&open))));
    }
    let policy = plugin.node.field("failure_policy");
    let is = |name, number| policy.as_ref().is_some_and(|policy| policy.names(name, number));
    let path = plugin.node.would_be("failure_policy");
    match () {
        () if is("FAIL_RELOAD", 1) => None,
        () if policy.is_none() || is("UNSPECIFIED", 0) || is("FAIL_CLOSED", 2) => {
            // No credential gets out, but whoever finds a trap has ended the service for all.
            Some(Symptom::fail(path, format!("{}: fails closed, and stays dead", shown(policy.as_ref()))))
        }
        () => Some(Symptom::fail(path, shown(policy.as_ref()))),
    }
}

pub(super) const STOP_ITERATION: Check = Check {
    id: "stop-iteration",
    purpose: "the judge may hold a head while it reads the body; gate and door may not",
    attack: "without the flag the judge's head goes upstream, with the credential, before the body is judged; \
             with it the gate answers 413 to a large upload that waits for its grant",
    fix: "allow_on_headers_stop_iteration: true for role judge; not for role gate or door",
    find: |scene| scene.plugins().filter_map(stop_iteration).collect(),
};

fn stop_iteration(plugin: &Plugin<'_>) -> Option<Symptom> {
    const FLAG: &str = "allow_on_headers_stop_iteration";
    let (flag, path) = (plugin.node.field(FLAG), plugin.node.would_be(FLAG));
    match (plugin.role, plugin.node.flag(FLAG)) {
        (Role::Judge, true) | (Role::Gate | Role::Door, false) => None,
        (Role::Judge, false) => Some(Symptom::fail(path, format!("{} for a judge", shown(flag.as_ref())))),
        (Role::Gate, true) => Some(Symptom::fail(path, "true for a gate")),
        (Role::Door, true) => Some(Symptom::fail(path, "true for a door")),
        (Role::Unknown, _) => {
            Some(Symptom::warn(path, "the plugin's configuration says none of \"role\": \"gate\", \"judge\", \"door\""))
        }
    }
}

pub(super) const VM_ID: Check = Check {
    id: "vm-id",
    purpose: "each instance has its own VM",
    attack: "two tenants' plugins with the same code and VM configuration share one VM, and its memory",
    fix: "vm_config.vm_id: one for each instance",
    find: vm_ids,
};

/// Without an id, or with the id of another instance.
fn vm_ids(scene: &Scene<'_>) -> Vec<Symptom> {
    const PLACE: &str = "vm_config.vm_id";
    let mut symptoms = Vec::new();
    let mut owners: Vec<(&str, &str)> = Vec::new();
    for plugin in scene.plugins() {
        let Some(id) = plugin.node.text(PLACE) else {
            symptoms.push(Symptom::fail(plugin.node.would_be(PLACE), "absent"));
            continue;
        };
        let Some(instance) = plugin.instance.as_deref() else { continue };
        match owners.iter().find(|(known, _)| *known == id) {
            Some((_, owner)) if *owner != instance => {
                let found = format!("{id:?}, of instance {instance:?} here and of {owner:?} elsewhere");
                symptoms.push(Symptom::fail(plugin.node.would_be(PLACE), found));
            }
            Some(_) => {}
            None => owners.push((id, instance)),
        }
    }
    symptoms
}

pub(super) const CODE_PINNED: Check = Check {
    id: "code-pinned",
    purpose: "the module that runs is the module that was released",
    attack: "who can replace the module at its URL or on disk reads every credential",
    fix: "remote: sha256; local: a file named by its sha256, as `attache up` keeps it; no allow_precompiled",
    find: |scene| scene.plugins().flat_map(unpinned).collect(),
};

fn unpinned(plugin: &Plugin<'_>) -> Vec<Symptom> {
    let vm = |field: &str| format!("vm_config.{field}");
    let mut symptoms = Vec::new();
    if plugin.node.at(&vm("code.remote")).is_some() {
        let pin = plugin.node.text(&vm("code.remote.sha256"));
        if !pin.is_some_and(has_sha256) {
            symptoms.push(Symptom::fail(plugin.node.would_be(&vm("code.remote.sha256")), "no sha256"));
        }
    } else if let Some(file) = plugin.node.at(&vm("code.local.filename")) {
        // Who replaces the file must keep its name: a digest anywhere else is not held against it.
        let name = file.as_text().map(|path| path.rsplit('/').next().unwrap_or(path));
        if !name.is_some_and(has_sha256) {
            symptoms.push(Symptom::warn(file.path(), "a file with no sha256 in its name"));
        }
    }
    // Precompiled sections are machine code that V8 runs unverified.
    let precompiled = plugin.node.at(&vm("allow_precompiled")).filter(Node::is_true);
    symptoms.extend(precompiled.map(|node| Symptom::warn(node.path(), shown(Some(&node)))));
    symptoms
}

/// Whether 64 hex digits stand together in it.
fn has_sha256(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_hexdigit()).any(|run| run.len() == 64)
}

pub(super) const PLUGIN_SECRET: Check = Check {
    id: "plugin-secret",
    purpose: "no secret stands in the plugin's configuration",
    attack: "/config_dump shows it to whoever reaches the admin, and so does the file",
    fix: "environment_variables.host_env_keys, or a credential_injector on the broker's cluster that reads a file",
    find: |scene| scene.plugins().flat_map(secrets_in).collect(),
};

fn secrets_in(plugin: &Plugin<'_>) -> Vec<Symptom> {
    let mut symptoms = Vec::new();
    for place in ["configuration", "vm_config.configuration"] {
        if let Some((settings, path)) = plugin.node.at(place).and_then(|any| opened_settings(&any)) {
            symptoms.extend(secrets_below(&Node::root(&settings, path)));
        }
    }
    let environment = plugin.node.at("vm_config.environment_variables.key_values");
    symptoms.extend(environment.iter().flat_map(secrets_below));
    symptoms
}

/// Texts that are secrets by their key or by their shape. Only their length is told.
fn secrets_below(root: &Node<'_>) -> Vec<Symptom> {
    let mut symptoms = Vec::new();
    let mut judge = |key: Option<&str>, node: &Node<'_>| {
        let Some(text) = node.as_text().filter(|text| !text.is_empty() && !is_placeholder(text)) else { return };
        let by = match key.filter(|key| names_secret(key)) {
            Some(_) => "its key",
            None if looks_secret(text) => "its shape",
            None => return,
        };
        symptoms.push(Symptom::fail(node.path(), format!("a secret by {by} ({} bytes)", text.len())));
    };
    judge(None, root);
    root.walk(&mut |node| {
        for (key, child) in node.entries() {
            judge(Some(key), &child);
        }
        for child in node.items() {
            judge(None, &child);
        }
        !matches!(node.value(), Value::Null)
    });
    symptoms
}
