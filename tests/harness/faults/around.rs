//! What stands around the real broker and goes wrong: its clock, its disk, its certificate, its log, an OpenBao.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::Fault;
use crate::clock::Clock;
use crate::failing_disk::FailingDisk;
use crate::openbao::Bao;
use crate::pki::{self, Volume};
use crate::stack::Plan;
use crate::{Ca, util};

/// Where OpenBao has the credential whose every use is announced.
pub(super) const IN_OPENBAO: &str = "{openbao: {path: secret/data/pay, field: key}}";

/// What a fault needs, and no more.
pub(super) struct Around {
    pub clock: Option<Clock>,
    pub disk: Option<FailingDisk>,
    pub identity: Option<Identity>,
    pub vault: Option<Vault>,
}

impl Around {
    pub async fn of(fault: Fault, secret: &str) -> Self {
        let asked_each = match fault {
            Fault::Sealed | Fault::TokenRevoked => Some("1s"),
            // A new secret is found because the upstream rejects the one before, and for nothing else.
            Fault::SecretRejected => Some("1h"),
            _ => None,
        };
        let vault = match asked_each {
            Some(refresh) => Some(Vault::with(secret, refresh).await),
            None => None,
        };
        Self {
            clock: matches!(fault, Fault::ClockJumps(_)).then(Clock::right),
            disk: matches!(fault, Fault::DiskReadOnly | Fault::DiskFailsToSync).then(FailingDisk::working),
            identity: matches!(fault, Fault::StrangeCertificate).then(Identity::known),
            vault,
        }
    }

    /// A plan in which all of this stands.
    pub async fn within(&self, mut plan: Plan) -> Plan {
        if let Some(clock) = &self.clock {
            plan = plan.clock(clock);
        }
        for (name, value) in self.disk.iter().flat_map(|disk| disk.env()) {
            plan = plan.env(&name, &value);
        }
        if let Some(identity) = &self.identity {
            plan = plan.door(&identity.written());
        }
        match &self.vault {
            Some(vault) => vault.within(plan).await,
            None => plan,
        }
    }
}

/// Who the broker is to Envoy: mutual TLS, by a certificate in files.
pub(super) struct Identity {
    mesh: Ca,
    stranger: Ca,
    door: SocketAddr,
    broker: Volume,
    envoy: Volume,
}

impl Identity {
    fn known() -> Self {
        let (mesh, stranger) = (Ca::new(), Ca::new());
        let broker = Volume::of(&pki::broker_leaf(&mesh), mesh.pem());
        let envoy = Volume::of(&pki::client_leaf(&mesh, &[pki::GATEWAY]), mesh.pem());
        let door = SocketAddr::from(([127, 0, 0, 1], util::free_port()));
        Self { mesh, stranger, door, broker, envoy }
    }

    /// `listen.data_plane`, as a config writes it.
    fn written(&self) -> String {
        let Self { door, broker, envoy, .. } = self;
        let [certificate, key, ca] = ["tls.crt", "tls.key", "ca.crt"].map(|name| broker.file(name));
        let files = ["tls.crt", "tls.key", "ca.crt"].map(|name| envoy.file(name));
        let [own, own_key, trusted] = files;
        format!(
            "{{address: '{door}', tls: {{certificate: {certificate}, key: {key}, client_ca: {ca}}}, peers: [{{id: \
             '{}'}}], envoy: {{broker_id: '{}', files: {{certificate: {own}, key: {own_key}, ca: {trusted}}}}}}}",
            pki::GATEWAY,
            pki::BROKER
        )
    }

    /// The same names, signed by somebody else.
    pub fn becomes_strange(&self) {
        self.broker.swap(&pki::broker_leaf(&self.stranger), self.mesh.pem());
    }

    pub fn becomes_known(&self) {
        self.broker.swap(&pki::broker_leaf(&self.mesh), self.mesh.pem());
    }
}

/// A real OpenBao that has a secret, and a broker's way in.
pub(super) struct Vault {
    pub bao: Bao,
    refresh: &'static str,
    versions: AtomicUsize,
}

impl Vault {
    async fn with(secret: &str, refresh: &'static str) -> Self {
        let bao = Bao::start().await.expect("an OpenBao: scripts/openbao installs it");
        bao.kv().await;
        bao.put("pay", "key", secret).await;
        bao.policy("reader", "path \"secret/data/*\" { capabilities = [\"read\"] }").await;
        Self { bao, refresh, versions: AtomicUsize::new(1) }
    }

    async fn within(&self, plan: Plan) -> Plan {
        let role = self.bao.approle(json!({"token_policies": ["reader"], "token_ttl": "1h"})).await;
        let secret_id = self.bao.secret_id(json!({})).await;
        let auth = format!("{{approle: {{role_id: '{role}', secret_id: {{env: BAO_SECRET_ID}}}}}}");
        let source = self.bao.source(&auth, "").replace("refresh: 1s", &format!("refresh: {}", self.refresh));
        plan.extra(&source).env("BAO_SECRET_ID", &secret_id)
    }

    /// Another secret in the place of the last.
    pub async fn another(&self) -> String {
        let version = self.versions.fetch_add(1, Ordering::Relaxed) + 1;
        let secret = format!("sk_the-key-of-the-till-number-{version}-0123456789");
        self.bao.put("pay", "key", &secret).await;
        secret
    }

    /// Whoever has come in by the role gets no further.
    pub async fn revoke_tokens(&self) {
        self.bao.done("PUT", "sys/leases/revoke-prefix/auth/approle", Value::Null).await;
    }

    /// Those that are in, by what OpenBao calls their tokens.
    pub async fn accessors(&self) -> BTreeSet<String> {
        let said = self.bao.call("LIST", "auth/token/accessors", &self.bao.root, None).await;
        let keys = said.body["data"]["keys"].as_array().cloned().unwrap_or_default();
        keys.iter().filter_map(|key| Some(key.as_str()?.to_owned())).collect()
    }

    pub async fn is_sealed(&self) -> bool {
        self.bao.call("GET", "sys/seal-status", "", None).await.body["sealed"] == true
    }
}

/// Writes half of a record, as a crash leaves it.
pub(super) fn tear(log: &Path) {
    let mut log = OpenOptions::new().append(true).open(log).expect("the log");
    log.write_all(br#"{"timestamp":"2026-"#).expect("half a record");
}
