//! The pod that is rendered is run: its arguments, variables, user, volumes and probes as they stand there, the rest
//! of the root filesystem read-only, with `kubelet.py` in place of a kubelet. The Envoy in it is a real one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use attache_tests::{Ca, util};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tools::{Helm, Rendered, answer, at};
use crate::values;

/// The real one, of which agents have a placeholder.
const SECRET: &str = "ghp_TheRealTokenOfTheUser0123456789abcd";
/// Who may ask, as the chart's default has it, and who may not.
const PEER: &str = "spiffe://cluster.local/ns/attache-egress/sa/attache-egress";
const OTHER: &str = "spiffe://cluster.local/ns/agents/sa/default";
/// Where upstreams of the test are: in the pod's own network.
const UPSTREAM: &str = "
    destinations: [{host: api.github.com, private: true, upstream: {ca_file: /etc/attache/files/upstream/ca.pem}}]
    agent_env: {API_URL: {gateway: {host: api.github.com}}, GITHUB_TOKEN: placeholder}";

/// Values of the shape, with a credential whose upstream is here.
fn values(shape: &str) -> String {
    let preset = "github: {preset: github, source: {mounted: {volume: /var/run/secrets/attache/github, file: token}}}";
    let here =
        "github:\n    preset: github\n    source: {mounted: {volume: /var/run/secrets/attache/github, file: token}}";
    let here = format!("{here}{UPSTREAM}").replace("\n    ", "\n      ");
    let config = values::CONFIG.replace(preset, &here);
    assert!(config.contains("upstream.pem") || config.contains("ca.pem"), "the credential is another one");
    let config =
        config.replace("sources: {mounted", "sources: {files: [{name: upstream, configMapName: upstream}], mounted");
    format!("shape: {shape}\n{config}")
}

/// A pod that runs. All of it ends when this is dropped.
struct Pod {
    child: Child,
    asks: ChildStdin,
    says: BufReader<ChildStdout>,
    dir: TempDir,
}

impl Pod {
    /// Starts what was rendered; nothing where the kernel lets nobody do this.
    fn start(rendered: &Rendered, dir: TempDir) -> Option<Self> {
        let (mut scene, out) = (scene(rendered, &dir), dir.path().join("scene.json"));
        scene["dir"] = json!(dir.path());
        std::fs::write(&out, scene.to_string()).expect("a scene");
        let mut command = Command::new("python3");
        command.arg(at("tests/charts/kubelet.py")).arg(&out).stdin(Stdio::piped()).stdout(Stdio::piped());
        let errors = std::fs::File::create(dir.path().join("kubelet.log")).expect("a file");
        let mut child = command.stderr(errors).spawn().expect("python3 runs");
        let asks = child.stdin.take().expect("a pipe");
        let says = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut pod = Self { child, asks, says, dir };
        let started = pod.hear();
        if started.is_none() && pod.child.wait().expect("it ends").code() == Some(77) {
            util::skipped("no user, mount and network namespaces here: the pod of the chart is not run");
            return None;
        }
        assert_eq!(started, Some(json!({"started": true})), "{}", pod.logs());
        Some(pod)
    }

    fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.says.read_line(&mut line).expect("it says something");
        serde_json::from_str(&line).ok()
    }

    fn ask(&mut self, question: Value) -> Value {
        writeln!(self.asks, "{question}").expect("it hears");
        let logs = self.logs();
        self.hear().unwrap_or_else(|| panic!("{question}: no answer\n{logs}"))
    }

    /// Runs a program in a container, as its user; what it printed.
    fn exec(&mut self, container: &str, argv: &[&str]) -> Result<String, String> {
        let said = self.ask(json!({"do": "exec", "container": container, "argv": argv}));
        let text = |stream: &str| said[stream].as_str().unwrap_or_default().to_owned();
        if said["code"] == 0 { Ok(text("out")) } else { Err(format!("{said}")) }
    }

    /// An agent asks, elsewhere in the cluster.
    fn get(&mut self, path: &str, placeholder: &str) -> Value {
        let headers = json!({"Host": "attache-gateway.attache:3030", "Authorization": format!("Bearer {placeholder}")});
        self.ask(json!({"do": "get", "port": 3030, "path": path, "headers": headers}))
    }

    fn probes(&mut self, container: &str) -> [Value; 3] {
        ["startupProbe", "livenessProbe", "readinessProbe"]
            .map(|which| self.ask(json!({"do": "probe", "container": container, "which": which})))
    }

    fn logs(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        ["kubelet.log", "broker.log", "envoy.log"].map(|name| format!("--- {name}\n{}", read(name))).concat()
    }

    /// What the upstream was asked for.
    fn arrived(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.dir.path().join("beside.log")).unwrap_or_default();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Ends it as a kubelet does, and leaves its claims.
    fn end(mut self) -> (Value, TempDir) {
        let ended = self.ask(json!({"do": "end"}));
        drop(self.asks);
        self.child.wait().expect("it ends");
        (ended, self.dir)
    }
}

/// What is on the node: images, the objects that volumes are made of, claims, and the upstream.
fn scene(rendered: &Rendered, dir: &TempDir) -> Value {
    let path = |name: &str| dir.path().join(name);
    let ca = Ca::new();
    let leaf = ca.issue(&["api.github.com"]);
    let (chain, key) = leaf.pems();
    std::fs::write(path("chain.pem"), chain).expect("a file");
    std::fs::write(path("key.pem"), key).expect("a file");
    let broker = ca.issue_client("spiffe://cluster.local/ns/attache/sa/attache-broker");
    let tls = json!({"tls.crt": broker.pems().0, "tls.key": broker.pems().1, "ca.crt": ca.pem()});
    let claim = path("claim");
    if !claim.exists() {
        std::fs::create_dir(&claim).expect("a claim");
        std::fs::set_permissions(&claim, std::fs::Permissions::from_mode(0o755)).expect("a claim of ours");
    }
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("a directory of ours");
    let pair = |prefix: &str, id: &str| {
        let leaf = ca.issue_client(id);
        [(format!("{prefix}.crt"), json!(leaf.pems().0)), (format!("{prefix}.key"), json!(leaf.pems().1))]
    };
    // For those who call the data plane: a peer of the config, and another workload of the same mesh.
    let files = [
        [("ca.pem".to_owned(), json!(ca.pem())), ("none".to_owned(), json!("none"))],
        pair("peer", PEER),
        pair("other", OTHER),
    ];
    let files: serde_json::Map<_, _> = files.into_iter().flatten().collect();
    let config = rendered.config();
    json!({
        "pod": rendered.pod(),
        "configMaps": {"attache-broker": {"attache.yaml": config}, "upstream": files},
        "secrets": {"github": {"token": SECRET}, "attache-broker-tls": tls},
        "claims": {"attache-broker-state": claim},
        "etc": {"hosts": "127.0.0.1 localhost api.github.com\n", "nsswitch.conf": "hosts: files\n"},
        "entrypoints": {"broker": ["/usr/local/bin/attache"]},
        "images": {
            "broker": {"attache": util::broker_bin(), "attache_filter.wasm": util::filter_wasm()},
            "envoy": {"envoy": attache_tests::envoy::binary()},
        },
        "beside": [[env!("CARGO_BIN_EXE_stand_in"), "upstream", path("chain.pem"), path("key.pem")]],
    })
}

/// Waits until it is so.
#[track_caller]
fn within(mut so: impl FnMut() -> bool, otherwise: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < deadline, "{otherwise}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn start(shape: &str) -> Option<Pod> {
    let rendered = Helm::here()?.render(&values(shape)).expect("it renders");
    Pod::start(&rendered, util::temp_dir())
}

#[test]
fn the_broker_runs_as_the_deployment_says_and_its_probes_answer() {
    let Some(mut pod) = start("mesh") else { return };
    for probe in pod.probes("broker") {
        assert_eq!(probe["ok"], true, "{probe}\n{}", pod.logs());
    }
    assert!(pod.exec("broker", &["attache", "ready"]).is_ok(), "{}", pod.logs());
    let (ended, _) = pod.end();
    assert_eq!(ended["broker"]["code"], 0, "{ended}");
    assert!(ended["broker"]["seconds"].as_f64().is_some_and(|seconds| seconds < 10.0), "within its grace: {ended}");
}

#[test]
fn an_envoy_elsewhere_gets_in_with_a_certificate_of_the_peers_and_nobody_else_does() {
    let Some(mut pod) = start("mesh") else { return };
    let mut ask = |who: &str| {
        let files = "/etc/attache/files/upstream";
        let shown =
            if who.is_empty() { String::new() } else { format!("--cert {files}/{who}.crt --key {files}/{who}.key") };
        let url = "https://127.0.0.1:3031/v1/policy";
        pod.exec("broker", &["sh", "-c", &format!("curl -sS -k -m 10 {shown} -o /dev/null -w '%{{http_code}}' {url}")])
    };
    assert_eq!(ask("peer").as_deref(), Ok("200"));
    for stranger in ["other", ""] {
        let said = ask(stranger);
        assert!(said.as_deref().is_err() || said.as_deref() == Ok("401") || said.as_deref() == Ok("403"), "{said:?}");
    }
}

#[test]
fn the_broker_writes_to_its_volumes_and_to_nothing_else() {
    let Some(mut pod) = start("mesh") else { return };
    let write = |pod: &mut Pod, path: &str| pod.exec("broker", &["sh", "-c", &format!("echo x > {path}/probe")]);
    for allowed in ["/var/lib/attache", "/tmp"] {
        assert!(write(&mut pod, allowed).is_ok(), "{allowed}");
    }
    for refused in
        ["", "/etc", "/usr/local/bin", "/etc/attache/config", "/etc/attache/tls", "/var/run/secrets/attache/github"]
    {
        assert!(write(&mut pod, refused).is_err(), "{refused}");
    }
    let caps =
        pod.exec("broker", &["sh", "-c", "grep -E 'Cap(Prm|Eff|Bnd)|NoNewPrivs' /proc/1/status /proc/self/status"]);
    let caps = caps.expect("what it may");
    let own: Vec<_> = caps.lines().filter(|line| line.contains("self")).collect();
    assert!(own.iter().any(|line| line.ends_with("NoNewPrivs:\t1")), "{caps}");
    assert_eq!(own.iter().filter(|line| line.ends_with("\t0000000000000000")).count(), 3, "{caps}");
}

#[test]
fn an_agent_that_calls_the_gateway_is_served_with_the_real_credential() {
    let Some(mut pod) = start("gateway") else { return };
    for container in ["broker", "envoy"] {
        for probe in pod.probes(container) {
            assert_eq!(probe["ok"], true, "{container}: {probe}\n{}", pod.logs());
        }
    }
    let printed = pod.exec("broker", &["attache", "session", "env", "agent", "--json"]).expect("what an agent needs");
    let printed: Value = serde_json::from_str(&printed).expect("JSON");
    let placeholder = printed["GITHUB_TOKEN"].as_str().expect("a placeholder").to_owned();
    assert!(!placeholder.contains(SECRET));
    let answer = pod.get("/api.github.com/user", &placeholder);
    assert_eq!(answer["status"], 200, "{answer}\n{}", pod.logs());
    assert!(!answer.to_string().contains(SECRET), "the agent has the real one");
    let arrived = pod.arrived();
    assert_eq!(arrived.len(), 1, "{arrived:?}");
    assert_eq!(
        (&arrived[0]["path"], &arrived[0]["authorization"]),
        (&json!("/user"), &json!(format!("Bearer {SECRET}")))
    );
    // For an agent's pod, as a Secret.
    let handed = ["--kubernetes-secret", "agent", "--namespace", "agents", "--proxy", "attache-gateway.attache:3030"];
    let handed = [&["attache", "session", "env", "agent"][..], &handed].concat();
    let secret = pod.exec("broker", &handed).expect("a Secret");
    assert!(secret.contains("kind: Secret") && secret.contains(&placeholder), "{secret}");
    assert!(secret.contains("API_URL: \"http://attache-gateway.attache:3030/api.github.com\""), "{secret}");
    // What doctor has to say is no failure.
    let doctor = ["attache", "doctor", "--envoy-admin", "unix:/run/attache/envoy/own/envoy.sock"];
    assert!(pod.exec("broker", &doctor).is_ok(), "{:?}", pod.exec("broker", &doctor));
    // Without it, nothing leaves.
    let refused = pod.get("/api.github.com/user", "ghp_none");
    assert_eq!(refused["status"], 401, "{refused}");
    assert_eq!(pod.arrived().len(), 1);
    // Envoy has what was handed over, and neither state nor secret.
    for hidden in ["/var/lib/attache", "/var/run/secrets", "/etc/attache"] {
        assert!(pod.exec("envoy", &["sh", "-c", &format!("test -e {hidden}")]).is_err(), "{hidden}");
    }
    // The use is on record soon: an Envoy that ends before takes it along.
    let uses = ["attache", "audit", "query", "--kind", "use", "--json"];
    within(|| pod.exec("broker", &uses).is_ok_and(|said| said.contains("/user")), "no record of the use");
    let (ended, _) = pod.end();
    assert_eq!((&ended["envoy"]["code"], &ended["broker"]["code"]), (&json!(0), &json!(0)), "{ended}");
}

#[test]
fn an_agent_has_the_forward_proxys_door_where_the_chart_says() {
    let Some(mut pod) = start("forward-proxy") else { return };
    for probe in pod.probes("envoy") {
        assert_eq!(probe["ok"], true, "{probe}\n{}", pod.logs());
    }
    let shown = pod.exec(
        "broker",
        &[
            "attache",
            "session",
            "env",
            "agent",
            "--json",
            "--shape",
            "forward-proxy",
            "--proxy",
            "attache-gateway.attache:3030",
        ],
    );
    let shown: Value = serde_json::from_str(&shown.expect("what an agent needs")).expect("JSON");
    let proxy = shown["HTTPS_PROXY"].as_str().expect("a proxy");
    assert!(proxy.ends_with("@attache-gateway.attache:3030"), "where an agent finds it");
    let token = proxy.trim_start_matches("http://").split('@').next().expect("a token").to_owned();
    let placeholder = shown["GITHUB_TOKEN"].as_str().expect("a placeholder").to_owned();
    let tunnel = format!(
        "curl -sS -k -m 20 -o /dev/null -w '%{{http_code}}' -x http://{token}@127.0.0.1:3030 https://api.github.com/user \
         -H 'Authorization: Bearer {placeholder}'"
    );
    let served = pod.exec("broker", &["sh", "-c", &tunnel]);
    assert_eq!(served.as_deref(), Ok("200"), "{}", pod.logs());
    assert_eq!(pod.arrived()[0]["authorization"], format!("Bearer {SECRET}"));
}

/// A pod that moves: volumes are mounted anew, with the group's rights as a kubelet gives them.
#[test]
fn a_pod_that_comes_back_finds_its_state_and_its_placeholders() {
    let Some(helm) = Helm::here() else { return };
    let rendered = helm.render(&values("gateway")).expect("it renders");
    let shown = |pod: &mut Pod| pod.exec("broker", &["attache", "session", "env", "agent"]).expect("placeholders");
    let Some(mut pod) = Pod::start(&rendered, util::temp_dir()) else { return };
    let before = shown(&mut pod);
    // Killed, it is started again by the kubelet, and Envoy goes on.
    pod.ask(json!({"do": "kill", "container": "broker"}));
    let ready = |container: &str, pod: &mut Pod| pod.probes(container).iter().all(|probe| probe["ok"] == true);
    within(|| ready("broker", &mut pod) && ready("envoy", &mut pod), "not ready again");
    assert_eq!(shown(&mut pod), before);
    let (_, dir) = pod.end();
    let mut pod = Pod::start(&rendered, dir).expect("it ran before");
    assert_eq!(shown(&mut pod), before);
}

/// Why the chart says `OnRootMismatch`: with a kubelet's default, what is the broker's alone becomes its group's, too.
#[test]
fn with_the_default_of_a_kubelet_the_broker_would_refuse_its_own_files() {
    let Some(helm) = Helm::here() else { return };
    let rendered = helm.render(&values("mesh")).expect("it renders");
    let Some(pod) = Pod::start(&rendered, util::temp_dir()) else { return };
    let (_, dir) = pod.end();
    let mut objects = rendered.objects.clone();
    let deployment = objects.iter_mut().find(|object| object["kind"] == "Deployment").expect("a Deployment");
    deployment["spec"]["template"]["spec"]["securityContext"]["fsGroupChangePolicy"] = json!("Always");
    let opened = Rendered { objects, notes: String::new() };
    let path = dir.path().to_owned();
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Pod::start(&opened, dir)));
    let log = refused.err().and_then(|why| why.downcast::<String>().ok()).expect("it starts all the same");
    assert!(log.contains("is open to other users"), "{log}");
    assert!(!path.exists());
}

/// The page's pod for commands that want no broker: of each shape, it is valid, and the state is there.
#[test]
fn the_pod_without_a_broker_that_is_shown_has_its_state() {
    let Some(helm) = Helm::here() else { return };
    let need = Command::new("bash").arg(at("scripts/need")).arg("jq").output().expect("bash runs");
    if !need.status.success() {
        return util::skipped("jq is not here: the pod without a broker is not made");
    }
    let page = crate::tools::read("docs/operations.md");
    let (_, program) = page.split_once("  jq '").expect("a program of jq");
    let program = program.split('\'').next().expect("its end");
    for shape in ["mesh", "gateway"] {
        let rendered = helm.render(&values(shape)).expect("it renders");
        let mut command = Command::new("jq");
        let made = answer(command.arg(program), rendered.the("Deployment"));
        let offline: Value = serde_json::from_slice(&made.stdout).expect("a pod");
        assert_eq!(helm.wrong(std::slice::from_ref(&offline)), Vec::<String>::new());
        let Some(pod) = Pod::start(&rendered, util::temp_dir()) else { return };
        let (_, dir) = pod.end();
        let mut objects = rendered.objects.clone();
        let deployment = objects.iter_mut().find(|object| object["kind"] == "Deployment").expect("a Deployment");
        deployment["spec"]["template"] = offline;
        let mut pod = Pod::start(&Rendered { objects, notes: String::new() }, dir).expect("it ran before");
        let shown = pod.exec("broker", &["attache", "state", "show"]).expect("what is in it");
        assert!(shown.contains("instance.key"), "{shown}");
        let archive = pod.exec("broker", &["sh", "-c", "tar -C /var/lib/attache/state -czf - default | tar -tzf -"]);
        assert!(archive.expect("a copy").contains("default/attache.db"));
    }
}
