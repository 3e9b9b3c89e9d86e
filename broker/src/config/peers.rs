//! Which session a workload is, by the SPIFFE ID that Envoy has verified. Written, and resolved.

use super::bind::PeerId;
use super::values::ValueError;
use attache_core::names::Name;
use schemars::JsonSchema;
use serde::Deserialize;

/// A rule: workloads with such an ID are this session.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerRule {
    /// A SPIFFE ID, in whose path `*` stands for one whole segment.
    pub id: PeerPattern,
    /// The session, one that this file declares.
    pub session: Name,
}

/// A SPIFFE ID in whose path a segment may be `*`: any one segment. The trust domain is written out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct PeerPattern(String);

impl PeerPattern {
    /// Whether an ID fits: segment by segment, as many as there are.
    pub fn fits(&self, id: &PeerId) -> bool {
        let (mut wanted, mut shown) = (self.0.split('/'), id.as_str().split('/'));
        loop {
            match (wanted.next(), shown.next()) {
                (None, None) => return true,
                (Some(wanted), Some(shown)) if wanted == "*" || wanted == shown => {}
                _ => return false,
            }
        }
    }
}

impl TryFrom<String> for PeerPattern {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        // A segment in its place shows whether the rest is an ID. No domain is made of capital letters.
        let filled: Vec<_> = text.split('/').map(|segment| if segment == "*" { "ANY" } else { segment }).collect();
        filled.join("/").parse::<PeerId>().map(|_| Self(text)).map_err(|_| ValueError::PeerPattern)
    }
}

/// The session of the first rule that fits.
pub fn session<'a>(rules: &'a [PeerRule], id: &PeerId) -> Option<&'a Name> {
    rules.iter().find(|rule| rule.id.fits(id)).map(|rule| &rule.session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_whole_segment_of_the_path() {
        for (pattern, id, fits) in [
            ("spiffe://a/ns/agents/sa/*", "spiffe://a/ns/agents/sa/reviewer", true),
            ("spiffe://a/ns/agents/sa/*", "spiffe://a/ns/agents/sa", false),
            ("spiffe://a/ns/agents/sa/*", "spiffe://a/ns/agents/sa/x/y", false),
            ("spiffe://a/ns/agents/sa/*", "spiffe://a/ns/others/sa/x", false),
            ("spiffe://a/ns/*/sa/x", "spiffe://a/ns/b/sa/x", true),
            ("spiffe://a/ns/*/sa/x", "spiffe://a/ns/b/c/sa/x", false),
            ("spiffe://a/ns/*/sa/x", "spiffe://b/ns/b/sa/x", false),
            ("spiffe://a/x", "spiffe://a/x", true),
            ("spiffe://a/x", "spiffe://a/xy", false),
        ] {
            let pattern = PeerPattern::try_from(pattern.to_owned()).unwrap();
            assert_eq!(pattern.fits(&id.parse().unwrap()), fits, "{pattern:?} {id}");
        }
    }

    #[test]
    fn a_pattern_names_its_trust_domain_and_no_half_of_a_segment() {
        for bad in
            ["", "*", "spiffe://*", "spiffe://*/a", "spiffe://a/b*", "spiffe://a/**", "spiffe://a//*", "https://a/*"]
        {
            assert!(PeerPattern::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_names_the_session() {
        let rule = |id: &str, session: &str| PeerRule {
            id: PeerPattern::try_from(id.to_owned()).unwrap(),
            session: Name::parse(session).unwrap(),
        };
        let rules = [rule("spiffe://a/ns/x/sa/one", "one"), rule("spiffe://a/ns/x/sa/*", "any")];
        let named = |id: &str| session(&rules, &id.parse().unwrap()).map(Name::as_str);
        assert_eq!(named("spiffe://a/ns/x/sa/one"), Some("one"));
        assert_eq!(named("spiffe://a/ns/x/sa/two"), Some("any"));
        assert_eq!(named("spiffe://a/ns/y/sa/two"), None);
    }
}
