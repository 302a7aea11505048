//! Counters from a node's `/metrics` page.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::child::get;

/// The counters and gauges of a page: each as `name{label="value"}`, and as `name` with labels added up.
#[derive(Clone, Debug, Default)]
pub struct Page(BTreeMap<String, f64>);

impl Page {
    /// As of now; empty where there is no such page.
    pub fn of(http: SocketAddr) -> Page {
        get(http, "/metrics").map(|answer| Page::parse(&answer.body)).unwrap_or_default()
    }

    fn parse(text: &str) -> Page {
        let mut values = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            // Quantiles of summaries do not add up.
            if name.contains("quantile=") {
                continue;
            }
            if let Some((bare, _)) = name.split_once('{') {
                *values.entry(bare.to_owned()).or_insert(0.0) += value;
            }
            *values.entry(name.to_owned()).or_insert(0.0) += value;
        }
        Page(values)
    }

    /// A value, if the page has it.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// How much a counter grew since `before`.
    pub fn since(&self, before: &Page, name: &str) -> Option<f64> {
        Some(self.get(name)? - before.get(name).unwrap_or(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_added_up_and_quantiles_left_out() {
        let before = Page::parse("# TYPE a counter\na{shard=\"1\"} 2\na{shard=\"2\"} 3\n");
        let after = Page::parse("a{shard=\"1\"} 4\na{shard=\"2\"} 3.5\nb{quantile=\"0.5\"} 9\nb_sum 1e3\nnonsense\n");
        assert_eq!(after.since(&before, "a"), Some(2.5));
        assert_eq!(after.since(&before, "a{shard=\"1\"}"), Some(2.0));
        assert_eq!((after.get("b"), after.get("b_sum")), (None, Some(1000.0)));
    }
}
