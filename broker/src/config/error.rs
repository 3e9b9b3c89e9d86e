//! Everything that can be wrong with a config: where it stands, what it is, and what to do.

use super::scope::NotWithin;
use super::tree::Place;
use attache_core::access::AccessError;
use attache_core::companion::CompanionError;
use attache_core::names::Name;
use attache_core::placeholder::ShapeError;
use attache_core::policy::PolicyError;
use attache_core::strip::StripError;
use attache_core::wire::MOST_POLICY_BYTES;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// All errors of a config at once; never empty.
#[derive(Debug, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// One error.
#[derive(Debug, Serialize)]
pub struct ConfigError {
    /// The file; `None` for the embedded default.
    pub file: Option<PathBuf>,
    /// Where in the file, if that is known.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// Where in the config: `credentials.unifi.destinations[0].host`; empty for the whole.
    pub path: String,
    /// What is wrong and what to do.
    #[serde(serialize_with = "as_text")]
    pub problem: Problem,
}

/// What is wrong with a config. Says what to do, and quotes no value.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// The file is not a config by its size.
    #[error("is larger than 16 MiB, which no config is")]
    TooLarge,
    /// Somebody else could send credentials anywhere.
    #[error("anybody can write this file, and so send credentials anywhere: chmod o-w it")]
    WritableByAll,
    /// The text is not YAML.
    #[error("not YAML: {0}")]
    Syntax(String),
    /// A field is unknown, missing or of another kind; in serde's words.
    #[error("{0}")]
    Field(String),
    /// `~` without a home.
    #[error("~ needs HOME; set it, or write an absolute path")]
    NoHome,
    /// A socket that the system cannot name.
    #[error("the socket's path is longer than the 107 bytes a UNIX socket can have; choose a shorter state_dir")]
    SocketTooLong,
    /// A socket that Envoy would take from the broker.
    #[error("the broker listens there itself; choose another path")]
    SocketTaken,
    /// A port that another listener of the instance has.
    #[error("{0} has this port; choose another one")]
    PortTaken(&'static str),
    /// Outside what makes sense.
    #[error("expected {0}")]
    OutOfBounds(&'static str),
    /// A preset that does not exist.
    #[error("no such preset; there are {}", super::presets::NAMES.join(", "))]
    UnknownPreset,
    /// A preset for which something is missing here.
    #[error("{0}")]
    PresetNotYet(&'static str),
    /// A preset of a service that everybody has elsewhere.
    #[error("at which host? This preset names none: add `destinations: [{{host: HOST}}]`")]
    NoHost,
    /// A preset that takes its form from the config.
    #[error("as which user? Add `inject: {{basic: USER}}` to this destination")]
    NoUser,
    /// A header beside a credential that may not be one.
    #[error("{0}")]
    Companion(#[from] CompanionError),
    /// A place of a credential that may not be one.
    #[error("{0}")]
    Strip(#[from] StripError),
    /// Nowhere to look for the secret.
    #[error(
        "where is the secret? Add `source: {{env: VARIABLE}}`, `source: {{file: NAME}}`, or one of the other kinds \
         (`onepassword`, `openbao`, `infisical`, `github_app`, `mounted`, `kubernetes`), or a preset; docs/credentials.md \
         has an example of each"
    )]
    NoSource,
    /// Sources that `sources.order` leaves out.
    #[error("sources.order names none of these sources; add the one that is meant to it")]
    SourceNotInOrder,
    /// A secret in 1Password, which is not asked.
    #[error("1Password is not asked: add `sources: {{onepassword: {{enabled: true}}}}`")]
    NoOnePassword,
    /// A secret in an OpenBao that the config does not name.
    #[error("which OpenBao? Add `sources: {{openbao: {{address: https://HOST:8200, auth: …}}}}`")]
    NoOpenBao,
    /// A secret in an Infisical that the config does not name.
    #[error(
        "which Infisical? Add `sources: {{infisical: {{project: …, environment: …, auth: {{universal: {{client_id: …, \
         client_secret: {{env: VARIABLE}}}}}}}}}}`"
    )]
    NoInfisical,
    /// A secret in Infisical that is nowhere.
    #[error("in which {0}? Add it here, or to sources.infisical")]
    NowhereInInfisical(&'static str),
    /// An Infisical of which half is missing.
    #[error("add `auth: {{universal: {{client_id: …, client_secret: {{env: VARIABLE}}}}}}`")]
    NoInfisicalAuth,
    /// A reference that only `op` understands.
    #[error("an attribute of a field (`?…`) is read by `op` alone, not from a Connect server")]
    NoAttributes,
    /// Not a key of transit.
    #[error("expected the name of a transit key, one segment; where the engine is, `mount` says")]
    TransitKey,
    /// Something of which half is missing.
    #[error("add `{0}`")]
    Lacks(&'static str),
    /// A token of an App, and no App.
    #[error(
        "which GitHub App? Add `sources: {{github_app: {{client_id: …, installation_id: …, private_key: {{file: \
         github_app.pem}}}}}}`"
    )]
    NoGitHubApp,
    /// An App with two names.
    #[error("an App is named by `client_id` or by `app_id`; remove one")]
    TwoIssuers,
    /// A token of each session, and a secret for all.
    #[error("gives each session a token of its own, and so stands alone: remove the other places of this secret")]
    NotAlone,
    /// Two ways to be somebody, or none.
    #[error("expected one of `secret_id` and `wrapped_secret_id`")]
    OneSecretId,
    /// Half of a client certificate.
    #[error("a client certificate takes both: client_certificate_file and client_key_file")]
    HalfAnIdentity,
    /// A secret named in two ways.
    #[error("`openbao` and `ref` name one secret each; remove one")]
    NamedTwice,
    /// A secret of 1Password, named by its credential and by `references`.
    #[error("sources.onepassword.references names one, too; remove one")]
    ReferredTwice,
    /// A reference of a scope that has no template.
    #[error("sources.openbao.references.templates has none for this scope, or it needs a `base` and there is none")]
    NoTemplate,
    /// A secret that is rotated, and kept elsewhere than in a file.
    #[error(
        "a secret that is rotated here is kept in a file of the broker: write `source: {{file: NAME}}`, and no other; \
         what other places hold they rotate by themselves, and are asked again; a variable is read once"
    )]
    RotationElsewhere,
    /// A bundle that would be rotated.
    #[error(
        "a bundle is not rotated here: the old one's fields would not be masked while both are good; whoever writes the \
         document rotates it"
    )]
    RotatedBundle,
    /// Nobody to make a new secret, or two.
    #[error("who makes the new secret? Write one of `command: [/path/to/program]` and `hook: {{url: https://…}}`")]
    OneRotator,
    /// A command that would be looked for.
    #[error(
        "expected a list that begins with an absolute path, e.g. [/usr/local/bin/rotate-grafana]; there is no shell"
    )]
    RotatorRelative,
    /// Variables for nobody.
    #[error("a hook has no environment; remove it")]
    HookWithEnvironment,
    /// The next one would be due before the last one is over.
    #[error("expected less than `every`: the old secret is retired before the next one is made")]
    OverlapTooLong,
    /// Two that write one file.
    #[error("credential `{0}` rotates the same file already: remove one of the two, the secret of both is replaced")]
    RotatedTwice(Name),
    /// A file that would be written over.
    #[error(
        "credential `{0}` reads a file that this rotation writes: a name of its file and .answer, .next, .retiring or \
         .rejected; give it another"
    )]
    RotatesOver(Name),
    /// A scope for a credential that the session may not use.
    #[error("this session may not use this credential; add it to `credentials`, or remove the scope")]
    ScopeUnused,
    /// A scope for a secret that is what it is.
    #[error(
        "what this credential's source has is the same for every session, and cannot be narrowed: scopes go with \
         `source: {{github_app: …}}`"
    )]
    NotScopable,
    /// A scope that is wider than the credential's.
    #[error("{0}: a session narrows what its credential has, and never widens it")]
    NotWithin(#[from] NotWithin),
    /// The same thing twice.
    #[error("stands here twice; remove one")]
    Twice,
    /// Nowhere to go.
    #[error("where may it go? Add `destinations: [{{host: HOST}}]`, or a preset")]
    NoDestination,
    /// No injection.
    #[error("how is it injected? Add `inject: bearer` here or to the credential")]
    NoInjection,
    /// Two ways to inject.
    #[error("the preset says how to inject at each of its destinations; move `inject` to the destination that differs")]
    InjectionBesidePreset,
    /// A placeholder that cannot exist.
    #[error("{0}")]
    Placeholder(#[from] ShapeError),
    /// An exception to read-only that makes no sense.
    #[error("{0}")]
    Access(#[from] AccessError),
    /// Injection for anyone who reaches the port.
    #[error(
        "`inject` needs other evidence that a session requires, and no session that may use this credential \
         requires any: give one `bind: {{peer: …}}`, `bind: {{listener: …}}` or `bind: {{session_token: required}}`, \
         or name one in a rule of `oidc` or `peers`; else use `deny`, or `pass` to forward such requests without a credential"
    )]
    InjectWithoutEvidence,
    /// TLS settings where there is no TLS.
    #[error("`plaintext: true` leaves nothing to verify; remove it, or spki_sha256 and ca_file")]
    PlaintextVerified,
    /// An upstream without effect.
    #[error("add `address: HOST:PORT`, `ca_file: FILE` or `cluster: NAME`")]
    EmptyUpstream,
    /// A cluster of somebody else's, and what it would be if it were ours.
    #[error(
        "a cluster that somebody else defines says by itself who is dialled and who is trusted; remove address, ca_file \
         and spki_sha256 there, or the cluster"
    )]
    ClusterAlone,
    /// A mesh, and what it says by itself.
    #[error(
        "with `mesh: istio` a ServiceEntry says who is dialled, and a DestinationRule who is trusted; remove address, \
         ca_file and spki_sha256"
    )]
    MeshDials,
    /// A host that a mesh cannot tell apart.
    #[error("with `mesh: istio` agents call http://HOST, which leads to one port: another port of it is bound already")]
    MeshPort,
    /// An address where a mesh needs a name.
    #[error("expected a name: with `mesh: istio` hosts are found by their names")]
    MeshAddress,
    /// Two destinations that one cluster leads to.
    #[error("leads to another destination as well: a verdict names a cluster, so each destination needs its own")]
    ClusterTaken,
    /// Two credentials that reach one destination in two ways.
    #[error(
        "credential `{0}` reaches this host and port with other plaintext, private, upstream or spki_sha256; \
         make them the same"
    )]
    ReachedDifferently(Name),
    /// A host that is decrypted, and is not.
    #[error("credential `{0}` is bound to this host and port, which are decrypted for that; remove one of the two")]
    BoundAndPassed(Name),
    /// An address where a TLS handshake must name a host.
    #[error("expected a name: a TLS handshake names no address, and so nothing could be held against it")]
    PassedAddress,
    /// A gateway URL that leads nowhere.
    #[error("none of the credential's destinations has this host")]
    NoSuchDestination,
    /// A session with a credential that does not exist.
    #[error("no credential has this name; add it under `credentials`")]
    UnknownCredential,
    /// Not the path of a file.
    #[error("expected the path of a file")]
    NoFile,
    /// A door for nobody.
    #[error("who may ask? Name at least one peer: `peers: [{{id: \"spiffe://…\"}}]`")]
    NoPeers,
    /// A peer that may ask for nothing, which is not what a missing line says.
    #[error("for which sessions? Name at least one; without the line `sessions` the peer may ask for all of them")]
    NoSessions,
    /// An Envoy with two certificates, or none.
    #[error(
        "which certificate does Envoy show? Write one of `files: {{certificate: …, key: …, ca: …}}` and `sds: {{certificate: …, ca: …}}`"
    )]
    OneIdentity,
    /// A peer that a rule says is another session.
    #[error("a rule of `peers` says that this peer is session `{0}`; name this session there, or narrow the rule")]
    NamedByRule(Name),
    /// Keys that somebody on the way could swap.
    #[error(
        "expected a file, or an https:// URL without user and fragment; http:// only to loopback, with `plaintext: true`"
    )]
    UnsafeKeys,
    /// A rule for a session that does not exist.
    #[error("no session has this name; add it under `sessions`")]
    UnknownSession,
    /// A rule that any token would satisfy.
    #[error("which tokens? Name at least one claim, e.g. `claims: {{sub: \"…\"}}`")]
    NoClaims,
    /// A provider whose tokens name nobody.
    #[error("whom do its tokens name? Add `rules: [{{claims: {{sub: …}}, session: NAME}}]`")]
    NoRules,
    /// A provider that accepts no signature.
    #[error("name at least one algorithm, e.g. [ES256]")]
    NoAlgorithms,
    /// Two providers that one token could belong to.
    #[error("another provider has this issuer and header; make them one provider, or one of them another header")]
    ProviderTwice,
    /// Hosts to decrypt that are refused.
    #[error("hosts that no destination names are refused; add `unmatched: pass`, or remove this")]
    NothingToIntercept,
    /// An authority for some hosts that is to sign for all.
    #[error("with `intercept_unmatched: true` there are certificates for any host; remove one of the two")]
    ConstrainedForAll,
    /// A policy that no filter would take, and so one under which nothing would pass.
    #[error("no filter can run the policy of this config: {0}")]
    Policy(#[from] PolicyError),
    /// A policy that no filter would read, likewise: so many bytes.
    #[error(
        "the policy of this config has {0} bytes, and no worker of Envoy reads more than {MOST_POLICY_BYTES}: give \
         some of the destinations an instance of their own, with its own Envoy"
    )]
    PolicyTooLong(usize),
    /// Two credentials of one session under one variable.
    #[error("credentials `{0}` and `{1}` both export {2}; give one of them its own `agent_env`")]
    VariableTwice(Name, Name, String),
    /// A context without a file of contexts.
    #[error("a context of which kubeconfig? Add `kubeconfig: FILE`, or remove this")]
    ContextOfNothing,
    /// A volume without a path.
    #[error("expected the volume's root, e.g. /var/run/secrets/attache/github")]
    NoVolume,
    /// A header of a bundle that may not be set beside a credential.
    #[error("not a header that a bundle can set: it is Envoy's or the filter's, or says what the request is")]
    BundleHeader,
    /// A header of a bundle that something else sets.
    #[error("`{0}` of this credential has this header already; remove one of the two")]
    BundleHeaderTaken(&'static str),
    /// A header of a bundle in which agents show who they are.
    #[error("agents show a JWT in this header (`oidc`); choose another there")]
    BundleHeaderIdentity,
    /// The secret, as a public field.
    #[error("this field is the secret: it is never handed out; remove it")]
    BundleSecretPublic,
    /// A public field that the bundle does not have.
    #[error("the credential's `bundle` names no such field; add it to `bundle.fields`")]
    NoSuchField,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{error}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    /// `FILE:LINE:COLUMN: PATH: PROBLEM`, as compilers do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}", file.display())?,
            None => f.write_str("(no config file)")?,
        }
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        f.write_str(": ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        self.problem.fmt(f)
    }
}

fn as_text<S: serde::Serializer>(problem: &Problem, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(problem)
}
