//! Medians and how far to trust them. No distribution is assumed: slices on a
//! shared machine have tails.

use serde_json::{Value, json};

/// The median, or `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The 95 % confidence interval of the median by order statistics.
///
/// Under six values no pair of order statistics reaches 95 %: the full range is
/// given then, and nothing under three.
pub fn median_interval(values: &[f64]) -> Option<(f64, f64)> {
    let sorted = sorted(values);
    if sorted.len() < 3 {
        return None;
    }
    let dropped = values_to_drop(sorted.len());
    Some((sorted[dropped], sorted[sorted.len() - 1 - dropped]))
}

/// How many values each end loses so that what is left still covers the median
/// in 95 % of the cases: the largest `k` with P(X ≤ k) ≤ 2.5 % for
/// X ~ Binomial(n, ½).
fn values_to_drop(n: usize) -> usize {
    let mut term = 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    let mut tail = term;
    let mut k = 0;
    while tail + next_term(term, n, k) <= 0.025 {
        term = next_term(term, n, k);
        tail += term;
        k += 1;
    }
    k
}

/// P(X = k+1) from P(X = k).
fn next_term(term: f64, n: usize, k: usize) -> f64 {
    term * (n - k) as f64 / (k + 1) as f64
}

/// The value below which this share of all lies, by nearest rank: one that was measured.
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let rank = (share * values.len() as f64).ceil() as usize;
    sorted(values).get(rank.clamp(1, values.len().max(1)) - 1).copied()
}

/// The 95 % confidence interval of a quantile by order statistics; `None` where there are too few values beyond it.
///
/// How many of n values lie below the true quantile is X ~ Binomial(n, share): the interval ends at the last rank
/// `low` with P(X < low) ≤ 2.5 %, and at the first rank `high` with P(X ≥ high) ≤ 2.5 %.
pub fn quantile_interval(values: &[f64], share: f64) -> Option<(f64, f64)> {
    let n = values.len();
    // In logarithms: the ends of a binomial distribution underflow.
    let (mut log, step) = (n as f64 * (1.0 - share).ln(), (share / (1.0 - share)).ln());
    let (mut below, mut low, mut high) = (0.0, 0, None);
    for k in 0..=n {
        // `below` is P(X < k).
        if below <= 0.025 {
            low = k;
        }
        if high.is_none() && 1.0 - below <= 0.025 {
            high = Some(k);
        }
        below += log.exp();
        log += ((n - k) as f64 / (k + 1) as f64).ln() + step;
    }
    let sorted = sorted(values);
    let at = |rank: usize| rank.checked_sub(1).and_then(|index| sorted.get(index)).copied();
    Some((at(low)?, at(high?)?))
}

/// Half, 99 % and the most of many times, each of the first two with half of its 95 % interval; `±?` where there are too
/// few values beyond it.
pub fn spread_cell(values: &[f64], decimals: usize) -> String {
    let Some(most) = quantile(values, 1.0) else { return "-".to_owned() };
    let at = |share| {
        let value = quantile(values, share).unwrap_or_default();
        let error = quantile_interval(values, share).map(|(low, high)| (high - low) / 2.0);
        let error = error.map_or("?".to_owned(), |error| format!("{error:.decimals$}"));
        format!("{value:.decimals$} ±{error}")
    };
    format!("{} / {} / {most:.decimals$}", at(0.5), at(0.99))
}

/// The same as JSON, with whole intervals.
pub fn spread(values: &[f64]) -> Value {
    let interval = |share| quantile_interval(values, share).map(|(low, high)| [low, high]);
    json!({
        "p50": quantile(values, 0.5), "p50_interval": interval(0.5),
        "p99": quantile(values, 0.99), "p99_interval": interval(0.99),
        "most": quantile(values, 1.0),
    })
}

/// The slope of the line through these points by least squares; `None` unless two stand apart.
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let over = points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>();
    (over > 0.0).then(|| points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / over)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_even_counts_lies_between_the_middle_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn the_interval_drops_what_the_binomial_table_says() {
        // From the table for the 95 % interval of a median (sign test):
        // n = 6 and 8 keep the range, 9 drops one each side, 15 drops 3, 20 drops 5.
        for (n, dropped) in [(1, 0), (6, 0), (8, 0), (9, 1), (15, 3), (20, 5)] {
            assert_eq!(values_to_drop(n), dropped, "n = {n}");
        }
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(median_interval(&values), Some((6.0, 15.0)));
        assert_eq!(median_interval(&values[..3]), Some((1.0, 3.0)));
        assert_eq!(median_interval(&values[..2]), None);
    }

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), Some(100.0));
        assert_eq!(quantile(&values, 0.99), Some(198.0));
        assert_eq!(quantile(&[7.0], 0.5), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn a_spread_says_where_too_few_values_lie_beyond() {
        let values = |n: u32| (1..=n).map(f64::from).collect::<Vec<_>>();
        assert_eq!(spread_cell(&[], 1), "-");
        assert_eq!(spread_cell(&values(200), 0), "100 ±14 / 198 ±? / 200");
        assert_eq!(spread_cell(&values(500), 0), "250 ±22 / 495 ±5 / 500");
        assert_eq!(spread(&values(200))["p99_interval"], Value::Null);
        assert_eq!(spread(&values(500))["p99_interval"], json!([490.0, 500.0]));
    }

    #[test]
    fn the_interval_of_a_quantile_needs_values_beyond_it() {
        let of = |n: u32, share| quantile_interval(&(1..=n).map(f64::from).collect::<Vec<_>>(), share);
        // As the median's own, which is symmetric.
        assert_eq!(of(20, 0.5), Some((6.0, 15.0)));
        assert_eq!(of(5, 0.5), None);
        // 0.95^72 = 2.49 %: of fewer values all may lie below the quantile.
        assert_eq!(of(71, 0.95), None);
        assert_eq!(of(73, 0.95).map(|(_, high)| high), Some(73.0));
        // From tables of Binomial(600, 0.99): P(X < 589) = 2.0 %, P(X >= 599) = 1.7 %.
        assert_eq!(of(600, 0.99), Some((589.0, 599.0)));
        assert_eq!(of(0, 0.5), None);
    }

    #[test]
    fn a_slope_is_what_one_more_adds_and_not_where_it_begins() {
        let points = [1.0, 2.0, 4.0, 8.0].map(|x| (x, 100.0 + 3.0 * x));
        assert!((slope(&points).unwrap() - 3.0).abs() < 1e-9);
        assert_eq!(slope(&points[..1]), None);
        assert_eq!(slope(&[]), None);
    }

    #[test]
    fn one_wild_value_moves_neither() {
        let mut values: Vec<f64> = (1..=20).map(f64::from).collect();
        values[19] = 1e9;
        assert_eq!(median(&values), Some(10.5));
        assert_eq!(median_interval(&values), Some((6.0, 15.0)));
    }
}
