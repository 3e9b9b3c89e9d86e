//! Our reading of a request against Envoy's: of the same bytes, where does each of us say that they lead?
//!
//! A credential goes where Envoy sends the request, for reasons that our filter found. Where the two read
//! a host or a path in different ways, it goes where nobody decided that it may. So many generated requests,
//! half of HTTP/1 and half of HTTP/2, are read by both; every difference is refused by one of us, or is in
//! the table below with the reason why it does no harm. Envoy dials nobody for it: its routes answer.

#[path = "differential/cases.rs"]
mod cases;
#[path = "differential/envoy.rs"]
mod envoy;

use std::collections::BTreeMap;
use std::sync::Arc;

use attache_core::headers;
use attache_core::policy::Policy;
use attache_core::request::{Snapshot, Way, identify};

use crate::cases::{Dice, Written};
use crate::envoy::{Said, World};

/// How many requests `make test` tries; `make differential` more.
const COUNT: usize = 100_000;
const SEED: u64 = 2026;

/// Where we say that a request leads: the destination's id, and the target that it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ours {
    destination: String,
    target: Vec<u8>,
}

/// What we make of an authority and a target. `None`: it is refused.
fn ours(policy: &Policy, authority: &[u8], target: &[u8]) -> Option<Ours> {
    let lines: [(&str, &[u8]); 3] = [(":method", b"GET"), (":authority", authority), (":path", target)];
    let snapshot = Snapshot::read(headers::serialize(lines), policy);
    let asked = identify(&snapshot, policy).ok()?;
    let Way::Unclaimed(index) = asked.way else { panic!("{asked:?} of a policy that lets all pass") };
    let bytes = snapshot.bytes();
    let query = asked.query.map(|query| [b"?", query.of(bytes)].concat()).unwrap_or_default();
    let target = [asked.path.of(bytes), &query].concat();
    Some(Ours { destination: policy.destination(index)?.id.to_string(), target })
}

/// A way in which what Envoy hands on differs from what was written, where we would have let both through.
/// `docs/differential.md` says of each why it does no harm.
const KNOWN: [&str; 2] =
    ["Envoy writes a byte plainly that needs no escape", "Envoy escapes a byte that may not stand in a path as it is"];

/// Which of [`KNOWN`] make this path of that one; `None`: some other difference does.
fn respelt(meant: &[u8], read: &[u8]) -> Option<[bool; 2]> {
    let escape = |text: &[u8]| match text {
        [b'%', high, low, ..] => u8::from_str_radix(std::str::from_utf8(&[*high, *low]).ok()?, 16).ok(),
        _ => None,
    };
    let (mut meant, mut read, mut known) = (meant, read, [false; 2]);
    while let ([a, meant_rest @ ..], [b, read_rest @ ..]) = (meant, read) {
        let unreserved = b.is_ascii_alphanumeric() || b"-._~".contains(b);
        // What a segment may hold (RFC 3986, 3.3), and what ends the path.
        let allowed = a.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%?".contains(a);
        (meant, read) = if a == b {
            (meant_rest, read_rest)
        } else if escape(meant) == Some(*b) && unreserved {
            known[0] = true;
            (&meant[3..], read_rest)
        } else if escape(read) == Some(*a) && !allowed {
            known[1] = true;
            (meant_rest, &read[3..])
        } else {
            return None;
        };
    }
    (meant.is_empty() && read.is_empty()).then_some(known)
}

/// What was found of all requests, by kind.
#[derive(Debug, Default)]
struct Tally(BTreeMap<&'static str, usize>);

impl Tally {
    fn count(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }
}

/// Holds one request: where we would let it through, Envoy refuses it or reads the same.
fn judge(policy: &Policy, case: &Written, said: &Said) -> Result<&'static str, String> {
    let meant = case.meant();
    let as_written = meant.and_then(|(authority, target)| ours(policy, authority, target));
    let Said::Read { route, authority, path } = said else {
        return Ok(if as_written.is_some() { "Envoy alone refuses" } else { "both refuse" });
    };
    // The filter judges what Envoy hands it, and Envoy goes by the route that it selects for it.
    let as_handed = ours(policy, authority, path);
    if let Some(ours) = &as_handed
        && ours.destination != *route
    {
        return Err(format!("we decide for {}, Envoy's route leads to {route}", ours.destination));
    }
    let Some(as_written) = as_written else {
        return Ok(if as_handed.is_some() { "Envoy mends it, and we take what it made" } else { "we alone refuse" });
    };
    let meant = meant.expect("what was read is there");
    let other = || "Envoy hands on other bytes than we would have accepted".to_owned();
    if !authority.eq_ignore_ascii_case(meant.0) {
        return Err(other());
    }
    let end = |target: &[u8]| memchr::memchr(b'?', target).unwrap_or(target.len());
    let ((meant, meant_query), (path, query)) = (meant.1.split_at(end(meant.1)), path.split_at(end(path)));
    if meant_query != query {
        return Err(other());
    }
    match respelt(meant, path) {
        Some([false, false]) if as_handed == Some(as_written) => Ok("both read the same"),
        Some([false, false]) => Err("the same bytes are read in two ways".into()),
        Some([true, _]) => Ok(KNOWN[0]),
        Some([_, true]) => Ok(KNOWN[1]),
        None => Err(other()),
    }
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_and_the_filter_read_the_same_host_and_path() {
    let (seed, count) = (setting("ATTACHE_DIFFERENTIAL_SEED", SEED), setting("ATTACHE_DIFFERENTIAL_COUNT", COUNT));
    let world = World::start().await;
    let policy = Policy::compile(world.spec.clone()).expect("a policy");
    let (mut dice, mut tally, mut wrong) = (Dice(seed), Tally::default(), Vec::new());
    let mut left = count;
    while left > 0 {
        let cases: Arc<Vec<Written>> = Arc::new((0..left.min(8192)).map(|_| dice.request()).collect());
        left -= cases.len();
        let mut taken = Vec::new();
        for (case, said) in cases.iter().zip(world.ask(&cases).await) {
            match judge(&policy, case, &said) {
                Ok(kind) => tally.count(kind),
                Err(why) => wrong.push(format!("{why}\n    {case}\n    {said}")),
            }
            if let Said::Read { authority, path, .. } = said {
                taken.extend(ours(&policy, &authority, &path).map(|ours| (case.clone(), ours)));
            }
        }
        // What both let through is forwarded, too: it arrives as we said.
        let (cases, expected): (Vec<Written>, Vec<Ours>) = taken.into_iter().unzip();
        let cases = Arc::new(cases);
        for ((case, ours), said) in cases.iter().zip(expected).zip(world.send(&cases).await) {
            tally.count("forwarded");
            let host = ours.destination.strip_suffix(":443").unwrap_or(&ours.destination).as_bytes().to_vec();
            let arrives = Said::Read { route: envoy::ARRIVED.into(), authority: host, path: ours.target };
            if said != arrives {
                wrong.push(format!(
                    "another request arrives than was decided on\n    {case}\n    {said}, not {arrives}"
                ));
            }
        }
    }
    println!("seed {seed}, {count} requests: {:#?}", tally.0);
    let shown = wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "seed {seed}: {} of {count} requests are read in two ways:\n{shown}", wrong.len());
    if count >= COUNT {
        // A generator of nothing but nonsense would find nothing.
        let kinds =
            KNOWN.iter().chain(&["both read the same", "both refuse", "Envoy alone refuses", "we alone refuse"]);
        for kind in kinds {
            assert!(tally.0.contains_key(kind), "none of {count} requests is of this kind: {kind}");
        }
        assert!(tally.0["forwarded"] * 10 > count, "few of them get through");
    }
}
