//! The words of a config file: each is parsed into a value that cannot be wrong, or refused.

use super::SyslogAddress;
use attache_core::evidence::AUTH_HEADERS;
use attache_core::matching::host;
use attache_core::matching::path::check_path;
use attache_core::placeholder::MARKER;
use base64::Engine as _;
use schemars::JsonSchema;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// Why a word of a config file is refused. Names no byte of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a host.
    #[error("{0}")]
    Host(#[from] host::HostError),
    /// A pattern, where one host is meant.
    #[error("a host is one name, written out: `*` is refused here; name each host")]
    Wildcard,
    /// A host in another than its canonical spelling.
    #[error("write the host in lower case")]
    NotCanonical,
    /// No port where one is needed.
    #[error("expected HOST:PORT, e.g. 127.0.0.1:9443")]
    NoPort,
    /// Not a cluster's name.
    #[error("expected the name of a cluster, e.g. outbound|443||api.github.com")]
    Cluster,
    /// Not a DNS server.
    #[error("expected IP:PORT of a DNS server, e.g. 127.0.0.1:53")]
    DnsServer,
    /// Not an address to listen on.
    #[error("expected IP:PORT, e.g. 127.0.0.1:3030")]
    Address,
    /// Secrets would cross a network in the clear.
    #[error(
        "secrets travel here: expected a loopback address, e.g. 127.0.0.1:3031, or unix:data.sock; over a network, mutual \
         TLS: {{address: …, tls: …, peers: …}}"
    )]
    NotLoopback,
    /// Not a UNIX socket.
    #[error("expected unix:PATH, e.g. unix:control.sock")]
    Socket,
    /// Not a syslog server.
    #[error("expected unix:PATH, udp:HOST:PORT or tcp:HOST:PORT, e.g. unix:/dev/log")]
    Syslog,
    /// Not a URL without secrets.
    #[error("expected a URL without user and password, e.g. http://127.0.0.1:4318/v1/logs")]
    Url,
    /// Not a length of time.
    #[error("expected a length of time, e.g. 10s, 15m or 8h")]
    Period,
    /// Not a number of bytes.
    #[error("expected a size, e.g. 64KiB or 100MB")]
    Size,
    /// Not a path prefix, or one that can be read in two ways.
    #[error("expected a path that begins with '/', without '..', '//', '?' or '#'")]
    PathPrefix,
    /// Not the name of an environment variable.
    #[error("a variable's name is made of letters, digits and '_', and does not begin with a digit")]
    Variable,
    /// Not a file below the directory of secrets.
    #[error("expected the name of a file below sources.file.dir, without '..' and not absolute")]
    FileName,
    /// Not a secret reference.
    #[error("expected a secret reference, e.g. op://Private/GitHub/token")]
    OpReference,
    /// Not the address of a server.
    #[error(
        "expected https://HOST:PORT without user, query and fragment; http:// only to loopback, e.g. http://127.0.0.1:8200"
    )]
    ServerUrl,
    /// Not a path of an API.
    #[error(
        "expected a path without /v1/ before it, e.g. secret/data/github: plain segments, without '..', '?' or '%'"
    )]
    ApiPath,
    /// Not the name of a secret.
    #[error(
        "expected the name of a secret, e.g. GITHUB_TOKEN: printable ASCII without spaces and without any of /?#%\\\"<>`^"
    )]
    Segment,
    /// Not a folder.
    #[error("expected a folder, e.g. / or /apps/reviewer: plain segments, without '..', '?' or '%'")]
    FolderPath,
    /// Not a namespace.
    #[error("expected a namespace, e.g. team-a or team-a/project")]
    Namespace,
    /// Not a plain word.
    #[error("expected printable ASCII without spaces, at most 256 characters")]
    Word,
    /// Not the digest of a key.
    #[error("expected 32 bytes in base64: openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64")]
    Pin,
    /// Not a SPIFFE ID.
    #[error("expected one SPIFFE ID, e.g. spiffe://example.org/ns/agents/sa/reviewer")]
    PeerId,
    /// Not a pattern of SPIFFE IDs.
    #[error("expected a SPIFFE ID in whose path a whole segment may be *, e.g. spiffe://cluster.local/ns/agents/sa/*")]
    PeerPattern,
    /// Not a network.
    #[error("expected a network in CIDR notation without host bits, e.g. 10.1.0.0/16 or 127.0.0.1/32")]
    Network,
    /// Not an issuer.
    #[error("expected the issuer as its tokens name it: printable ASCII, at most 512 characters")]
    Issuer,
    /// Not a header for JWTs.
    #[error(
        "expected a lower-case header name of its own, e.g. x-attache-identity; never authorization, cookie or the like"
    )]
    IdentityHeader,
    /// Not a pattern for a claim.
    #[error("expected text of at most 512 characters that is not `*` alone")]
    ClaimPattern,
    /// Empty, or with characters that no log line should hold.
    #[error("expected printable ASCII, at most 64 characters")]
    Label,
    /// Not a file in a volume.
    #[error("expected a file in the volume, e.g. token: without '..' and not absolute")]
    VolumeFile,
    /// Not the name of a Secret.
    #[error("expected the name of a Secret: small letters, digits, '-' and '.'")]
    KubernetesName,
    /// Not the name of a namespace.
    #[error("expected the name of a namespace: small letters, digits and '-'")]
    KubernetesNamespace,
    /// Not a key of a Secret.
    #[error("expected a key of the Secret's data: letters, digits, '-', '_' and '.'")]
    KubernetesKey,
}

/// Defines a type that is written as one text.
macro_rules! written_as_text {
    ($($(#[$doc:meta])* $name:ident($inner:ty) = $parse:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
        #[serde(try_from = "String")]
        #[schemars(with = "String")]
        pub struct $name(pub $inner);

        impl TryFrom<String> for $name {
            type Error = ValueError;
            fn try_from(text: String) -> Result<Self, ValueError> {
                let parse: fn(&str) -> Result<$inner, ValueError> = $parse;
                parse(&text).map($name)
            }
        }
    )* };
}

written_as_text! {
    /// A host: a lower-case DNS name, or an address in its canonical form.
    Host(host::Host) = canonical_host;
    /// The name of a cluster: printable ASCII without spaces, quotes and backslashes.
    ClusterName(String) = cluster_name;
    /// Where Envoy dials: `HOST:PORT`.
    DialAddress(String) = dial_address;
    /// `IP:PORT` to listen on; port 0 lets the system choose.
    ListenAddress(SocketAddr) = |text| text.parse().map_err(|_| ValueError::Address);
    /// `IP:PORT` of a DNS server.
    DnsServer(SocketAddr) = |text| {
        text.parse().ok().filter(|server: &SocketAddr| server.port() > 0).ok_or(ValueError::DnsServer)
    };
    /// `IP:PORT` on loopback, or `unix:PATH`.
    DataPlane(Result<SocketAddr, PathBuf>) = data_plane;
    /// `unix:PATH`, relative to the instance's directory.
    Socket(PathBuf) = socket;
    /// A syslog server: `unix:PATH`, `udp:HOST:PORT` or `tcp:HOST:PORT`.
    SyslogTo(SyslogAddress) = syslog_address;
    /// An `http` or `https` URL.
    Url(String) = url;
    /// A length of time: `10s`, `15m`, `8h`.
    Period(Duration) = |text| humantime::parse_duration(text).map_err(|_| ValueError::Period);
    /// A number of bytes: `64KiB`, `100MB`.
    Size(u64) = |text| text.parse::<bytesize::ByteSize>().map(|size| size.as_u64()).map_err(|_| ValueError::Size);
    /// A path prefix; it ends at a segment.
    PathPrefix(String) = path_prefix;
    /// The name of an environment variable.
    Variable(String) = variable;
    /// A file below the directory of secrets.
    FileName(PathBuf) = file_name;
    /// A secret reference of 1Password: `op://VAULT/ITEM/[SECTION/]FIELD`.
    OpReference(String) = op_reference;
    /// The address of a server: `https://HOST:PORT`, or `http://` to loopback.
    ServerUrl(String) = server_url;
    /// A path of an API, as it stands behind `/v1/`.
    ApiPath(String) = api_path;
    /// The name of a secret: one segment of a path.
    Segment(String) = |text| {
        api_path(text).ok().filter(|name| !name.contains('/')).ok_or(ValueError::Segment)
    };
    /// A folder of secrets, from the root.
    FolderPath(String) = folder_path;
    /// A namespace of OpenBao.
    Namespace(String) = |text| api_path(text).map_err(|_| ValueError::Namespace);
    /// A word without spaces.
    Word(String) = word;
    /// The SHA-256 of a server's public key (its SubjectPublicKeyInfo), base64.
    Pin(String) = pin;
    /// A word for audit records.
    Label(String) = label;
    /// The `iss` of a provider's tokens, exactly.
    Issuer(String) = issuer;
    /// The header in which agents show a JWT.
    IdentityHeader(String) = identity_header;
    /// What a claim must say; `*` stands for any run of characters.
    ClaimPattern(String) = claim_pattern;
    /// A file in a volume.
    VolumeFile(PathBuf) = |text| file_name(text).map_err(|_| ValueError::VolumeFile);
    /// The name of a Secret (RFC 1123's subdomain).
    KubernetesName(String) = |text| {
        let fits = text.len() <= 253 && text.split('.').all(is_label);
        if fits { Ok(text.to_owned()) } else { Err(ValueError::KubernetesName) }
    };
    /// The name of a namespace (RFC 1123's label).
    KubernetesNamespace(String) = |text| {
        if text.len() <= 63 && is_label(text) { Ok(text.to_owned()) } else { Err(ValueError::KubernetesNamespace) }
    };
    /// A key of a Secret's data.
    KubernetesKey(String) = |text| {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let fits = (1..=253).contains(&text.len()) && plain && !matches!(text, "." | "..");
        if fits { Ok(text.to_owned()) } else { Err(ValueError::KubernetesKey) }
    };
}

/// One label of a name in Kubernetes:
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>
fn is_label(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = text.bytes().next().is_some_and(plain) && text.bytes().next_back().is_some_and(plain);
    ends && text.bytes().all(|b| plain(b) || b == b'-')
}

/// <https://developer.1password.com/docs/cli/secret-reference-syntax/>
fn op_reference(text: &str) -> Result<String, ValueError> {
    let parts: Vec<_> = text.strip_prefix("op://").unwrap_or_default().split('/').collect();
    let plain = text.bytes().all(|b| (0x20..0x7f).contains(&b)) && !text.contains(MARKER);
    let named = parts.iter().all(|part| !part.trim().is_empty());
    if plain && named && (3..=4).contains(&parts.len()) { Ok(text.to_owned()) } else { Err(ValueError::OpReference) }
}

/// Secrets travel there: nobody on the way may read them.
fn server_url(text: &str) -> Result<String, ValueError> {
    let url = reqwest::Url::parse(text).map_err(|_| ValueError::ServerUrl)?;
    let bare =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    let loopback = url.host_str().is_some_and(|host| {
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    });
    let safe = url.scheme() == "https" || (url.scheme() == "http" && loopback);
    if bare && safe && !text.contains(MARKER) {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(ValueError::ServerUrl)
    }
}

fn api_path(text: &str) -> Result<String, ValueError> {
    let plain = |b: u8| (0x21..0x7f).contains(&b) && !b"?#%\\\"<>`^".contains(&b);
    let segment = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(plain);
    let fits = text.len() <= 512 && text.split('/').all(segment) && !text.starts_with("v1/");
    if fits && !text.contains(MARKER) { Ok(text.to_owned()) } else { Err(ValueError::ApiPath) }
}

fn folder_path(text: &str) -> Result<String, ValueError> {
    let folder = text.strip_prefix('/').ok_or(ValueError::FolderPath)?.trim_end_matches('/');
    if !folder.is_empty() {
        api_path(folder).map_err(|_| ValueError::FolderPath)?;
    }
    Ok(format!("/{folder}"))
}

fn word(text: &str) -> Result<String, ValueError> {
    let plain = (1..=256).contains(&text.len()) && text.bytes().all(|b| (0x21..0x7f).contains(&b));
    if plain && !text.contains(MARKER) { Ok(text.to_owned()) } else { Err(ValueError::Word) }
}

fn canonical_host(text: &str) -> Result<host::Host, ValueError> {
    if text.contains('*') {
        return Err(ValueError::Wildcard);
    }
    let host = host::Host::parse(text.as_bytes())?;
    if host.to_string() == text { Ok(host) } else { Err(ValueError::NotCanonical) }
}

fn cluster_name(text: &str) -> Result<String, ValueError> {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\');
    let is_one = (1..=255).contains(&text.len()) && text.bytes().all(plain);
    if is_one { Ok(text.to_owned()) } else { Err(ValueError::Cluster) }
}

fn dial_address(text: &str) -> Result<String, ValueError> {
    let authority = host::Authority::parse(text.as_bytes())?;
    match authority.port {
        Some(_) if authority.to_string() == text => Ok(text.to_owned()),
        Some(_) => Err(ValueError::NotCanonical),
        None => Err(ValueError::NoPort),
    }
}

fn data_plane(text: &str) -> Result<Result<SocketAddr, PathBuf>, ValueError> {
    if text.starts_with("unix:") {
        return socket(text).map(Err);
    }
    let address: SocketAddr = text.parse().map_err(|_| ValueError::NotLoopback)?;
    if address.ip().is_loopback() { Ok(Ok(address)) } else { Err(ValueError::NotLoopback) }
}

fn socket(text: &str) -> Result<PathBuf, ValueError> {
    text.strip_prefix("unix:").filter(|path| !path.is_empty()).map(PathBuf::from).ok_or(ValueError::Socket)
}

fn syslog_address(text: &str) -> Result<SyslogAddress, ValueError> {
    let is_address = |address: &str| {
        let (host, port) = address.rsplit_once(':')?;
        (!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)).then(|| address.to_owned())
    };
    let (kind, rest) = text.split_once(':').ok_or(ValueError::Syslog)?;
    match kind {
        "unix" if rest.starts_with('/') => Ok(SyslogAddress::Unix(rest.into())),
        "udp" => is_address(rest).map(SyslogAddress::Udp).ok_or(ValueError::Syslog),
        "tcp" => is_address(rest).map(SyslogAddress::Tcp).ok_or(ValueError::Syslog),
        _ => Err(ValueError::Syslog),
    }
}

fn url(text: &str) -> Result<String, ValueError> {
    let url: http::Uri = text.parse().map_err(|_| ValueError::Url)?;
    let is_http = matches!(url.scheme_str(), Some("http" | "https"));
    let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let is_plain = !authority.is_empty() && !authority.contains('@') && url.query().is_none();
    if is_http && is_plain { Ok(text.to_owned()) } else { Err(ValueError::Url) }
}

fn path_prefix(text: &str) -> Result<String, ValueError> {
    let plain = text.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b'?' && b != b'#');
    if plain && check_path(text.as_bytes()).is_ok() { Ok(text.to_owned()) } else { Err(ValueError::PathPrefix) }
}

fn variable(text: &str) -> Result<String, ValueError> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let begins = text.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if plain && begins { Ok(text.to_owned()) } else { Err(ValueError::Variable) }
}

fn file_name(text: &str) -> Result<PathBuf, ValueError> {
    let path = Path::new(text);
    let below = path.components().all(|part| matches!(part, Component::Normal(_)));
    if below && !text.is_empty() && !text.contains('\0') { Ok(path.to_owned()) } else { Err(ValueError::FileName) }
}

fn pin(text: &str) -> Result<String, ValueError> {
    let digest = base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| ValueError::Pin)?;
    if digest.len() == 32 { Ok(text.to_owned()) } else { Err(ValueError::Pin) }
}

fn label(text: &str) -> Result<String, ValueError> {
    let plain = (1..=64).contains(&text.len()) && text.bytes().all(|b| (0x21..0x7f).contains(&b));
    if plain { Ok(text.to_owned()) } else { Err(ValueError::Label) }
}

fn issuer(text: &str) -> Result<String, ValueError> {
    let plain = (1..=512).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if plain { Ok(text.to_owned()) } else { Err(ValueError::Issuer) }
}

impl Default for IdentityHeader {
    fn default() -> Self {
        Self("x-attache-identity".to_owned())
    }
}

fn identity_header(text: &str) -> Result<String, ValueError> {
    let plain = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    // Headers that carry credentials, ours or a destination's, and those that Envoy or HTTP live by.
    let own = text.starts_with("x-") && !text.starts_with("x-envoy-") && !text.starts_with("x-forwarded-");
    let taken = AUTH_HEADERS.contains(&text.as_bytes()) || text == "x-request-id";
    if plain && own && !taken { Ok(text.to_owned()) } else { Err(ValueError::IdentityHeader) }
}

fn claim_pattern(text: &str) -> Result<String, ValueError> {
    let says_something = text.bytes().any(|b| b != b'*');
    if says_something && text.len() <= 512 { Ok(text.to_owned()) } else { Err(ValueError::ClaimPattern) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts<T: TryFrom<String>>(texts: &[&str]) {
        for text in texts {
            assert!(T::try_from((*text).to_owned()).is_ok(), "{text:?}");
        }
    }

    fn refuses<T: TryFrom<String>>(texts: &[&str]) {
        for text in texts {
            assert!(T::try_from((*text).to_owned()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn hosts_have_one_spelling() {
        accepts::<Host>(&["api.github.com", "unifi.lan", "127.0.0.1", "[::1]", "localhost"]);
        refuses::<Host>(&["API.github.com", "a.b.", "127.1", "0x7f.1", "*.github.com", "a:1", "u@h", "[0:0::1]", ""]);
    }

    #[test]
    fn servers_are_reached_by_tls_or_on_this_machine() {
        accepts::<ServerUrl>(&["https://bao.lan:8200", "https://bao.lan/", "http://127.0.0.1:8200", "http://[::1]:1"]);
        refuses::<ServerUrl>(&[
            "http://bao.lan:8200",
            "https://u:p@bao.lan",
            "https://bao.lan/?x",
            "bao.lan",
            "ftp://a",
        ]);
        accepts::<ApiPath>(&["secret/data/github", "database/creds/ro", "kv/data/a.b_c-d"]);
        refuses::<ApiPath>(&["", "/secret", "v1/secret", "a//b", "a/../b", "a?b", "a%2fb", "a/", "a b", "a\\b"]);
    }

    #[test]
    fn dns_servers_are_addresses_with_a_port() {
        accepts::<DnsServer>(&["127.0.0.1:53", "[::1]:5354"]);
        refuses::<DnsServer>(&["", "127.0.0.1", "127.0.0.1:0", "dns.lan:53", "127.1:53", "::1:53"]);
    }

    #[test]
    fn secrets_cross_no_network_in_the_clear() {
        accepts::<DataPlane>(&["127.0.0.1:3031", "127.0.0.1:0", "[::1]:1", "unix:data.sock", "unix:/run/a.sock"]);
        refuses::<DataPlane>(&["0.0.0.0:3031", "10.0.0.1:3031", "localhost:3031", "unix:", "data.sock"]);
    }

    #[test]
    fn secret_files_stay_below_their_directory() {
        accepts::<FileName>(&["github_token", "team/github"]);
        refuses::<FileName>(&["../x", "/etc/passwd", "a/../b", "", ".", "./a", "a\0"]);
    }

    #[test]
    fn names_of_kubernetes_are_as_it_takes_them() {
        accepts::<KubernetesName>(&["github", "a.b-c", "0"]);
        refuses::<KubernetesName>(&["", "A", "a_b", "-a", "a-", "a..b", "a/b", "../x", "a%2fb"]);
        accepts::<KubernetesNamespace>(&["agents", "a-1"]);
        refuses::<KubernetesNamespace>(&["", "a.b", "a/secrets/b", "x?"]);
        accepts::<KubernetesKey>(&["token", "TLS.crt", "a_b-c"]);
        refuses::<KubernetesKey>(&["", "..", "a/b", "a b"]);
    }

    #[test]
    fn units_are_read() {
        assert_eq!(Period::try_from("8h".to_owned()).unwrap().0, Duration::from_secs(8 * 3600));
        assert_eq!(Period::try_from("15m".to_owned()).unwrap().0, Duration::from_secs(15 * 60));
        assert_eq!(Size::try_from("100MB".to_owned()).unwrap().0, 100_000_000);
        assert_eq!(Size::try_from("64KiB".to_owned()).unwrap().0, 65_536);
        refuses::<Period>(&["8", "h", "-1s", "1 fortnight"]);
        refuses::<Size>(&["many", "-1MB", "1XB"]);
    }

    #[test]
    fn exports_go_to_one_place_each() {
        accepts::<SyslogTo>(&["unix:/dev/log", "udp:127.0.0.1:514", "tcp:logs.lan:6514", "udp:[::1]:514"]);
        refuses::<SyslogTo>(&["", "/dev/log", "unix:", "unix:log", "udp:logs", "tcp::514", "tcp:a:0", "tls:a:1"]);
        accepts::<Url>(&["http://127.0.0.1:4318/v1/logs", "https://otel.lan/v1/logs"]);
        refuses::<Url>(&["otel.lan", "ftp://a/", "http://u:p@otel.lan/", "http://a/?key=x", "http://"]);
    }

    #[test]
    fn words_are_plain() {
        accepts::<PathPrefix>(&["/", "/proxy/network/", "/a"]);
        refuses::<PathPrefix>(&["a", "/a/../b", "//a", "/a?b", "/a b", "/%2e%2e", "/ü"]);
        accepts::<Variable>(&["GITHUB_TOKEN", "_x"]);
        refuses::<Variable>(&["", "1X", "A-B", "A=B"]);
        accepts::<ClusterName>(&["outbound|443||api.github.com", "outbound|443|v1|a"]);
        refuses::<ClusterName>(&["", "a b", "a\"b", "a\\b", "ü"]);
        accepts::<DialAddress>(&["127.0.0.1:9443", "unifi.lan:1", "[::1]:80"]);
        accepts::<FolderPath>(&["/", "/apps", "/apps/reviewer/"]);
        refuses::<FolderPath>(&["", "apps", "/a//b", "/a/../b", "/a b"]);
        accepts::<Segment>(&["GITHUB_TOKEN", "a.b-c"]);
        refuses::<Segment>(&["", "a/b", "..", "a b", "a?b", "a%2fb"]);
        refuses::<DialAddress>(&["127.0.0.1", "127.1:80", "a:0", "A:1"]);
        accepts::<Pin>(&["47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="]);
        refuses::<Pin>(&["", "YWJj", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]);
    }
}
