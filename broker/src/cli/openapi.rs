//! `attache openapi`: what the broker's doors say and hear, for clients and tests.

use super::common::{Common, FAILED, complain, say};
use crate::api::openapi::Door;
use std::process::ExitCode;

/// Print the OpenAPI document of one of the broker's doors
#[derive(Debug, clap::Args)]
pub struct OpenapiArgs {
    /// Which door
    #[arg(long, value_enum)]
    door: Door,
}

/// Prints the document.
pub async fn run(args: OpenapiArgs, _: &Common) -> ExitCode {
    match text(args.door) {
        Ok(document) => {
            say(document);
            ExitCode::SUCCESS
        }
        Err(error) => complain(FAILED, error),
    }
}

fn text(door: Door) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&door.document())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_documents_are_those_of_the_handlers() {
        for (door, name) in [(Door::Control, "control"), (Door::DataPlane, "data-plane")] {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/openapi-{name}.json"));
            let written = std::fs::read_to_string(file).unwrap_or_default();
            let again = format!("write it anew: attache openapi --door {name} > docs/openapi-{name}.json");
            assert_eq!(written.trim_end(), text(door).unwrap(), "{again}");
        }
    }
}
