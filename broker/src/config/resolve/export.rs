//! Where copies of audit records go.

use crate::config::spec::{ExportSpec, StdoutForm};
use crate::config::{Export, ExportKind};

/// The journal's socket, as systemd documents it.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// All exports, each with a name of its own.
pub(super) fn resolve_all(written: &[ExportSpec]) -> Vec<Export> {
    let mut exports = Vec::<Export>::new();
    for spec in written {
        let (kind, word) = match spec {
            ExportSpec::Stdout(StdoutForm::Json) => (ExportKind::Stdout, "stdout"),
            ExportSpec::Syslog(syslog) => (ExportKind::Syslog(syslog.to.0.clone()), "syslog"),
            ExportSpec::Journald(journald) => {
                let socket = journald.socket.as_deref().unwrap_or(JOURNAL).into();
                (ExportKind::Journald { socket }, "journald")
            }
            ExportSpec::Otlp(otlp) => (ExportKind::Otlp { endpoint: otlp.endpoint.0.clone() }, "otlp"),
        };
        let number = exports.iter().filter(|export| export.name.starts_with(word)).count() + 1;
        exports.push(Export { name: format!("{word}-{number}"), kind });
    }
    exports
}
