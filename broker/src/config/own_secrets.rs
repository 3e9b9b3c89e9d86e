//! What makes the broker somebody, wherever the config says so: the one list of it.

use super::handed::SecretAt;
use super::{Config, Lookup, Rotation, SealedBy};

impl Config {
    /// All of it: at every source that the config names, at what opens the state directory, and at what rotates.
    pub fn own_secrets(&self) -> impl Iterator<Item = &SecretAt> {
        let sources = &self.sources;
        let openbao = sources.openbao.iter().map(|openbao| openbao.auth.secret());
        let infisical = sources.infisical.iter().map(|infisical| &infisical.client_secret);
        let connect = sources.onepassword.iter().filter_map(|one| Some(&one.connect.as_ref()?.token));
        let app = sources.github_app.iter().map(|app| &app.key);
        let kubernetes = sources.kubernetes.iter().map(|cluster| &cluster.own);
        openbao.chain(infisical).chain(app).chain(connect).chain(kubernetes).chain(self.besides_sources())
    }

    /// What the broker has use for: of sources, those that some credential is looked for in.
    pub fn own_secrets_in_use(&self) -> impl Iterator<Item = &SecretAt> {
        let lookups = self.credentials.iter().flat_map(|credential| &credential.lookup);
        lookups.filter_map(Lookup::own_secret).chain(self.besides_sources())
    }

    fn besides_sources(&self) -> impl Iterator<Item = &SecretAt> {
        let rotations = self.credentials.iter().filter_map(|credential| credential.rotation.as_ref());
        let opens = self.seal.as_ref().and_then(SealedBy::own_secret);
        opens.into_iter().chain(rotations.filter_map(Rotation::own_secret))
    }
}
