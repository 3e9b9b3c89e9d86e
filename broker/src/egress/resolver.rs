//! From a name to all of its addresses, in bounded time.

use super::hosts_file::HostsFile;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::{TokioResolver, system_conf};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Where the system writes names and addresses down.
const HOSTS: &str = "/etc/hosts";
/// Answers that are remembered.
const CACHE: u64 = 1024;
/// An answer is believed for its own TTL, and no longer than this.
const LONGEST: Duration = Duration::from_secs(60);
/// That there is no answer, no longer than this.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(2);
/// Names that are asked for at once; more of them wait.
const MOST: usize = 128;
/// Addresses of one name. More than this is nobody's service.
const MOST_ADDRESSES: usize = 64;
/// Where a system without servers in its configuration asks (resolv.conf(5)).
const DEFAULT_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

/// Asks for the addresses of names.
pub struct Resolver {
    hosts: HostsFile,
    dns: TokioResolver,
    /// For the names that the config has.
    named: Semaphore,
    /// For those that it lets pass, of which an agent can think of any number.
    others: Semaphore,
    within: Duration,
}

/// The resolver cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("DNS: {0}: see `dns:` in the config")]
pub struct ResolverError(#[from] NetError);

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// No name of the DNS.
    #[error("not a name of the DNS: {0}")]
    Name(#[from] ProtoError),
    /// The servers say so, or say nothing that can be used.
    #[error("{0}")]
    Net(#[from] NetError),
    /// Nobody answered.
    #[error("no answer in time")]
    Late,
    /// More addresses than can be vetted.
    #[error("more than {MOST_ADDRESSES} addresses")]
    TooMany,
}

/// All addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// All of them.
    pub addresses: Vec<IpAddr>,
    /// How long that may be believed.
    pub ttl: Duration,
}

impl Found {
    /// An address that somebody wrote down.
    pub fn written(address: IpAddr) -> Self {
        Self { addresses: vec![address], ttl: LONGEST }
    }
}

impl Resolver {
    /// Asks these servers; with none, those of the system. Whoever asks gives up after `callout_timeout`.
    pub fn new(servers: &[SocketAddr], callout_timeout: Duration) -> Result<Self, ResolverError> {
        let within = callout_timeout * 3 / 4;
        let config = if servers.is_empty() { of_the_system() } else { of_servers(servers) };
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // Read here: a name that stands there is not asked for elsewhere.
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = within * 2 / 5;
        options.attempts = 1;
        options.cache_size = CACHE;
        options.positive_max_ttl = Some(LONGEST);
        options.negative_max_ttl = Some(LONGEST_NEGATIVE);
        Ok(Self {
            hosts: HostsFile::new(HOSTS),
            dns: builder.build()?,
            named: Semaphore::new(MOST),
            others: Semaphore::new(MOST),
            within,
        })
    }

    /// All addresses of a name, of both kinds. One that the config has does not wait for those that agents think of.
    pub async fn addresses(&self, name: &str, is_named: bool) -> Result<Found, Unresolved> {
        // Whole as it is: never below one of the system's search domains.
        let mut name = Name::from_ascii(name)?;
        name.set_fqdn(true);
        tokio::time::timeout(self.within, self.look_up(name, is_named)).await.unwrap_or(Err(Unresolved::Late))
    }

    async fn look_up(&self, name: Name, is_named: bool) -> Result<Found, Unresolved> {
        let addresses = self.hosts.addresses(&name).await;
        if !addresses.is_empty() {
            return Ok(Found { addresses, ttl: LONGEST });
        }
        // Closed never: the resolver owns it.
        let at_once = if is_named { &self.named } else { &self.others };
        let _one_of_them = at_once.acquire().await.map_err(|_| Unresolved::Late)?;
        let answer = self.dns.lookup_ip(name).await?;
        if answer.iter().count() > MOST_ADDRESSES {
            return Err(Unresolved::TooMany);
        }
        let ttl = answer.valid_until().saturating_duration_since(Instant::now());
        Ok(Found { addresses: answer.iter().collect(), ttl })
    }
}

fn of_the_system() -> ResolverConfig {
    let (_, _, servers) = match system_conf::read_system_conf() {
        Ok((config, _)) => config.into_parts(),
        Err(error) => {
            tracing::debug!(%error, "no DNS configuration of the system");
            return of_servers(&[DEFAULT_SERVER]);
        }
    };
    if servers.is_empty() { of_servers(&[DEFAULT_SERVER]) } else { ResolverConfig::from_name_servers(servers) }
}

fn of_servers(servers: &[SocketAddr]) -> ResolverConfig {
    let by = |mut connection: ConnectionConfig, port| {
        connection.port = port;
        connection
    };
    let server = |server: &SocketAddr| {
        let port = server.port();
        let connections = vec![by(ConnectionConfig::udp(), port), by(ConnectionConfig::tcp(), port)];
        NameServerConfig::new(server.ip(), true, connections)
    };
    ResolverConfig::from_name_servers(servers.iter().map(server).collect())
}
