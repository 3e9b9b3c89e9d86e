//! `attache istio`: what Istio is told of this config, on standard output.

use super::common::{Common, FAILED, USAGE, complain, say};
use super::config;
use super::envoy_config::sha256;
use crate::envoy::find;
use crate::envoy::istio::{self, Module, Part, Topology};
use std::process::ExitCode;

/// Where the shipped manifests have the module: a host that nobody has.
const MODULE: &str = "https://modules.example/attache_filter.wasm";

/// Print Istio's manifests for this config
#[derive(Debug, clap::Args)]
pub struct IstioArgs {
    /// Which of Istio's Envoys runs the filter
    #[arg(value_enum)]
    pub topology: Topology,
    /// Which of the manifests
    #[arg(value_enum)]
    pub part: Part,
    /// Where Istio's agents fetch the filter's module: https://… or oci://…
    #[arg(long, value_name = "URL", default_value = MODULE)]
    pub module: String,
    /// The SHA-256 that Istio holds against it: of the module behind https://, of the image's manifest behind oci://
    /// [default: that of the module `attache up` would use]
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    pub module_sha256: Option<String>,
}

/// Prints the manifests.
pub fn run(args: IstioArgs, common: &Common) -> ExitCode {
    let config = match config::load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let module = match args.module() {
        Ok(module) => module,
        Err(code) => return code,
    };
    let manifests = match istio::manifests(args.topology, args.part, &config, &config.policy(), &module) {
        Ok(manifests) => manifests,
        Err(error) => return complain(USAGE, error),
    };
    let json = |manifests| serde_json::to_string_pretty(manifests).ok();
    match if common.json { json(&manifests) } else { istio::to_yaml(&manifests) } {
        Some(text) => {
            say(text.trim_end());
            ExitCode::SUCCESS
        }
        None => complain(FAILED, "the manifests cannot be written"),
    }
}

impl IstioArgs {
    fn module(&self) -> Result<Module, ExitCode> {
        let is_image = self.module.starts_with("oci://");
        if !is_image && !self.module.starts_with("https://") {
            return Err(complain(USAGE, "--module: expected https://… or oci://…"));
        }
        let own = || -> Result<String, ExitCode> {
            let file = find::filter().map_err(|error| complain(FAILED, error))?;
            let module =
                std::fs::read(&file).map_err(|error| complain(FAILED, format_args!("{}: {error}", file.display())))?;
            Ok(find::sha256(&module))
        };
        let sha256 = match &self.module_sha256 {
            Some(digest) => digest.clone(),
            None if is_image => {
                let why = "--module-sha256: Istio holds it against the image's manifest, which is not here; `docker images \
                           --digests` and `skopeo inspect` print that digest";
                return Err(complain(USAGE, why));
            }
            None => own()?,
        };
        Ok(Module { url: self.module.clone(), sha256 })
    }
}
