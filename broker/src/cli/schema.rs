//! `attache schema`: the JSON schema of the config, for editors.

use super::common::{Common, FAILED, complain, say};
use crate::config::spec::Spec;
use std::process::ExitCode;

/// Print the JSON schema of attache.yaml, for editors
#[derive(Debug, clap::Args)]
pub struct SchemaArgs {}

/// Prints the schema.
pub async fn run(_: SchemaArgs, _: &Common) -> ExitCode {
    match text() {
        Ok(schema) => {
            say(schema);
            ExitCode::SUCCESS
        }
        Err(error) => complain(FAILED, error),
    }
}

fn text() -> serde_json::Result<String> {
    serde_json::to_string_pretty(&schemars::schema_for!(Spec))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_schema_in_the_documents_is_the_one_of_the_types() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/attache.schema.json");
        let written = std::fs::read_to_string(file).unwrap_or_default();
        assert_eq!(written.trim_end(), text().unwrap(), "write it anew: attache schema > docs/attache.schema.json");
    }
}
