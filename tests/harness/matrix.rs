//! What older Envoys keep of a promise: `tests/matrix/lesser.txt`.

use attache_broker::envoy::{Version, process};

use crate::util;

/// A promise that is less on Envoys before a version.
#[derive(Clone, Debug)]
pub struct Lesser {
    /// The test that states it, by file, module and name.
    pub test: String,
    /// The oldest Envoy on which it is whole.
    pub before: String,
    /// What holds on those before.
    pub promise: String,
}

/// All of them.
///
/// # Panics
/// When the list cannot be read.
#[must_use]
pub fn lesser() -> Vec<Lesser> {
    let list = util::workspace_root().join("tests/matrix/lesser.txt");
    let list = std::fs::read_to_string(list).expect("the list");
    let lines = list.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let parts = lines.map(|line| line.splitn(3, ' ').map(str::to_owned).collect::<Vec<_>>());
    let whole = |parts: Vec<String>| <[String; 3]>::try_from(parts).expect("a test, a version, and what holds");
    parts.map(whole).map(|[test, before, promise]| Lesser { test, before, promise }).collect()
}

/// Whether a test (`mints::leaves::…`) promises less on the Envoy that runs.
///
/// # Panics
/// When the list does not name the test.
#[must_use]
pub fn promises_less(test: &str) -> bool {
    let row = lesser().into_iter().find(|row| row.test == test);
    let before = row.unwrap_or_else(|| panic!("tests/matrix/lesser.txt does not name {test}")).before;
    let here = process::version(&crate::envoy::binary()).expect("an Envoy");
    here < before.parse::<Version>().expect("a version")
}
