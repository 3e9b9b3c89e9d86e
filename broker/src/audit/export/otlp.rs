//! OpenTelemetry: log records over OTLP/HTTP, as protobuf.

use super::SinkError;
use super::sighted::{Severity, Sighted};
use crate::collector::{Collector, CollectorError};
use attache_core::names::Name;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

/// One collector.
pub struct Otlp {
    collector: Collector,
    resource: Resource,
}

impl Otlp {
    /// The collector that takes `POST` at this URL.
    pub fn new(endpoint: String, instance: &Name) -> Self {
        let attributes = vec![text("service.name", "attache"), text("service.instance.id", instance.as_str())];
        let resource = Resource { attributes, ..Resource::default() };
        Self { collector: Collector::new(endpoint), resource }
    }

    /// Sends the lines as one request. What the collector rejects for good is dropped.
    pub async fn send(&mut self, lines: &[String]) -> Result<u64, SinkError> {
        match self.collector.post(request(&self.resource, lines).encode_to_vec()).await {
            Ok(answer) => Ok(rejected(&answer)),
            Err(CollectorError::Refused(_)) => Ok(lines.len() as u64),
            Err(error) => Err(error.into()),
        }
    }
}

fn rejected(answer: &[u8]) -> u64 {
    let partial = ExportLogsServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    partial.map_or(0, |partial| u64::try_from(partial.rejected_log_records).unwrap_or(0))
}

fn request(resource: &Resource, lines: &[String]) -> ExportLogsServiceRequest {
    let scope = InstrumentationScope {
        name: "attache.audit".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    };
    let log_records = lines.iter().map(|line| record(line)).collect();
    let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }];
    let resource = Some(resource.clone());
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }] }
}

/// The record's line is the body, its members are attributes.
fn record(line: &str) -> LogRecord {
    let seen = Sighted::read(line);
    let at = seen.text("timestamp").and_then(|at| at.parse::<jiff::Timestamp>().ok());
    let time_unix_nano = at.and_then(|at| u64::try_from(at.as_nanosecond()).ok()).unwrap_or(0);
    let (number, word) = match seen.severity() {
        Severity::Warning => (SeverityNumber::Warn, "WARN"),
        Severity::Notice => (SeverityNumber::Info2, "NOTICE"),
        Severity::Info => (SeverityNumber::Info, "INFO"),
    };
    let attributes = seen.members().map(|(name, value)| {
        let value = match value {
            serde_json::Value::Bool(value) => any_value::Value::BoolValue(*value),
            serde_json::Value::Number(value) => any_value::Value::IntValue(value.as_i64().unwrap_or(i64::MAX)),
            serde_json::Value::String(value) => any_value::Value::StringValue(value.clone()),
            other => any_value::Value::StringValue(other.to_string()),
        };
        attribute(&format!("attache.{name}"), value)
    });
    LogRecord {
        time_unix_nano,
        observed_time_unix_nano: time_unix_nano,
        severity_number: number.into(),
        severity_text: word.into(),
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(line.to_owned())) }),
        attributes: attributes.collect(),
        event_name: format!("attache.audit.{}", seen.kind()),
        ..LogRecord::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.to_owned()))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
