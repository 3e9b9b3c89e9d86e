//! The config, as every subcommand gets it.

use super::common::{self, Common, say};
use crate::config::{Config, ConfigErrors, Overrides};
use std::process::ExitCode;

/// Loads the config that the flags name, or says all that is wrong with it and returns the exit
/// code for that.
pub fn load(common: &Common) -> Result<Config, ExitCode> {
    try_load(common).map_err(|errors| refuse(common, &errors))
}

/// Loads the config that the flags name.
pub fn try_load(common: &Common) -> Result<Config, ConfigErrors> {
    let overrides = Overrides { instance: common.instance_id.clone(), state_dir: common.state_dir.clone() };
    Config::load(common.config.as_deref(), &overrides, &environment)
}

/// The environment this process was started with. A value that is not UTF-8 is none of ours.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Says all that is wrong with a config.
pub fn refuse(common: &Common, errors: &ConfigErrors) -> ExitCode {
    if common.json {
        say(serde_json::json!({"ok": false, "errors": errors}));
        return ExitCode::from(common::CONFIG);
    }
    let count = match errors.0.len() {
        1 => "1 error".to_owned(),
        many => format!("{many} errors"),
    };
    common::complain(common::CONFIG, format_args!("the config has {count}:\n{errors}"))
}
