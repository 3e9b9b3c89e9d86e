//! What a scrape tells, and what a query asks for: names and labels, read as text. Prometheus reads both for itself; this also
//! says so where there is none.

use std::collections::{BTreeMap, BTreeSet};

/// Samples by name: their labels, one set of pairs for each.
#[derive(Default)]
pub struct Exposition(BTreeMap<String, Vec<BTreeMap<String, String>>>);

/// A selector of a query.
#[derive(Debug)]
pub struct Selector {
    pub metric: String,
    pub matchers: Vec<(String, String)>,
}

/// What Prometheus itself adds to each sample.
const ADDED: [&str; 2] = ["instance", "job"];

impl Exposition {
    /// The pages of several scrapes.
    pub fn read(pages: &[&str]) -> Self {
        let mut all = Self::default();
        for line in pages.iter().flat_map(|page| page.lines()).filter(|line| !line.starts_with('#')) {
            let name: String = line.chars().take_while(|c| is_word(*c)).collect();
            let rest = &line[name.len()..];
            let labels = rest.strip_prefix('{').and_then(|rest| Some(rest.rsplit_once('}')?.0)).unwrap_or_default();
            if !name.is_empty() {
                all.0.entry(name).or_default().push(pairs(labels).collect());
            }
        }
        all.0.insert("up".into(), vec![BTreeMap::new()]);
        all
    }

    /// All names that begin so.
    pub fn names(&self, beginning: &str) -> BTreeSet<String> {
        self.0.keys().filter(|name| name.starts_with(beginning)).cloned().collect()
    }

    /// What a query asks for that is not there.
    pub fn lacks(&self, query: &str) -> Vec<String> {
        let selectors = selectors(query);
        let mut lacking = Vec::new();
        let mut labels: BTreeSet<&str> = ADDED.into();
        for Selector { metric, matchers } in &selectors {
            let Some(samples) = self.0.get(metric) else {
                lacking.push(format!("no metric {metric}"));
                continue;
            };
            labels.extend(samples.iter().flat_map(|sample| sample.keys()).map(String::as_str));
            let matchers: Vec<_> = matchers.iter().filter(|(label, _)| !ADDED.contains(&label.as_str())).collect();
            let fits = |sample: &BTreeMap<_, _>| matchers.iter().all(|(label, value)| sample.get(label) == Some(value));
            if !samples.iter().any(fits) {
                lacking.push(format!("no {metric} with {matchers:?}"));
            }
        }
        lacking.extend(
            grouped(query)
                .into_iter()
                .filter(|label| !labels.contains(label.as_str()))
                .map(|label| format!("no label {label} to group by")),
        );
        if selectors.is_empty() {
            lacking.push("nothing is asked for".into());
        }
        lacking
    }
}

/// Every selector of a query: a metric of ours, of the process or of Prometheus itself.
pub fn selectors(query: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(at) = rest.find(is_word) {
        rest = &rest[at..];
        let word: String = rest.chars().take_while(|c| is_word(*c)).collect();
        rest = &rest[word.len()..];
        if word.starts_with("attache_") || word.starts_with("process_") || word == "up" {
            let within = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let matchers = within.map(|(within, _)| pairs(within).collect()).unwrap_or_default();
            rest = within.map_or(rest, |(_, behind)| behind);
            found.push(Selector { metric: word, matchers });
        } else if let Some((_, behind)) = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
            rest = behind;
        }
    }
    found
}

/// The labels of every `by (…)` and `on (…)`.
fn grouped(query: &str) -> Vec<String> {
    let lists = ["by (", "on ("].into_iter().flat_map(|word| query.split(word).skip(1));
    let lists = lists.filter_map(|rest| rest.split_once(')'));
    lists.flat_map(|(list, _)| list.split(',')).map(|label| label.trim().to_owned()).collect()
}

/// `name="value"` pairs, commas between them; no value of ours holds a quote.
fn pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    text.split("\",").filter_map(|pair| {
        let (name, value) = pair.trim().split_once("=\"")?;
        Some((name.trim().to_owned(), value.trim_end_matches('"').to_owned()))
    })
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

#[test]
fn what_a_query_lacks_is_found() {
    let page = "# TYPE attache_a counter\nattache_a{outcome=\"x\",reason=\"\"} 1\nattache_b{} 2\n";
    let all = Exposition::read(&[page]);
    let good = ["attache_a", "sum by (outcome) (rate(attache_a{outcome=\"x\"}[5m])) > 0", "up{job=\"j\"} + attache_b"];
    for query in good {
        assert_eq!(all.lacks(query), [] as [&str; 0], "{query}");
    }
    let bad =
        ["attache_c", "attache_a{outcome=\"y\"}", "attache_b{outcome=\"x\"}", "sum by (reason) (attache_b)", "1 + 1"];
    for query in bad {
        assert_eq!(all.lacks(query).len(), 1, "{query}: {:?}", all.lacks(query));
    }
}
