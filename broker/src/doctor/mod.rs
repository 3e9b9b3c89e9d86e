//! Doctor: finds the Envoy settings under which a credential, or a decision, could get past us.
//!
//! [`examine`] reads a bootstrap or a `/config_dump`; [`examine_logging`] reads the admin's
//! `/logging`. Each finding names the exact place, what stands there, the attack that opens and the
//! fix. [`CHECKS`] is the whole list, in one table.
//!
//! Pure: it fetches nothing, changes nothing, and never prints a value that may be a secret. It
//! judges the configuration it is shown; what a control plane sends later needs another look.

mod checks;
mod config;
mod logging;
mod node;
mod read;
mod scene;

use std::fmt;

use serde::Serialize;

pub use checks::CHECKS;
pub use config::EnvoyConfig;
pub use logging::{LOG_LEVEL, examine_logging};
pub use read::{Format, ReadError, parse, read};

use scene::Scene;

/// One rule about an Envoy configuration.
pub struct Check {
    /// Stable name, kebab-case: what operators filter on.
    pub id: &'static str,
    /// What must hold, in one line.
    pub purpose: &'static str,
    /// What opens where it does not hold.
    pub attack: &'static str,
    /// What to write instead.
    pub fix: &'static str,
    find: fn(&Scene<'_>) -> Vec<Symptom>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A promise does not hold. `attache doctor` exits 1.
    Fail,
    /// A promise holds only under a condition that the configuration does not show.
    Warn,
}

/// One violation of one check, at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// [`Check::id`].
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Where, as a path from the root of what was examined.
    pub path: String,
    /// What stands there. Never a value that may be a secret.
    pub found: String,
    /// What it opens.
    pub attack: &'static str,
    /// What to write instead.
    pub fix: &'static str,
}

/// What a check saw, before it is signed with the check's name.
struct Symptom {
    severity: Severity,
    path: String,
    found: String,
}

impl Symptom {
    fn fail(path: impl Into<String>, found: impl Into<String>) -> Self {
        Self { severity: Severity::Fail, path: path.into(), found: found.into() }
    }

    fn warn(path: impl Into<String>, found: impl Into<String>) -> Self {
        Self { severity: Severity::Warn, path: path.into(), found: found.into() }
    }
}

/// Runs every check. Findings come in the order of [`CHECKS`]; an empty list is a clean bill.
#[must_use]
pub fn examine(config: &EnvoyConfig<'_>) -> Vec<Finding> {
    let scene = Scene::new(config);
    let mut findings: Vec<Finding> = Vec::new();
    for check in CHECKS {
        let mut symptoms = (check.find)(&scene);
        symptoms.sort_by_key(|symptom| symptom.severity);
        for symptom in symptoms {
            // A route table may be shared, a switch may serve many routes: the worst is told, once.
            let told = |earlier: &Finding| earlier.check == check.id && earlier.path == symptom.path;
            if !findings.iter().any(told) {
                findings.push(check.signed(symptom));
            }
        }
    }
    findings
}

/// What must not run, with every finding that says why.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Unsafe(pub Vec<Finding>);

/// Examines what is about to run; hands each warning to `warn`.
///
/// # Errors
///
/// [`Unsafe`] where a promise would not hold: whoever asked must not start it.
pub fn vet(config: &EnvoyConfig<'_>, warn: impl FnMut(&Finding)) -> Result<(), Unsafe> {
    let (failures, warnings): (Vec<_>, Vec<_>) =
        examine(config).into_iter().partition(|finding| finding.severity == Severity::Fail);
    warnings.iter().for_each(warn);
    if failures.is_empty() { Ok(()) } else { Err(Unsafe(failures)) }
}

impl Check {
    fn signed(&self, symptom: Symptom) -> Finding {
        let Symptom { severity, path, found } = symptom;
        Finding { check: self.id, severity, path, found, attack: self.attack, fix: self.fix }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fail => "FAIL",
            Self::Warn => "WARN",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, severity, path, found, attack, fix } = self;
        write!(f, "{severity} {check}\n  at     {path}\n  found  {found}\n  opens  {attack}\n  fix    {fix}")
    }
}
