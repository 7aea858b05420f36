//! The few statistics that the report needs.

/// The middle value; the mean of the two in the middle of an even number. `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(sorted[middle - 1], upper))
}

/// The values in between which the middle half of `values` lies. `None` of nothing.
pub(crate) fn middle_half(values: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let quarter = sorted.len() / 4;
    let last = sorted.len().checked_sub(quarter + 1)?;
    Some((sorted[quarter], sorted[last]))
}

/// The median of what `combine` makes of the pairs of two series: what disturbs both sides of a
/// pair alike, as a slow moment of the machine does, cancels out before the median is taken.
pub(crate) fn median_of_pairs(
    first: &[f64],
    second: &[f64],
    combine: impl Fn(f64, f64) -> f64,
) -> Option<f64> {
    median(&of_pairs(first, second, combine))
}

/// What `combine` makes of the pairs of two series.
pub(crate) fn of_pairs(
    first: &[f64],
    second: &[f64],
    combine: impl Fn(f64, f64) -> f64,
) -> Vec<f64> {
    let pairs = first.iter().zip(second);
    pairs
        .map(|(first, second)| combine(*first, *second))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 9.0, 2.0]), Some(3.0));
    }

    #[test]
    fn a_quarter_on_either_side_is_not_in_the_middle_half() {
        assert_eq!(middle_half(&[]), None);
        assert_eq!(middle_half(&[3.0]), Some((3.0, 3.0)));
        assert_eq!(middle_half(&[4.0, 1.0, 9.0, 2.0]), Some((2.0, 4.0)));
        let twenty: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!(middle_half(&twenty), Some((6.0, 15.0)));
    }

    #[test]
    fn a_slow_moment_of_both_does_not_change_their_ratio() {
        let (ours, peer) = ([10.0, 1.0, 10.0], [20.0, 2.0, 20.0]);
        let ratio = median_of_pairs(&ours, &peer, |ours, peer| ours / peer);
        assert_eq!(ratio, Some(0.5));
    }
}
