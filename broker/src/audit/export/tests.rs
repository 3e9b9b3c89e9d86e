//! Each export against its documented protocol. The servers here stand in for real ones: they take
//! apart what arrives, by the letter of the protocol, and nothing more.

use super::*;
use crate::audit::key::AuditKey;
use crate::audit::{Kind, Record};
use crate::config::{AuditConfig, Checkpoints, SyslogAddress};
use attache_core::names::Name;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use prost::Message as _;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpListener, UdpSocket, UnixDatagram};

const SOON: Duration = Duration::from_secs(20);

/// A log and its export.
struct Life {
    temp: tempfile::TempDir,
    audit: AuditLog,
    chores: JoinSet<()>,
}

impl Life {
    fn begin(kind: &ExportKind) -> Self {
        Self::in_dir(tempfile::tempdir().unwrap(), kind)
    }

    fn in_dir(temp: tempfile::TempDir, kind: &ExportKind) -> Self {
        let state_dir = Arc::new(StateDir::open(&temp.path().join("i")).unwrap());
        let path = temp.path().join("i/audit.jsonl");
        let checkpoints = Checkpoints { records: 10_000, every: Duration::from_secs(3600) };
        let export = vec![Export { name: "it-1".into(), kind: kind.clone() }];
        let config = AuditConfig { path: path.clone(), rotate_bytes: 1500, checkpoints, export };
        let name = Name::parse("test").unwrap();
        let audit = AuditLog::open(&config, &name, AuditKey::from_seed([1; 32])).unwrap();
        let chores = Exports::new(&config.export, path, &name, &audit, &state_dir).spawn();
        Self { temp, audit, chores }
    }

    /// Records so many gaps, told apart by their reasons.
    async fn record(&self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let reason = Some(format!("number {number}"));
            self.audit.append(Record { reason, ..Record::new(Kind::Gap, 1_769_860_800_120) }).await.unwrap();
        }
    }

    async fn end(mut self) -> tempfile::TempDir {
        self.chores.shutdown().await;
        self.temp
    }

    /// The log's lines, all files together.
    fn lines(&self) -> Vec<String> {
        written(self.temp.path())
    }
}

fn written(temp: &Path) -> Vec<String> {
    let files = crate::audit::Files::of(&temp.join("i/audit.jsonl")).unwrap();
    let text = files.map(|opened| std::io::read_to_string(opened.unwrap().1).unwrap()).collect::<String>();
    text.lines().map(str::to_owned).collect()
}

/// Takes items until they are what is wanted.
async fn wait_for<T: PartialEq + std::fmt::Debug>(what: &str, found: impl Fn() -> T, wanted: impl Fn() -> T) {
    let deadline = Instant::now() + SOON;
    while found() != wanted() {
        assert!(Instant::now() < deadline, "{what}: {:?}", found());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn datagram(socket: impl AsyncFn(&mut [u8]) -> std::io::Result<usize>) -> String {
    let mut bytes = vec![0; 65_536];
    let length = tokio::time::timeout(SOON, socket(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

/// The record in an RFC 5424 message.
fn body_of(message: &str) -> &str {
    let mut parts = message.splitn(8, ' ');
    let mut part = || parts.next().unwrap();
    let priority = part();
    assert!(["<84>1", "<86>1"].contains(&priority), "facility 10, warning or info: {message}");
    assert!(part().ends_with('Z') && part() == "-" && part() == "attache", "{message}");
    assert_eq!(part(), std::process::id().to_string());
    assert_eq!(part() == "checkpoint", priority == "<86>1", "{message}");
    assert_eq!(part(), "-");
    part()
}

#[tokio::test]
async fn syslog_gets_a_message_a_datagram_over_unix_and_udp_through_rotated_files() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("log");
    let unix = UnixDatagram::bind(&path).unwrap();
    let life = Life::begin(&ExportKind::Syslog(SyslogAddress::Unix(path)));
    life.record(0..9).await;
    for line in life.lines() {
        assert_eq!(body_of(&datagram(async |bytes| unix.recv(bytes).await).await), line);
    }
    assert!(life.lines().len() > 9 && std::fs::exists(life.temp.path().join("i/audit.jsonl.2")).unwrap());

    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = udp.local_addr().unwrap().to_string();
    let life = Life::begin(&ExportKind::Syslog(SyslogAddress::Udp(to)));
    life.record(0..2).await;
    for line in life.lines() {
        assert_eq!(body_of(&datagram(async |bytes| udp.recv(bytes).await).await), line);
    }
}

#[tokio::test]
async fn syslog_over_tcp_counts_octets_and_connects_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let life = Life::begin(&ExportKind::Syslog(SyslogAddress::Tcp(to)));
    life.record(0..1).await;
    let mut seen = Vec::new();
    let mut numbers = 1..;
    let deadline = Instant::now() + SOON;
    while seen.len() < 4 {
        assert!(Instant::now() < deadline, "{seen:?}");
        // Each connection is dropped after one message.
        let Ok(Ok((stream, _))) = tokio::time::timeout(Duration::from_millis(500), listener.accept()).await else {
            let next = numbers.next().unwrap();
            life.record(next..next + 1).await;
            continue;
        };
        let mut stream = BufReader::new(stream);
        let mut length = Vec::new();
        stream.read_until(b' ', &mut length).await.unwrap();
        let length: usize = String::from_utf8(length).unwrap().trim().parse().unwrap();
        let mut message = vec![0; length];
        tokio::time::timeout(SOON, stream.read_exact(&mut message)).await.expect("as long as it says").unwrap();
        seen.push(body_of(&String::from_utf8(message).unwrap()).to_owned());
    }
    let lines = life.lines();
    assert!(seen.iter().all(|line| lines.contains(line)), "{seen:?}");
}

#[tokio::test]
async fn the_journal_gets_fields() {
    let temp = tempfile::tempdir().unwrap();
    let socket = temp.path().join("socket");
    let journal = UnixDatagram::bind(&socket).unwrap();
    let life = Life::begin(&ExportKind::Journald { socket });
    life.record(0..1).await;
    let entry = datagram(async |bytes| journal.recv(bytes).await).await;
    let fields: Vec<_> = entry.lines().filter_map(|line| line.split_once('=')).collect();
    let line = life.lines().remove(0);
    for field in [
        ("MESSAGE", line.as_str()),
        ("PRIORITY", "4"),
        ("SYSLOG_IDENTIFIER", "attache"),
        ("ATTACHE_INSTANCE", "test"),
        ("ATTACHE_KIND", "gap"),
        ("ATTACHE_REASON", "number 0"),
    ] {
        assert!(fields.contains(&field), "{field:?}: {entry}");
    }
}

/// A status and a body.
type Answer = (u16, Vec<u8>);

/// A collector that gives prepared answers, then 200, and keeps what it accepted.
#[derive(Clone, Default)]
struct Collector {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    bodies: Arc<Mutex<Vec<String>>>,
    requests: Arc<Mutex<Vec<ExportLogsServiceRequest>>>,
}

impl Collector {
    async fn start(&self, chores: &mut JoinSet<()>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/v1/logs", listener.local_addr().unwrap());
        let this = self.clone();
        let take = async move |headers: HeaderMap, body: Bytes| {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            let (status, answer) = this.answers.lock().unwrap().pop_front().unwrap_or((200, Vec::new()));
            if status == 200 {
                let request = ExportLogsServiceRequest::decode(body).unwrap();
                let records = request.resource_logs.iter().flat_map(|of| &of.scope_logs).flat_map(|of| &of.log_records);
                let bodies = records.map(|record| format!("{:?}", record.body.clone().unwrap().value.unwrap()));
                this.bodies.lock().unwrap().extend(bodies.map(|body| body.replace("\\\"", "\"")));
                this.requests.lock().unwrap().push(request);
            }
            (StatusCode::from_u16(status).unwrap(), answer)
        };
        let app = Router::new().route("/v1/logs", post(take));
        chores.spawn(async move { axum::serve(listener, app).await.unwrap() });
        endpoint
    }

    fn has(&self, number: u32) -> usize {
        let wanted = format!("\"reason\":\"number {number}\"");
        self.bodies.lock().unwrap().iter().filter(|body| body.contains(&wanted)).count()
    }
}

#[tokio::test]
async fn a_collector_gets_log_records_and_is_asked_again_when_it_is_busy() {
    let (collector, mut servers) = (Collector::default(), JoinSet::new());
    let endpoint = collector.start(&mut servers).await;
    collector.answers.lock().unwrap().extend([(503, Vec::new()), (429, Vec::new())]);
    let life = Life::begin(&ExportKind::Otlp { endpoint });
    life.record(0..3).await;
    wait_for("all of them, once", || [0, 1, 2].map(|n| collector.has(n)), || [1, 1, 1]).await;
    let requests = collector.requests.lock().unwrap();
    let resource = requests[0].resource_logs[0].resource.clone().unwrap();
    assert!(format!("{resource:?}").contains("service.instance.id"));
    let record = &requests[0].resource_logs[0].scope_logs[0].log_records[0];
    assert_eq!((record.time_unix_nano, record.severity_text.as_str()), (1_769_860_800_120_000_000, "WARN"));
    assert_eq!(record.event_name, "attache.audit.gap");
    let attributes = format!("{:?}", record.attributes);
    assert!(attributes.contains("attache.reason") && attributes.contains("number 0"), "{attributes}");
}

#[tokio::test]
async fn what_a_collector_rejects_for_good_is_counted_and_the_rest_goes_on() {
    let (collector, mut servers) = (Collector::default(), JoinSet::new());
    let endpoint = collector.start(&mut servers).await;
    let rejected = ExportLogsPartialSuccess { rejected_log_records: 2, error_message: "no".into() };
    let partial = ExportLogsServiceResponse { partial_success: Some(rejected) }.encode_to_vec();
    collector.answers.lock().unwrap().extend([(400, Vec::new()), (200, partial)]);
    let life = Life::begin(&ExportKind::Otlp { endpoint });
    life.record(0..1).await;
    wait_for("the first is asked about", || collector.answers.lock().unwrap().len(), || 1).await;
    life.record(1..2).await;
    wait_for("the second", || collector.has(1), || 1).await;
    let state = life.temp.path().join("i/export-it-1.json");
    let dropped = || {
        let cursor: Option<Cursor> = std::fs::read(&state).ok().and_then(|text| serde_json::from_slice(&text).ok());
        cursor.map_or(0, |cursor| cursor.dropped)
    };
    wait_for("the count of what was dropped", || dropped() >= 3, || true).await;
}

#[tokio::test]
async fn an_export_goes_on_where_it_was_when_the_broker_comes_back() {
    let (collector, mut servers) = (Collector::default(), JoinSet::new());
    let endpoint = collector.start(&mut servers).await;
    let kind = ExportKind::Otlp { endpoint };
    let life = Life::begin(&kind);
    life.record(0..2).await;
    wait_for("delivered", || collector.has(1), || 1).await;
    let remembered = life.temp.path().join("i/export-it-1.json");
    wait_for("remembered", || remembered.exists(), || true).await;
    let temp = life.end().await;
    // Written while nobody exports, over rotated files.
    {
        let config = AuditConfig {
            path: temp.path().join("i/audit.jsonl"),
            rotate_bytes: 1500,
            checkpoints: Checkpoints { records: 10_000, every: Duration::from_secs(3600) },
            export: Vec::new(),
        };
        let audit = AuditLog::open(&config, &Name::parse("test").unwrap(), AuditKey::from_seed([1; 32])).unwrap();
        for number in 2..10 {
            let reason = Some(format!("number {number}"));
            audit.append(Record { reason, ..Record::new(Kind::Gap, 0) }).await.unwrap();
        }
    }
    let life = Life::in_dir(temp, &kind);
    life.record(10..11).await;
    wait_for("the last", || collector.has(10), || 1).await;
    assert!((0..10).all(|number| collector.has(number) >= 1), "at least once, each");
    assert!((2..10).all(|number| collector.has(number) == 1), "and what came later, once");
}

#[tokio::test]
async fn a_log_that_is_closed_is_exported_to_its_end() {
    let (collector, mut servers) = (Collector::default(), JoinSet::new());
    let endpoint = collector.start(&mut servers).await;
    let life = Life::begin(&ExportKind::Otlp { endpoint });
    life.record(0..3).await;
    let Life { temp, audit, chores } = life;
    drop(audit);
    tokio::time::timeout(SOON, chores.join_all()).await.expect("they end by themselves");
    let written = written(temp.path());
    assert!(written.last().is_some_and(|line| line.contains("\"kind\":\"checkpoint\"")));
    assert_eq!(collector.bodies.lock().unwrap().len(), written.len());
}

#[tokio::test]
async fn what_is_not_durable_yet_is_not_read() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("audit.jsonl");
    std::fs::write(&path, "one\ntwo\nthree\nha").unwrap();
    let found = std::fs::metadata(&path).unwrap();
    let file = (std::os::unix::fs::MetadataExt::dev(&found), std::os::unix::fs::MetadataExt::ino(&found));
    let (durable, told) = tokio::sync::watch::channel(Durable { file, len: 8 });
    let mut follower = Follower::new(path, told);
    let batch = follower.read(Cursor { file, ..Cursor::default() }).await.unwrap();
    assert_eq!((batch.lines, batch.next.at), (vec!["one".to_owned(), "two".to_owned()], 8));
    assert!(follower.read(batch.next).await.unwrap().lines.is_empty());
    durable.send_replace(Durable { file, len: 14 });
    assert_eq!(follower.read(batch.next).await.unwrap().lines, ["three"]);
}

#[tokio::test]
async fn nobody_waits_for_an_export_that_hangs() {
    // Connections are accepted by the system, and nobody ever reads from them.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/logs", listener.local_addr().unwrap());
    let life = Life::begin(&ExportKind::Otlp { endpoint });
    life.record(0..50).await;
    assert_eq!(life.audit.fault(), None);
    assert!(life.lines().len() >= 50);
}
