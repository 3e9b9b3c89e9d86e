//! Attaché's broker: it knows the secrets and who may use them, and tells Envoy's filter.
//!
//! A secret leaves it through one door, the answer to `POST /v1/grants`, after the record of it is
//! durable; a rotation of the config shows it to whoever makes the next one. It never logs one, writes
//! none to disk but what a rotation has made, and never speaks to an agent.
//!
//! `start_in` is the whole of it, top to bottom.
#![forbid(unsafe_code)]

pub mod api;
pub mod audit;
pub mod ca;
pub mod changes;
pub mod cli;
pub mod clock;
pub mod collector;
pub mod config;
pub mod doctor;
pub mod egress;
pub mod endings;
pub mod envoy;
pub mod fair;
pub mod grants;
pub mod hygiene;
pub mod json;
pub mod leases;
pub mod ledger;
pub mod meters;
pub mod mutual_tls;
pub mod oidc;
pub mod operator;
pub mod outstanding;
pub mod private_file;
pub mod publication;
pub mod random;
pub mod rotation;
pub mod sds;
pub mod seal;
pub mod sessions;
pub mod sources;
pub mod state_dir;
pub mod store;
pub mod telemetry;
pub mod traces;
pub mod tunnels;
pub mod witness;

use api::control::Control;
use api::data_plane::DataPlane;
use api::entrance::Admission;
use api::probes::Probes;
use api::server::{BindError, Socket};
use api::withheld::Withheld;
use api::{Counted, Health, Metrics, Watched};
use attache_core::policy::{Policy, PolicyError};
use audit::export::Exports;
use audit::key::AuditKey;
use audit::{AuditLog, Decision, Kind, Record};
use ca::{Ca, CaError, Mintable};
use changes::Feed;
use clock::Now;
use config::{Config, Endpoint};
use egress::{Egress, OwnListeners};
use grants::Grants;
use leases::{Leases, Renewed};
use ledger::Ledger;
use meters::{Door, GrantMeters};
use mutual_tls::Acceptor;
use oidc::Identities;
use operator::Operator;
use outstanding::Outstanding;
use prometheus_client::metrics::family::Family;
use publication::Publication;
use rotation::{Rotations, With};
use sds::{Bounds, Sds};
use seal::Unlocked;
use sessions::{Session, Sessions};
use sources::{Alarm, Alarms, Environment};
use state_dir::{Runtime, StateDir};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use traces::Traces;
use tunnels::Tunnels;
use witness::Witness;

/// How long exports may take to deliver the end of the log.
const LAST_EXPORTS: Duration = Duration::from_secs(1);

/// How long sources may take to be given back what was leased.
const LAST_LEASES: Duration = Duration::from_secs(3);

/// So many records of what a config has changed wait for the disk together.
const RECORDED_TOGETHER: usize = 1024;

/// Why a broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory.
    #[error(transparent)]
    StateDir(#[from] state_dir::StateDirError),
    /// A file in it.
    #[error(transparent)]
    Private(#[from] private_file::PrivateError),
    /// The audit log's file.
    #[error("audit log: {0}")]
    AuditFile(#[from] audit::FileError),
    /// The key that signs it.
    #[error(transparent)]
    AuditKey(#[from] audit::key::KeyError),
    /// What it says of the lives before cannot be read.
    #[error("audit log: {0}")]
    AuditPast(std::io::Error),
    /// The audit log takes no record.
    #[error(transparent)]
    Audit(#[from] audit::Unavailable),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// The audit log, beside what was noted of it.
    #[error(transparent)]
    Compare(#[from] ledger::CompareError),
    /// The sessions in it.
    #[error(transparent)]
    Sessions(#[from] sessions::SessionError),
    /// A socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificates of the data plane.
    #[error(transparent)]
    Tls(#[from] mutual_tls::TlsError),
    /// The certificate authority.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The keys of identity providers can never be fetched.
    #[error(transparent)]
    Oidc(#[from] oidc::ClientError),
    /// No name can be resolved.
    #[error(transparent)]
    Resolver(#[from] egress::ResolverError),
    /// Nobody can decide by the policy.
    #[error("no filter can run the policy of this config: {0}")]
    Policy(#[from] PolicyError),
    /// How far rotations have got is not known.
    #[error(transparent)]
    Rotation(#[from] rotation::RotationError),
    /// No epoch.
    #[error(transparent)]
    NoRandomness(#[from] random::NoRandomness),
}

/// A broker that runs.
pub struct Running {
    /// Where filters reach it: `ADDRESS:PORT` or `unix:PATH`.
    pub data_plane: String,
    /// The same, when it is a TCP address.
    pub data_plane_address: Option<SocketAddr>,
    /// The runtime announcement, as in the state directory's `runtime.json`.
    pub runtime: Runtime,
    state_dir: Arc<StateDir>,
    audit: Arc<AuditLog>,
    feed: Arc<Feed>,
    outstanding: Arc<Outstanding>,
    leases: Arc<Leases>,
    sessions: Arc<Sessions>,
    ledger: Arc<Ledger>,
    sds: Arc<Sds>,
    exports: JoinSet<()>,
    chores: JoinSet<()>,
    doors: JoinSet<()>,
    stop: watch::Sender<bool>,
    alarms: Arc<Alarms>,
}

/// Starts a broker.
pub async fn start(config: Config, environment: &Environment) -> Result<Running, StartError> {
    let opened = StateDir::unlock(&config, environment).await?;
    start_in(opened, config, environment).await
}

/// Starts a broker, unless it is told to end while it waits for what opens its state directory.
pub async fn start_unless(
    told_to_end: impl Future<Output = ()>,
    config: Config,
    environment: &Environment,
) -> Result<Option<Running>, StartError> {
    let opened = tokio::select! {
        opened = StateDir::unlock(&config, environment) => opened?,
        () = told_to_end => return Ok(None),
    };
    start_in(opened, config, environment).await.map(Some)
}

/// Everything a broker is made of, in the order in which it comes to life.
async fn start_in(
    (state_dir, unlocked): (StateDir, Unlocked),
    config: Config,
    environment: &Environment,
) -> Result<Running, StartError> {
    let now = Now::read();
    let policy = config.policy();
    let out_of_reach = config.out_of_reach();

    let state_dir = Arc::new(state_dir);
    // Before the database: one without the key has lost it.
    let key = AuditKey::open_or_create(state_dir.safe())?;
    let store = Arc::new(Store::open(state_dir.dir()).await?);
    let audit = Arc::new(AuditLog::open(&config.audit, &config.instance, key)?);
    let (path, instance) = (config.audit.path.clone(), &config.instance);
    let exports = Exports::new(&config.audit.export, path, instance, &audit, &state_dir);
    let found = ledger::compare(&store, &config.audit.path, &audit).await?;
    // Before anything of this life is signed: what a signature then covers is told of.
    if let Some(ledger::Mismatch { reason, unnoted }) = &found.told {
        tracing::error!("{reason}");
        let reason = Some(reason.clone());
        audit.append(Record { reason, count: *unnoted, ..Record::new(Kind::Gap, now.wall_ms) }).await?;
    }
    let reason = unlocked.by.as_ref().map(|by| format!("state directory sealed by {by}"));
    audit.append(Record { reason, ..Record::new(Kind::Start, now.wall_ms) }).await?;

    let past = outstanding::Past::read(&config.audit.path, now).map_err(StartError::AuditPast)?;
    let feed = Feed::new(policy.version.clone(), config.limits.stale_after)?;
    let may_be_followed = state_dir.has_lived() && !past.has_no_workers();
    let feed = Arc::new(if may_be_followed { feed.of_another_life() } else { feed });
    let outstanding = Outstanding::new(past, config.limits.stale_after, feed.clone(), audit.clone());
    let outstanding = Arc::new(outstanding);
    let leases = Arc::new(Leases::load(&config, environment, state_dir.key(), feed.clone()).await);
    // Whoever else asks OpenBao has said so by now.
    unlocked.leave().await;
    let identities = Arc::new(Identities::new(&config.oidc)?);
    let (sessions, changed) = Sessions::load(&config, state_dir.key(), store.clone(), now).await?;
    let sessions = Arc::new(sessions);
    let publication = Arc::new(Publication::new(policy.clone(), feed.clone()));
    // Those that operators have made since the config was written.
    sessions.all().iter().filter(|session| session.is_live(now)).for_each(|session| publication.demand(&session.bind));
    if state_dir.has_lived() {
        endings::tell_again(&sessions, &feed, now);
        endings::tell_changed(&changed, &sessions.all(), &feed);
        endings::tell_caps(&config.caps(), &feed);
        if !changed.is_empty() {
            feed.follow(feed.cursor(), "what the config has changed of sessions, on every worker".into());
        }
    }
    let record = |session: &Session| {
        let (kind, decision) =
            if session.ended_ms.is_some() { (Kind::Revoke, Decision::End) } else { (Kind::Mode, Decision::Declare) };
        operator::record(kind, decision, session, now)
    };
    for some in changed.chunks(RECORDED_TOGETHER) {
        let written = audit.append_all(some.iter().map(record).collect()).await;
        written.into_iter().collect::<Result<(), _>>()?;
    }

    let ca = Arc::new(Ca::open(state_dir.clone(), &config, &policy, Some(audit.clone()))?);
    ca.check().await?;
    let sds = Arc::new(Sds::new(ca.clone(), Mintable::of(&policy), Bounds::DEFAULT));

    let ledger = Arc::new(Ledger::new(store.clone(), feed.clone(), audit.clone(), &found));

    let witness = Arc::new(Witness::new(audit.clone(), now));

    let key = state_dir.key();
    let with = With { leases: leases.clone(), feed: feed.clone(), audit: audit.clone(), store: store.clone(), key };
    let rotations = Arc::new(Rotations::resume(&config, environment, with).await?);

    let (filters, acceptor) = match &config.listen.data_plane {
        Endpoint::Tcp(address) => (Socket::tcp(*address).await?, None),
        Endpoint::Unix(path) => (Socket::unix(path)?, None),
        Endpoint::Tls(door) => {
            let acceptor = Arc::new(Acceptor::open(door)?);
            (Socket::tls(door.address, acceptor.clone()).await?, Some(acceptor))
        }
    };
    let health = || Health {
        acceptor: acceptor.clone(),
        audit: audit.clone(),
        witness: witness.clone(),
        leases: leases.clone(),
        rotations: rotations.clone(),
        feed: feed.clone(),
        store: store.clone(),
        state_dir: state_dir.clone(),
        began: now,
    };
    let (traces, spans) = Traces::new(config.spans.as_deref(), &config.instance);
    let span_meters = traces.meters().clone();
    let grants = Grants {
        destinations: grants::by_id(policy.clone()),
        caps: config.caps(),
        strict: config.strict(),
        max_unacked_uses: config.limits.max_unacked_uses,
        sessions: sessions.clone(),
        identities: identities.clone(),
        leases: leases.clone(),
        feed: feed.clone(),
        audit: audit.clone(),
        outstanding: outstanding.clone(),
        meters: GrantMeters::default(),
        traces,
    };
    let probes = match config.listen.health {
        Some(address) => Some(Socket::tcp(address).await?),
        None => None,
    };
    let at = [&Some(&filters), &probes.as_ref()].map(|door| door.and_then(Socket::tcp_address));
    let tunnels = Tunnels {
        policy: Policy::compile(policy.clone())?,
        egress: Egress::new(&config, OwnListeners::new(&config, at))?,
        sessions: sessions.clone(),
        feed: feed.clone(),
        meters: GrantMeters::default(),
    };
    let connections = Family::default();
    let watched = Watched {
        sessions: sessions.clone(),
        leases: leases.clone(),
        feed: feed.clone(),
        audit: audit.clone(),
        outstanding: outstanding.clone(),
        ca: ca.clone(),
        rotations: rotations.clone(),
        sealed: config.seal.is_some(),
        began: now,
    };
    let counted = Counted {
        grants: &grants.meters,
        tunnels: &tunnels.meters,
        spans: &span_meters,
        witness: &witness,
        connections: &connections,
    };
    let metrics = Arc::new(Metrics::new(watched, &counted));
    let admission = match &acceptor {
        Some(_) => Admission::Certificate,
        None => Admission::Token(state_dir.token().clone()),
    };
    let data_plane = DataPlane {
        workers: mutual_tls::Workers::default(),
        sessions: sessions.clone(),
        policy: publication.clone(),
        grants,
        leases: leases.clone(),
        tunnels,
        feed: feed.clone(),
        audit: audit.clone(),
        witness: witness.clone(),
        sds: sds.clone(),
        health: health(),
        metrics: metrics.clone(),
    };
    let operator = Arc::new(Operator {
        sessions: sessions.clone(),
        leases: leases.clone(),
        feed: feed.clone(),
        policy: publication,
        audit: audit.clone(),
        stale_after: config.limits.stale_after,
    });
    let (stop, stopped) = watch::channel(false);
    let operators = Socket::unix(&config.listen.control)?;
    let control = Control {
        operator: operator.clone(),
        sessions: sessions.clone(),
        leases: leases.clone(),
        rotations: rotations.clone(),
        store: store.clone(),
        ca,
        feed: feed.clone(),
        health: health(),
        metrics: metrics.clone(),
        credentials: config.credentials,
        proxy: config.listen.proxy,
        shape: config.listen.shape,
        withheld: Withheld::hold(out_of_reach),
        stopping: stopped.clone(),
    };

    let runtime = Runtime {
        instance: config.instance.clone(),
        pid: std::process::id(),
        url: match filters.tcp_address() {
            Some(address) if matches!(config.listen.data_plane, Endpoint::Tls(_)) => format!("https://{address}"),
            Some(address) => format!("http://{address}"),
            None => filters.address(),
        },
        data_plane: filters.address(),
        health: probes.as_ref().and_then(Socket::tcp_address),
        control: config.listen.control,
        audit: config.audit.path,
        cache_dir: state_dir.cache_dir(),
    };
    state_dir.announce(&runtime)?;
    tracing::info!(instance = %config.instance, data_plane = %runtime.data_plane, policy = %policy.version, "serving");

    let data_plane_address = filters.tcp_address();
    let door = |door| connections.get_or_create(&Door { door }).clone();
    let mut doors = JoinSet::new();
    doors.spawn(filters.serve(data_plane.behind(admission), stopped.clone(), door("data-plane")));
    doors.spawn(operators.serve(control.router(), stopped.clone(), door("control")));
    if let Some(socket) = probes {
        let pages = Probes { health: Mutex::new(health()), metrics };
        doors.spawn(socket.serve_briefly(pages.router(), stopped, door("health")));
    }
    let mut chores = JoinSet::new();
    let sourced = leases.clone();
    chores.spawn(async move { sourced.watch().await });
    if let Some(acceptor) = acceptor {
        chores.spawn(async move { acceptor.watch().await });
    }
    chores.spawn(async move { rotations.watch().await });
    let (given, holders) = (leases.clone(), sessions.clone());
    chores.spawn(async move { given.end(|id| holders.is_live(id, Now::read())).await });
    let (alarms, told) = (environment.alarms().clone(), audit.clone());
    chores.spawn(async move { record_alarms(&alarms, &told).await });
    let (rejected, told) = (leases.clone(), audit.clone());
    chores.spawn(async move { record_renewals(&rejected, &told).await });
    chores.spawn(async move { identities.watch().await });
    chores.spawn(async move { operator.revert().await });
    let kept = ledger.clone();
    chores.spawn(async move { kept.keep().await });
    let tidied = sessions.clone();
    chores.spawn(async move { tidied.tidy().await });
    let (ending, told) = (sessions.clone(), feed.clone());
    chores.spawn(async move { endings::watch(&ending, &told, now).await });
    let ended = sessions.clone();
    chores.spawn(async move { endings::store(&ended).await });
    let mut exports = exports.spawn();
    spans.map(|spans| exports.spawn(spans));
    chores.spawn(async move { witness.watch().await });
    let watched = outstanding.clone();
    chores.spawn(async move { watched.watch().await });
    Ok(Running {
        data_plane: runtime.data_plane.clone(),
        data_plane_address,
        runtime,
        state_dir,
        audit,
        feed,
        outstanding,
        leases,
        sessions,
        ledger,
        sds,
        exports,
        chores,
        doors,
        stop,
        alarms: environment.alarms().clone(),
    })
}

/// Asks the sources of what services reject, and puts on record what took its place.
async fn record_renewals(leases: &Leases, audit: &AuditLog) {
    loop {
        let Some(renewed) = leases.renew_rejected().await else { continue };
        while audit.append(renewal(renewed.clone())).await.is_err() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

fn renewal(Renewed { credential, service, session_id, fingerprint, replaced }: Renewed) -> Record {
    Record {
        service: Some(service),
        credential: Some(credential),
        session_id,
        decision: Some(Decision::Rotate.as_str().into()),
        reason: Some("an upstream answered 401".into()),
        fingerprint,
        replaced: Some(replaced),
        ..Record::new(Kind::Renew, Now::read().wall_ms)
    }
}

/// Puts on record what an operator has to look into.
async fn record_alarms(alarms: &Alarms, audit: &AuditLog) {
    loop {
        for alarm in alarms.take() {
            while !record_alarm(&alarm, audit).await {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        alarms.raised().await;
    }
}

/// Whether it is on record.
async fn record_alarm(Alarm { place, what }: &Alarm, audit: &AuditLog) -> bool {
    let reason = Some(format!("{place}: {what}"));
    audit.append(Record { reason, ..Record::new(Kind::Alarm, Now::read().wall_ms) }).await.is_ok()
}

/// What is known of the workers when a broker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// Nothing: they may go on, and find the next life of the broker.
    MayLive,
    /// They have ended, and every use of theirs is on record.
    Delivered,
    /// They have ended, and may have taken records with them.
    Gone,
}

impl Running {
    /// How many requests with a credential are on record, of this life.
    pub fn uses(&self) -> u64 {
        self.audit.uses()
    }

    /// How many requests that were forwarded, with a credential or without.
    pub fn forwarded(&self) -> u64 {
        self.audit.forwarded()
    }

    /// Ends the broker: no new calls, open ones answered, the end on record, the lock released.
    pub async fn shutdown(self, workers: Workers) {
        let Running {
            state_dir,
            audit,
            feed,
            outstanding,
            leases,
            sessions,
            ledger,
            sds,
            exports,
            mut chores,
            doors,
            stop,
            alarms,
            ..
        } = self;
        feed.close();
        sds.close();
        stop.send_replace(true);
        doors.join_all().await;
        chores.shutdown().await;
        leases.close(LAST_LEASES).await;
        for alarm in alarms.take() {
            record_alarm(&alarm, &audit).await;
        }
        match workers {
            Workers::MayLive => {}
            Workers::Delivered => outstanding.delivered().await,
            Workers::Gone => outstanding.ended().await,
        }
        let decision = (workers == Workers::Delivered).then(|| outstanding::DELIVERED.to_owned());
        let stop = Record { decision, ..Record::new(Kind::Stop, Now::read().wall_ms) };
        if let Err(error) = audit.append(stop).await {
            tracing::error!(%error, "the end is not on record");
        }
        // Signed before its head is noted: so the last checkpoint, too, would be missed.
        if let Err(error) = audit.sign().await {
            tracing::error!(%error, "the end of the audit log is not signed");
        }
        ledger.finish().await;
        // Nobody else has the log now: closed, it is where exports end.
        drop((outstanding, audit, ledger, sds));
        let _ = tokio::time::timeout(LAST_EXPORTS, exports.join_all()).await;
        sessions.close().await;
        if let Err(error) = state_dir.withdraw() {
            tracing::warn!(%error, "runtime.json is left behind");
        }
    }
}

/// Runs a broker until `shutdown` comes.
pub async fn serve(
    config: Config,
    environment: &Environment,
    shutdown: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let mut shutdown = std::pin::pin!(shutdown);
    let Some(running) = start_unless(&mut shutdown, config, environment).await? else { return Ok(()) };
    shutdown.await;
    tracing::info!("ending");
    running.shutdown(Workers::MayLive).await;
    Ok(())
}
