//! The running Attachés on which cases are tried, each of them once for all of its cases.

use std::net::SocketAddr;

use attache_broker::envoy::{Shape, Version, process};
use attache_core::policy::Policy;
use attache_tests::ca::Leaf;
use attache_tests::stack::Plan;
use attache_tests::table::{self, Inside, Row, Way};
use attache_tests::{Attache, Ca, Stack, Upstream, ca, envoy, util};

use crate::case::{At, Case, Ending};
use crate::doors;
use crate::provider::Provider;
use crate::rows;
use crate::values::{Known, secret_of};

/// The limit of a body that is read before a decision, in bytes.
const LIMIT: usize = 16 << 10;

/// Credentials beside the standard ones, each with the rules of its host, all of the session `asks`.
const SPEAKS: [(&str, &str); 4] = [
    (
        "speaks",
        "{git: [/git/*], graphql: {paths: [/graphql]}, grpc: [shop.v1.Stock/Get, shop.v1.Prices/*], \
         mcp: {paths: [/mcp], tools: [search]}, \
         reads: [{method: POST, path: /rpc, body: {json_rpc: {methods: [eth_call]}}}]}",
    ),
    ("searches", "{like: [elasticsearch, npm, webdav]}"),
    ("stores", "{like: [s3]}"),
    ("chats", "{like: [slack]}"),
];

/// A case that did not end as it says, or a way on which it did.
pub struct Ran {
    pub case: String,
    pub way: String,
    pub broken: Option<String>,
}

/// Servers that cannot prove their name, each at a host of its own.
async fn impostors(ca: &Ca) -> Vec<(&'static str, Upstream)> {
    let stranger = Ca::new();
    let leaves = [
        ("expired", ca.issue_expired(&["expired.extra.test"])),
        ("selfsigned", Leaf::self_signed(&["selfsigned.extra.test"])),
        ("misnamed", ca.issue(&["another.extra.test"])),
        ("unknown", stranger.issue(&["unknown.extra.test"])),
    ];
    let mut servers = Vec::new();
    for (name, leaf) in leaves {
        servers.push((name, Upstream::tls(ca, &["replaced"]).certificate(leaf).start().await));
    }
    servers
}

/// A broker that is waited for on a busy machine, too: what it does not answer in time is another file's to test.
fn patient(plan: Plan) -> Plan {
    plan.limit("callout_timeout: 10s").edit(table::without_lingering)
}

/// What gateway and forward proxy have in common.
fn common(plan: Plan, ca: &Ca, servers: &[(&'static str, Upstream)]) -> Plan {
    let mut plan = patient(plan).limit(&format!("body_limit: '{LIMIT}'"));
    let mut names: Vec<&str> = Vec::new();
    for (name, access) in SPEAKS {
        let yaml = format!(
            "{{source: {{file: {name}}}, inject: bearer, agent_env: {{{}: placeholder}}, \
             destinations: [{{host: {name}.extra.test, access: {access}, upstream: DIAL}}]}}",
            name.to_uppercase()
        );
        plan = plan.credential(name, &secret_of(name), &yaml);
        names.push(name);
    }
    for (name, server) in servers {
        let yaml = format!(
            "{{source: {{file: {name}}}, inject: bearer, agent_env: {{{}: placeholder}}, destinations: \
             [{{host: {name}.extra.test, upstream: {{address: '{}', ca_file: {}}}}}]}}",
            name.to_uppercase(),
            server.addr(),
            ca.pem_path().display()
        );
        plan = plan.credential(name, &secret_of(name), &yaml);
        names.push(name);
    }
    let (speak, prove) = names.split_at(SPEAKS.len());
    plan.session(&format!("{{name: asks, credentials: [{}], access_mode: read-only}}", speak.join(", ")))
        .session(&format!("{{name: trusts, credentials: [{}]}}", prove.join(", ")))
}

/// Hosts of destinations.
fn hosts(stack: &Stack<Attache>) -> Vec<String> {
    let credentials = stack.config.credentials.iter();
    credentials.flat_map(|credential| &credential.destinations).map(|one| one.host.to_string()).collect()
}

fn rows_of(cases: &[Case], stack: &Stack<Attache>, known: &Known) -> Vec<Row> {
    let hosts = hosts(stack);
    cases.iter().map(|case| rows::row(case, known, &hosts)).collect()
}

/// Makes all requests on a stack, and holds everything against everything.
async fn tried(stack: &Stack<Attache>, rows: &[Row], inside: Option<&Inside>) -> Vec<Ran> {
    let vms = stack.vms().await;
    let (held, broken) = table::attempt_all(stack, rows, inside).await;
    let ways = |row: &Row| row.promises.iter().map(|(way, _)| *way).collect::<Vec<_>>();
    let straight = |way: &Way| (*way == Way::Tls) == inside.is_some();
    let mut ran = Vec::new();
    for row in rows {
        for way in ways(row).into_iter().filter(straight) {
            let why = broken.iter().find(|broken| broken.row == row.name && broken.way == way);
            ran.push(Ran {
                case: row.name.clone(),
                way: way.word().into(),
                broken: why.map(|broken| format!("{:?}, but {}", broken.promise, broken.what)),
            });
        }
    }
    // What ended otherwise is told first: then nothing adds up.
    if broken.is_empty() {
        assert_eq!(stack.vms().await, vms, "a VM was replaced");
        held.adds_up(stack).await;
        held.is_witnessed(stack).await;
    }
    ran
}

/// The gateway, over HTTP/1 and HTTP/2.
pub async fn gateway(cases: &[Case]) -> Vec<Ran> {
    let ca = Ca::new();
    let servers = impostors(&ca).await;
    let stack = common(Plan::default(), &ca, &servers).start().await;
    watch(&stack, &servers);
    let known = Known::of(&stack);
    tried(&stack, &rows_of(cases, &stack, &known), None).await
}

fn watch(stack: &Stack<Attache>, servers: &[(&'static str, Upstream)]) {
    servers.iter().for_each(|(name, server)| stack.site.oracle.upstream(name, server, &[]));
}

/// Whether this Envoy can be a forward proxy.
pub fn has_proxy() -> bool {
    process::version(&envoy::binary()).expect("an Envoy") >= Version::oldest(Shape::ForwardProxy)
}

/// The forward proxy: the same requests in tunnels that end TLS at the proxy, and what its door itself is asked.
pub async fn proxy(cases: &[Case]) -> Vec<Ran> {
    if !has_proxy() {
        return Vec::new();
    }
    let ca = Ca::new();
    let servers = impostors(&ca).await;
    let stack = common(Plan::default().forward_proxy(), &ca, &servers).start().await;
    watch(&stack, &servers);
    let known = Known::of(&stack);
    let trusted = stack.dir().join("trusted.pem");
    let exported = stack.broker.cli(&["ca", "export"]);
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    std::fs::write(&trusted, exported.stdout).expect("what is to be trusted");
    let inside = Inside { tls: ca::client_trusting(&trusted, &["http/1.1"]) };
    tried(&stack, &rows_of(cases, &stack, &known), Some(&inside)).await
}

/// A gateway that lets pass what no destination names; and, when it is done, the doors of its broker.
pub async fn unmatched(cases: &[Case], knocks: &[Case]) -> Vec<Ran> {
    let door = SocketAddr::from(([127, 0, 0, 1], util::free_port()));
    let plan = patient(Plan::default()).extra("unmatched: pass\n");
    let stack = plan.data_plane(door).health().start().await;
    let known = Known::of(&stack);
    let mut ran = tried(&stack, &rows_of(cases, &stack, &known), None).await;
    for case in knocks {
        let broken = doors::knock(case, &stack, &known).await.err();
        ran.push(Ran { case: format!("{}/{}", case.class, case.name), way: "h1".into(), broken });
    }
    stack.site.oracle.reconcile().await;
    ran
}

/// A gateway that believes an OpenID provider.
pub async fn identity(cases: &[Case]) -> Vec<Ran> {
    let provider = Provider::start().await;
    let plan = patient(Plan::default()).missing_placeholder("inject");
    let plan = plan.session("{name: worker, credentials: [github, custom]}").extra(&provider.config());
    let stack = plan.start().await;
    let known = Known { issuer: provider.issuer(), ..Known::of(&stack) };
    let mut rows = Vec::new();
    for case in cases {
        let jwt = provider.jwt(case, &known);
        if case.ends.iter().any(|(_, ending)| *ending == Ending::Promise(table::Promise::Served)) && !jwt.is_empty() {
            stack.broker.evidence().jwt("worker", &jwt);
        }
        rows.extend(rows_of(std::slice::from_ref(case), &stack, &Known { jwt, ..known.clone() }));
    }
    tried(&stack, &rows, None).await
}

/// What is only decided.
pub fn decisions(cases: &[Case]) -> Vec<Ran> {
    let dir = util::temp_dir();
    let path = dir.path().join("attache.yaml");
    let yaml = "state_dir: state\ncredentials:\n  github: {preset: github}\n  lab:\n    source: {env: LAB}\n    inject: bearer\n    \
                destinations: [{host: lab.test, plaintext: true}]\nunmatched: pass\n";
    std::fs::write(&path, yaml).expect("a config");
    let config = attache_broker::config::Config::load(Some(&path), &Default::default(), &|_| None);
    let config = config.unwrap_or_else(|errors| panic!("{errors}"));
    let policy = Policy::compile(config.policy()).expect("a policy");
    let ran = cases.iter().map(|case| Ran {
        case: format!("{}/{}", case.class, case.name),
        way: "decision".into(),
        broken: doors::decide(case, &policy, &Known::default()).err(),
    });
    ran.collect()
}

/// Runs cases where each belongs.
pub async fn run(cases: &[Case]) -> Vec<Ran> {
    let at = |places: &[At]| cases.iter().filter(|case| places.contains(&case.at)).cloned().collect::<Vec<_>>();
    let (straight, tunnelled) = (at(&[At::Gateway]), at(&[At::Gateway, At::Proxy]));
    let (unmatched, knocks) = (at(&[At::Unmatched]), at(&[At::Filters, At::Operators, At::Probes]));
    let (identity, decided) = (at(&[At::Identity]), at(&[At::Decision]));
    // Two at a time: a machine has two cores.
    let of_gateways = async {
        let mut ran = Vec::new();
        if !straight.is_empty() {
            ran.extend(gateway(&straight).await);
        }
        if !unmatched.is_empty() || !knocks.is_empty() {
            ran.extend(self::unmatched(&unmatched, &knocks).await);
        }
        if !identity.is_empty() {
            ran.extend(self::identity(&identity).await);
        }
        ran
    };
    let of_proxy = async { if tunnelled.is_empty() { Vec::new() } else { proxy(&tunnelled).await } };
    let (mut ran, of_proxy) = tokio::join!(of_gateways, of_proxy);
    ran.extend(of_proxy);
    if !decided.is_empty() {
        ran.extend(decisions(&decided));
    }
    ran
}
