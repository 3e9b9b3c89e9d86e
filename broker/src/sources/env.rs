//! Environment variables of the broker, read once at start: a process's environment is fixed.

use super::{Mark, Reading, Source, SourceError, onepassword};
use crate::config::{Config, Lookup};
use attache_core::Secret;
use std::collections::HashMap;
use std::ffi::OsString;

/// The variables that a config names, as they were at start.
#[derive(Default)]
pub struct Environment {
    variables: HashMap<String, Value>,
    /// What `op` is given, where the config has use for it.
    op: Vec<(&'static str, Secret)>,
}

#[derive(Clone)]
enum Value {
    Text(Secret),
    NotText,
}

impl Environment {
    /// Reads the variables that `config` names, and no other. An empty one counts as absent: that
    /// is what a shell or a compose file makes of a variable nobody set.
    pub fn read(config: &Config, environment: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let lookups = config.credentials.iter().flat_map(|credential| &credential.lookup);
        let found = lookups.filter_map(Lookup::variable).filter_map(|name| {
            let value = environment(name).filter(|value| !value.is_empty())?;
            let value = value.into_string().map_or(Value::NotText, |text| Value::Text(Secret::new(text)));
            Some((name.to_owned(), value))
        });
        let mut lookups = config.credentials.iter().flat_map(|credential| &credential.lookup);
        let asks_op = lookups.any(|lookup| matches!(lookup, Lookup::OnePassword(_)));
        let given = onepassword::ENVIRONMENT.into_iter().filter(|_| asks_op);
        let given = given.filter_map(|name| Some((name, Secret::new(environment(name)?.into_string().ok()?))));
        Self { variables: found.collect(), op: given.collect() }
    }

    /// What `op` is given.
    pub(super) fn of_op(&self) -> &[(&'static str, Secret)] {
        &self.op
    }
}

/// One variable.
pub struct Variable {
    name: String,
    value: Option<Value>,
}

impl Variable {
    pub(super) fn new(name: &str, environment: &Environment) -> Self {
        Self { name: name.to_owned(), value: environment.variables.get(name).cloned() }
    }
}

impl Source for Variable {
    fn read(&self) -> Reading<'_> {
        Box::pin(async {
            match &self.value {
                None => Ok(None),
                Some(Value::Text(secret)) => Ok(Some(secret.clone().into())),
                Some(Value::NotText) => Err(SourceError::NotText(self.place())),
            }
        })
    }

    fn mark(&self) -> Mark {
        Mark::Fixed
    }

    fn place(&self) -> String {
        format!("env {}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn variable(value: Option<Value>) -> Variable {
        Variable { name: "TOKEN".into(), value }
    }

    #[tokio::test]
    async fn absent_found_and_unreadable_are_three_answers() {
        assert!(matches!(variable(None).read().await, Ok(None)));
        let found = variable(Some(Value::Text(Secret::new("s")))).read().await;
        assert_eq!(found.ok().flatten().unwrap().secret.expose(), "s");
        let error = variable(Some(Value::NotText)).read().await.err().unwrap();
        assert_eq!(error.to_string(), "env TOKEN does not hold text");
    }

    #[test]
    fn only_variables_that_the_config_names_are_read() {
        let config = crate::config::Config::load(
            None,
            &crate::config::Overrides { state_dir: Some("/state".into()), ..Default::default() },
            &|name| (name == "GITHUB_TOKEN").then(|| "ghp_x".into()),
        );
        let asked = std::cell::RefCell::new(Vec::new());
        let environment = Environment::read(&config.unwrap(), &|name| {
            asked.borrow_mut().push(name.to_owned());
            Some(OsString::from_vec(vec![0xff]))
        });
        assert_eq!(asked.into_inner(), ["GITHUB_TOKEN"]);
        assert!(matches!(environment.variables.get("GITHUB_TOKEN"), Some(Value::NotText)));
    }
}
