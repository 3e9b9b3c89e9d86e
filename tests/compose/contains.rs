//! What an agent's container has, and where it gets from there. What must fail is tried from elsewhere, too, where it
//! must succeed: a probe that fails everywhere shows nothing.

use std::collections::BTreeMap;

use crate::engine::HOST_PORT;
use crate::scene::Scene;

/// Those of `HOST/PORT` where somebody accepts a connection from there.
async fn reached(scene: &Scene, service: &str, targets: &[&str]) -> Vec<String> {
    let dial =
        |target: &&str| format!("(timeout 2 bash -c 'exec 3<>/dev/tcp/{target}' 2>/dev/null && echo {target}) &");
    let script = targets.iter().map(dial).collect::<Vec<_>>().join("\n") + "\nwait";
    let mut reached: Vec<_> = scene.inside(service, &script).await.out.lines().map(str::to_owned).collect();
    reached.sort_unstable();
    reached
}

/// Those of the names that lead somewhere from there.
async fn resolved(scene: &Scene, service: &str, names: &[&str]) -> Vec<String> {
    let look = |name: &&str| format!("(getent hosts {name} >/dev/null && echo {name}) &");
    let script = names.iter().map(look).collect::<Vec<_>>().join("\n") + "\nwait";
    let mut resolved: Vec<_> = scene.inside(service, &script).await.out.lines().map(str::to_owned).collect();
    resolved.sort_unstable();
    resolved
}

/// Placeholders, a proxy and certificates, which it cannot change; no secret, no file of the broker's.
pub async fn what_an_agent_has(scene: &Scene) {
    let found = scene
        .inside("agent", "cat /run/attache/agent/*; ls /run/attache/agent; grep attache /proc/mounts; ls /run")
        .await;
    assert!(!found.out.contains(&scene.secret) && !found.out.contains("PRIVATE KEY"), "{}", found.out);
    assert!(found.out.contains("GITHUB_TOKEN='ghp_ATTACHE"), "{}", found.out);
    let has_ca = scene.inside("agent", "test -s /run/attache/agent/ca.pem").await.status.success();
    assert_eq!(has_ca, scene.profile == "forward-proxy");
    let written = scene.inside("agent", "echo x >>/run/attache/agent/env.sh || rm -f /run/attache/agent/env.sh").await;
    assert!(!written.status.success(), "{written:?}");
    assert!(written.err.contains("Read-only"), "{written:?}");
}

/// The proxy, and nobody else.
pub async fn where_an_agent_gets(scene: &Scene) {
    // Outside: a neighbour of the proxy's. The machine: the address by which the containers of `egress` know it, and
    // those that it would have in the agents' network.
    let outside = scene.address("upstream", "egress").await;
    let machine = gateway(scene, "egress").await;
    let own = scene.address("agent", "agents").await;
    let (own, _) = own.rsplit_once('.').expect("an address");
    let proxy_outside = scene.address(scene.profile, "egress").await;
    let (upstream, service) = (format!("{outside}/443"), format!("{machine}/{HOST_PORT}"));
    let (proxy, proxy_outside) = ("envoy/3030".to_owned(), format!("{proxy_outside}/3030"));
    assert_eq!(reached(scene, "broker", &[&upstream, &service, &proxy_outside]).await.len(), 3, "they are there");
    let all = [upstream, service, proxy_outside, format!("{own}.1/{HOST_PORT}"), format!("{own}.254/{HOST_PORT}")];
    let by_name = ["upstream/443", "api.github.com/443"];
    let all: Vec<_> = all.iter().map(String::as_str).chain(by_name).chain([proxy.as_str()]).collect();
    assert_eq!(reached(scene, "agent", &all).await, [proxy.as_str()]);
    let names = ["upstream", "api.github.com", "broker", "envoy"];
    assert_eq!(resolved(scene, "broker", &names).await, ["api.github.com", "broker", "upstream"]);
    assert_eq!(resolved(scene, "agent", &names).await, ["envoy"]);
    let six = scene.inside("agent", "cat /proc/net/if_inet6 2>/dev/null").await.out;
    assert!(six.trim().is_empty(), "{six}");

    // The broker listens nowhere; Envoy where agents call, and not on its admin.
    assert_eq!(listening(scene, "broker").await, Vec::<u16>::new());
    assert_eq!(listening(scene, scene.profile).await, [3030]);

    names_lead_nowhere(scene).await;
    not_by_way_of_the_proxy(scene, &outside, &machine).await;
    not_by_routes_of_its_own(scene, &outside, &machine).await;
}

/// No name is asked for outside: a question carries data out as well as an answer would.
async fn names_lead_nowhere(scene: &Scene) {
    let (theirs, ours) =
        (format!("agent-{}.example.com", scene.profile), format!("broker-{}.example.com", scene.profile));
    assert!(!scene.inside("agent", &format!("getent hosts {theirs}")).await.status.success());
    scene.inside("broker", &format!("getent hosts {ours}")).await;
    let asked = scene.engine.host_log();
    assert!(asked.contains(&ours), "the broker's questions reach the machine's server: {asked}");
    assert!(!asked.contains(&theirs), "{asked}");
}

/// What is asked of the proxy itself, for a way to others.
async fn not_by_way_of_the_proxy(scene: &Scene, outside: &str, machine: &str) {
    let admin = "/run/attache/envoy/own/envoy.sock";
    let has_admin = scene.inside(scene.profile, &format!("test -S {admin}")).await;
    assert!(has_admin.status.success(), "{has_admin:?}");
    for target in [
        format!("http://{machine}:{HOST_PORT}/"),
        format!("http://{outside}:443/"),
        "http://envoy:3030/config_dump".into(),
    ] {
        let script = format!(
            ". /run/attache/agent/env.sh; curl -sS -m 5 -o /dev/null -w '%{{http_code}}' --noproxy '' \
             -x \"http://attache:$ATTACHE_SESSION_TOKEN@envoy:3030\" {target}"
        );
        let said = scene.inside("agent", &script).await;
        assert!(said.out.starts_with('4'), "{target}: {said:?}");
    }
    assert!(!scene.engine.host_log().contains(&format!("called by {}", scene.address(scene.profile, "egress").await)));
}

/// A neighbour who may change routes sends packets by way of Envoy's namespace, which forwards none, and of the
/// machine, which lets none of that network out, and has no way back to it.
async fn not_by_routes_of_its_own(scene: &Scene, outside: &str, machine: &str) {
    let proxy = scene.address(scene.profile, "agents").await;
    let targets = [format!("{proxy}/3030"), format!("{machine}/{HOST_PORT}"), format!("{outside}/443")];
    let targets: Vec<_> = targets.iter().map(String::as_str).collect();
    for via in [proxy.as_str(), machine] {
        let script = format!("ip route replace {machine}/32 dev eth0 && ip route replace {outside}/32 via {via}");
        let routed = scene.inside("hostile", &script).await;
        assert!(routed.status.success(), "{routed:?}");
        assert_eq!(reached(scene, "hostile", &targets).await, targets[..1], "{via}");
        // Nothing has to come back for data to be out.
        for (from, word) in [("hostile", format!("hostile-by-{via}")), ("broker", format!("broker-after-{via}"))] {
            let sent = scene.inside(from, &format!("echo {word} >/dev/udp/{outside}/53")).await;
            assert!(sent.status.success(), "{sent:?}");
        }
        let arrived = scene.arrives("UDP", &format!("broker-after-{via}")).await;
        assert!(!arrived.iter().any(|seen| seen["path"] == format!("hostile-by-{via}")), "{arrived:?}");
    }
    // Docker's own rules stop the first way on some machines; this stops it on all.
    let forwards = scene.inside(scene.profile, "cat /proc/sys/net/ipv4/ip_forward").await;
    assert_eq!(forwards.out, "0\n");
}

/// The machine's address in a network.
async fn gateway(scene: &Scene, network: &str) -> String {
    let address = of_network(scene, network, "{{(index .IPAM.Config 0).Gateway}}").await;
    assert!(address.contains('.'), "{address}");
    address
}

async fn of_network(scene: &Scene, network: &str, what: &str) -> String {
    let name = format!("{}_{network}", scene.project());
    scene.engine.docker(&["network", "inspect", "--format", what, &name]).await.out.trim().to_owned()
}

/// TCP ports on which something in a container listens, but for the engine's resolver.
async fn listening(scene: &Scene, service: &str) -> Vec<u16> {
    let table = scene.inside(service, "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null").await.out;
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listeners =
        rows.filter(|row| row.get(3) == Some(&"0A")).filter_map(|row| row.get(1)?.rsplit_once(':').map(own));
    // 127.0.0.11, as the kernel writes it.
    let mut ports: Vec<_> = listeners.filter(|(address, _)| address != "0B00007F").map(|(_, port)| port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn own((address, port): (&str, &str)) -> (String, u16) {
    (address.to_owned(), u16::from_str_radix(port, 16).expect("a port"))
}

/// State is the broker's alone, its sockets are whose they are for, and none of them runs as root or may write to
/// what it was started from.
pub async fn who_mounts_what(scene: &Scene) {
    let outfit = format!("outfit-{}", scene.profile);
    let services = ["broker", scene.profile, &outfit, "agent"];
    let mut mounted = BTreeMap::<String, Vec<&str>>::new();
    for service in services {
        let found = scene.inspect(service).await;
        for mount in found["Mounts"].as_array().expect("mounts").iter().filter(|mount| mount["Type"] == "volume") {
            let name = mount["Name"].as_str().expect("a name").trim_start_matches(&format!("{}_", scene.project()));
            mounted.entry(name.to_owned()).or_default().push(service);
        }
        let host = &found["HostConfig"];
        assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]), "{service}");
        assert!(host["SecurityOpt"].to_string().contains("no-new-privileges"), "{service}: {host}");
        assert_ne!(host["Privileged"], true, "{service}");
        assert_eq!(host["PortBindings"], serde_json::json!({}), "{service}");
        if service != "agent" {
            assert_eq!(host["ReadonlyRootfs"], true, "{service}");
            assert_eq!(found["Config"]["User"], "101:101", "{service}");
        }
    }
    let expected = [
        ("agent", vec![outfit.as_str(), "agent"]),
        ("control", vec!["broker", &outfit]),
        ("envoy", vec!["broker", scene.profile]),
        ("state", vec!["broker"]),
    ];
    // An engine that is up to date asks nobody for a name in an internal network; this holds on others, too.
    assert_eq!(scene.inspect("agent").await["HostConfig"]["Dns"], serde_json::json!(["127.0.0.1"]));
    // Without an address of the machine's, nothing comes back from outside; this is why nothing leaves.
    assert_eq!(of_network(scene, "agents", "{{.Internal}}").await, "true");
    assert_eq!(mounted, expected.map(|(name, who)| (name.to_owned(), who)).into());
}
