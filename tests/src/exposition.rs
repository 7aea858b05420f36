//! A strict reader of Prometheus's text format, version 0.0.4: what the format allows and its conventions
//! forbid is an error, too.

use std::collections::{BTreeMap, BTreeSet};

/// A sample: its labels, and its value.
pub type Sample = (BTreeMap<String, String>, f64);

/// All samples, by the name that stands before their labels.
#[derive(Debug, Default)]
pub struct Exposition {
    samples: BTreeMap<String, Vec<Sample>>,
    /// By the name of the metric.
    kinds: BTreeMap<String, String>,
    helped: BTreeSet<String>,
}

impl Exposition {
    /// Reads a page.
    ///
    /// # Errors
    /// The first line that is wrong, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut page = Self::default();
        let body = text.strip_suffix('\n').ok_or("no newline at the end")?;
        let mut current = String::new();
        for line in body.split('\n') {
            page.line(line, &mut current)
                .map_err(|reason| format!("{reason}: {line}"))?;
        }
        page.check_histograms()?;
        Ok(page)
    }

    /// The value of the sample with exactly these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: BTreeMap<_, _> = labels
            .iter()
            .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
            .collect();
        let samples = self.samples.get(name)?;
        let found = samples.iter().find(|(of_sample, _)| *of_sample == labels)?;
        Some(found.1)
    }

    fn line(&mut self, line: &str, current: &mut String) -> Result<(), &'static str> {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or("HELP without a text")?;
            let is_new = self.helped.insert(name.to_owned());
            *current = name.to_owned();
            return match is_new && !help.is_empty() {
                true => Ok(()),
                false => Err("HELP twice, or empty"),
            };
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or("TYPE without a kind")?;
            if name != current {
                return Err("TYPE does not follow its HELP");
            }
            return self.kind(name, kind);
        }
        let (name, labels, value) = sample(line)?;
        self.sample(current, name, labels, value)
    }

    fn kind(&mut self, name: &str, kind: &str) -> Result<(), &'static str> {
        if kind == "counter" && !name.ends_with("_total") {
            return Err("a counter that does not end in _total");
        }
        if kind != "counter" && name.ends_with("_total") {
            return Err("what ends in _total is no counter");
        }
        if !matches!(kind, "counter" | "gauge" | "histogram") {
            return Err("an unknown kind");
        }
        match self.kinds.insert(name.to_owned(), kind.to_owned()) {
            None => Ok(()),
            Some(_) => Err("TYPE twice"),
        }
    }

    fn sample(
        &mut self,
        current: &str,
        name: &str,
        labels: BTreeMap<String, String>,
        value: f64,
    ) -> Result<(), &'static str> {
        let kind = self.kinds.get(current).ok_or("a sample without TYPE")?;
        let suffix = name
            .strip_prefix(current)
            .ok_or("a sample of another metric")?;
        let fits = match kind.as_str() {
            "histogram" => matches!(suffix, "_bucket" | "_sum" | "_count"),
            _ => suffix.is_empty(),
        };
        if !fits {
            return Err("a sample of another metric");
        }
        if value < 0.0 || !value.is_finite() {
            return Err("a value that cannot be");
        }
        let samples = self.samples.entry(name.to_owned()).or_default();
        if samples.iter().any(|(known, _)| *known == labels) {
            return Err("the same labels twice");
        }
        samples.push((labels, value));
        Ok(())
    }

    /// Buckets ascend, and the last one, which has no bound, is the count.
    fn check_histograms(&self) -> Result<(), String> {
        let histograms = self.kinds.iter().filter(|(_, kind)| *kind == "histogram");
        for (name, _) in histograms {
            let counts = self.samples.get(&format!("{name}_count"));
            for (labels, count) in counts.into_iter().flatten() {
                self.check_histogram(name, labels, *count)
                    .map_err(|reason| format!("{name} {labels:?}: {reason}"))?;
            }
        }
        Ok(())
    }

    fn check_histogram(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        count: f64,
    ) -> Result<(), &'static str> {
        let buckets = self.samples.get(&format!("{name}_bucket"));
        let mut last = (f64::NEG_INFINITY, 0.0);
        for (of_bucket, value) in buckets.into_iter().flatten() {
            let mut of_bucket = of_bucket.clone();
            let bound = of_bucket.remove("le").ok_or("a bucket without le")?;
            if of_bucket != *labels {
                continue;
            }
            let bound = match bound.as_str() {
                "+Inf" => f64::INFINITY,
                bound => bound.parse().map_err(|_| "a bound that is no number")?,
            };
            if bound <= last.0 || *value < last.1 {
                return Err("buckets that do not ascend");
            }
            last = (bound, *value);
        }
        if last.0.is_finite() {
            return Err("no bucket +Inf");
        }
        let sums = self.samples.get(&format!("{name}_sum"));
        let has_sum = sums.is_some_and(|sums| sums.iter().any(|(of_sum, _)| of_sum == labels));
        match has_sum && (last.1 - count).abs() < 0.5 {
            true => Ok(()),
            false => Err("no sum, or another count than that of +Inf"),
        }
    }
}

type Parsed<'a> = (&'a str, BTreeMap<String, String>, f64);

fn sample(line: &str) -> Result<Parsed<'_>, &'static str> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, rest) = line.split_at(end);
    if !is_name(name) {
        return Err("a bad name");
    }
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = value.strip_prefix(' ').ok_or("no blank before the value")?;
    let value = value.parse().map_err(|_| "a value that is no number")?;
    Ok((name, labels, value))
}

fn labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str), &'static str> {
    let mut labels = BTreeMap::new();
    loop {
        let (name, after) = rest.split_once("=\"").ok_or("a label without a value")?;
        let (value, after) = label_value(after)?;
        if !is_name(name) || name.contains(':') || value.is_empty() {
            return Err("a bad label");
        }
        if labels.insert(name.to_owned(), value).is_some() {
            return Err("a label twice");
        }
        match (after.strip_prefix(','), after.strip_prefix('}')) {
            (Some(next), _) => rest = next,
            (_, Some(end)) => return Ok((labels, end)),
            _ => return Err("what follows a label is neither , nor }"),
        }
    }
}

/// Up to the quotation mark, which is taken, too.
fn label_value(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => value.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, c @ ('\\' | '"'))) => c,
                _ => return Err("a bad escape"),
            }),
            c => value.push(c),
        }
    }
    Err("a label without an end")
}

fn is_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    !name.is_empty() && name.chars().all(is_part) && !name.starts_with(|c: char| c.is_ascii_digit())
}
