//! One worker from its start to a warm request: the callbacks that Envoy makes, in its order, and a broker's answers.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use wasmi::{Config, Engine, Instance, Module, Store, WasmParams, WasmResults};

use super::host::Traffic;
use super::host::{self, CALLOUT, CALLOUT_BODY, CONFIGURATION, Callout, Host, Lines, REQUEST, RESPONSE, RESPONSE_BODY};
use super::metered::Metered;
use crate::rules::{HOST, LOAD_HEADERS, LOAD_PATH, Rules};
use crate::upstream;

const ROOT: u32 = 1;
/// What the ABI calls to go on.
const CONTINUE: u32 = 0;
const INSTANCE: &str = "bench";
const VERSION: &str = "v1";
/// So much time passes from one request to the next, in milliseconds.
const APART: u64 = 1;
/// After so many of them the root looks around.
const BETWEEN_TICKS: u32 = 50;

/// A worker that has a policy and a grant.
pub struct Scene {
    store: Store<Host>,
    instance: Instance,
    counters: BTreeMap<String, String>,
    rules: Rules,
    last: u32,
}

/// What one request has cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// WebAssembly instructions.
    pub instructions: u64,
    /// What went between proxy and VM.
    pub traffic: Traffic,
    /// Instructions by the function that they stand in; those that executed none are not there.
    pub functions: BTreeMap<String, u64>,
}

impl Scene {
    /// Starts a worker of this module, and takes it through one request that asks for a grant.
    pub fn start(wasm: &[u8]) -> Result<Self> {
        let Metered { wasm, counters } = Metered::new(wasm)?;
        let engine = Engine::new(&Config::default());
        let module = Module::new(&engine, &wasm)?;
        let mut store = Store::new(&engine, Host::default());
        let instance = host::linker(&engine, &module)?.instantiate_and_start(&mut store, &module)?;
        host::attach(&mut store, instance)?;
        // The same placeholders and secrets in every run.
        fastrand::seed(1);
        let mut scene = Self { store, instance, counters, rules: Rules::random(), last: ROOT };
        scene.begin()?;
        Ok(scene)
    }

    fn begin(&mut self) -> Result<()> {
        self.enter::<_, ()>("_initialize", ())?;
        self.enter::<_, ()>("proxy_on_context_create", (ROOT, 0u32))?;
        let plugin = json!({
            "role": "gate", "instance": INSTANCE, "broker_cluster": "attache", "stale_after_ms": 10_000,
            "callout_timeout_ms": 2_000, "body_limit": 65_536, "guarded": true,
        });
        let size = self.put(CONFIGURATION, plugin.to_string().into_bytes());
        let configured: u32 = self.enter("proxy_on_configure", (ROOT, size))?;
        ensure!(configured == 1, "the filter takes no configuration: {:?}", self.host().logged);
        // Policy and feed, in whatever order it asks for them.
        for _ in 0..3 {
            self.look_around()?;
        }
        ensure!(!self.request(true)?, "the first request asks for no grant");
        self.host().resumed = false;
        self.look_around()?;
        ensure!(self.host().resumed, "the first request is not let go: {:?}", self.host().logged);
        self.answer()?;
        self.end()
    }

    /// Takes one more request through; what it costs.
    pub fn warm(&mut self) -> Result<Cost> {
        if self.last.is_multiple_of(BETWEEN_TICKS) {
            self.look_around()?;
        }
        self.host().elapsed += APART;
        self.host().traffic = Traffic::default();
        let before = self.counted()?;
        ensure!(self.request(false)?, "a warm request is held: {:?}", self.host().logged);
        self.answer()?;
        self.end()?;
        let after = self.counted()?;
        let functions: BTreeMap<String, u64> = after
            .into_iter()
            .map(|(name, count)| {
                let since = count - before.get(&name).copied().unwrap_or_default();
                (name, since)
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        Ok(Cost { instructions: functions.values().sum(), traffic: self.host().traffic.clone(), functions })
    }

    /// A request's head; whether it goes on.
    fn request(&mut self, cold: bool) -> Result<bool> {
        self.last += 1;
        let credential = format!("Bearer {}", self.rules.placeholder(false));
        let id = format!("{:08x}-65d0-4bd1-9c5e-0d9f4c1c6f2b", self.last);
        let mut lines = vec![(":authority", HOST), (":path", LOAD_PATH), (":method", "GET"), (":scheme", "http")];
        lines.extend(LOAD_HEADERS);
        lines.extend([
            ("authorization", &*credential),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-envoy-internal", "true"),
            ("x-request-id", &*id),
        ]);
        let lines = owned(&lines);
        let count = lines.len() as u32;
        self.host().maps.insert(REQUEST, lines);
        self.enter::<_, ()>("proxy_on_context_create", (self.last, ROOT))?;
        let action: u32 = self.enter("proxy_on_request_headers", (self.last, count, 1u32))?;
        if !cold {
            self.is_injected()?;
        }
        Ok(action == CONTINUE)
    }

    /// The upstream's answer, as it comes over HTTP/1: its end comes after all of its body.
    fn answer(&mut self) -> Result<()> {
        self.is_injected()?;
        let body = upstream::answer_body();
        let length = body.len().to_string();
        let lines = owned(&[
            (":status", "200"),
            ("content-type", "application/json"),
            ("content-length", &length),
            ("date", "Tue, 14 Nov 2023 22:13:20 GMT"),
            ("x-envoy-upstream-service-time", "1"),
        ]);
        let (context, count) = (self.last, lines.len() as u32);
        self.host().maps.insert(RESPONSE, lines);
        let mut goes_on: u32 = self.enter("proxy_on_response_headers", (context, count, 0u32))?;
        for (piece, last) in [(body.to_vec(), 0u32), (Vec::new(), 1)] {
            let size = self.put(RESPONSE_BODY, piece);
            goes_on |= self.enter::<_, u32>("proxy_on_response_body", (context, size, last))?;
        }
        ensure!(goes_on == CONTINUE, "the answer is held: {:?}", self.host().logged);
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let context = self.last;
        self.enter("proxy_on_delete", context)
    }

    fn is_injected(&mut self) -> Result<()> {
        let wanted = self.rules.authorization();
        let lines = self.host().maps.get(&REQUEST).cloned().unwrap_or_default();
        let found: Vec<_> = lines.iter().filter(|(name, _)| name == b"authorization").collect();
        ensure!(found.len() == 1 && found[0].1 == wanted.as_bytes(), "the credential is not in the request");
        Ok(())
    }

    /// The root's tick, and the broker's answers to what it asks for then.
    fn look_around(&mut self) -> Result<()> {
        self.host().elapsed += 100;
        self.enter::<_, ()>("proxy_on_tick", ROOT)?;
        for callout in std::mem::take(&mut self.host().callouts) {
            let Some(answer) = self.answer_of(&callout)? else { continue };
            let lines = owned(&[(":status", "200"), ("content-type", "application/json")]);
            let count = lines.len() as u32;
            self.host().maps.insert(CALLOUT, lines);
            let size = self.put(CALLOUT_BODY, answer.to_string().into_bytes());
            self.enter::<_, ()>("proxy_on_http_call_response", (ROOT, callout.token, count, size, 0u32))?;
        }
        Ok(())
    }

    /// What a broker answers; nothing yet to who waits for changes.
    fn answer_of(&self, callout: &Callout) -> Result<Option<Value>> {
        let path = callout.path.split('?').next().unwrap_or_default();
        Ok(match path {
            attache_core::wire::POLICY_PATH => Some(self.policy()),
            attache_core::wire::CHANGES_PATH if callout.path.contains("epoch=&") => {
                Some(json!({"epoch": "1", "cursor": 1, "policy": VERSION, "changes": []}))
            }
            attache_core::wire::GRANTS_PATH => Some(self.grant(&serde_json::from_slice(&callout.body)?)),
            attache_core::wire::AUDIT_PATH => {
                let last = callout.body.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
                let record: Value = serde_json::from_slice(last.context("records without a record")?)?;
                Some(json!({"acked": record["seq"]}))
            }
            _ => None,
        })
    }

    fn policy(&self) -> Value {
        let destinations: Vec<Value> = self
            .rules
            .destinations()
            .enumerate()
            .map(|(number, destination)| {
                let binding = json!({
                    "credential": format!("bench_{number}"), "service": format!("bench_{number}"),
                    "paths": [destination.prefix],
                });
                json!({
                    "id": format!("{}:80", destination.host), "authorities": [destination.host],
                    "route_prefix": format!("/{}", destination.host),
                    "cluster": format!("cluster_{number}"), "plaintext": true, "bindings": [binding],
                })
            })
            .collect();
        json!({"version": VERSION, "instance": INSTANCE, "unmatched": "deny", "destinations": destinations})
    }

    fn grant(&self, request: &Value) -> Value {
        let authorization = self.rules.authorization();
        let secret = authorization.strip_prefix("Bearer ").unwrap_or_default();
        json!({"nonce": request["nonce"], "granted": {
            "as_of": 1, "session_id": "01HF2Q0Z6X3B1T5V7J9K8M4N2P", "session": "writer", "credential": "bench_0",
            "access_mode": "read-write", "max_unacked_uses": 10_000,
            "lease": {
                "id": "01HF2Q0Z6X3B1T5V7J9K8M4N2Q", "fingerprint": "0123456789abcdef", "ttl_ms": 3_600_000,
                "refresh_after_ms": 1_800_000,
            },
            "injections": [{"header": "authorization", "value": authorization}], "mask": [secret],
        }})
    }

    fn put(&mut self, buffer: u32, bytes: Vec<u8>) -> u32 {
        let size = bytes.len() as u32;
        self.host().buffers.insert(buffer, bytes);
        size
    }

    fn host(&mut self) -> &mut Host {
        self.store.data_mut()
    }

    fn enter<P: WasmParams, R: WasmResults>(&mut self, export: &str, with: P) -> Result<R> {
        *self.host().traffic.entries.entry(export.to_owned()).or_default() += 1;
        let function = self.instance.get_typed_func::<P, R>(&self.store, export);
        let function = function.map_err(|error| anyhow!("{export}: {error}"))?;
        function.call(&mut self.store, with).map_err(|error| anyhow!("{export}: {error}"))
    }

    fn counted(&self) -> Result<BTreeMap<String, u64>> {
        let mut counted = BTreeMap::new();
        for (export, name) in &self.counters {
            let counter = self.instance.get_global(&self.store, export).context("a counter is not there")?;
            let count = counter.get(&self.store).i64().context("a counter of another type")?;
            *counted.entry(name.clone()).or_default() += count as u64;
        }
        Ok(counted)
    }
}

fn owned(lines: &[(&str, &str)]) -> Lines {
    lines.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}
