//! Text of login and text PDUs: `key=value` pairs, each ended by a NUL (RFC 7143 section 6.1).

/// The pairs of one text, in order. Keys may repeat: whoever reads decides what that means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pairs(pub(crate) Vec<(String, String)>);

impl Pairs {
    /// Reads `text`; what is not UTF-8 or lacks a `=` is the error, as it came.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        text.split(|byte| *byte == 0)
            .filter(|item| !item.is_empty())
            .map(pair)
            .collect()
    }

    /// The value of the first pair with this key.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    /// Appends a pair.
    pub(crate) fn push(&mut self, key: &str, value: impl Into<String>) {
        self.0.push((key.to_owned(), value.into()));
    }

    /// Gives the first pair with this key another value; false when there is none.
    pub(crate) fn replace(&mut self, key: &str, value: &str) -> bool {
        let found = self.0.iter_mut().find(|(k, _)| k == key);
        found.map(|(_, v)| value.clone_into(v)).is_some()
    }

    /// The text on the wire.
    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, value) in &self.0 {
            out.extend_from_slice(key.as_bytes());
            out.push(b'=');
            out.extend_from_slice(value.as_bytes());
            out.push(0);
        }
        out
    }
}

impl FromIterator<(String, String)> for Pairs {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

fn pair(item: &[u8]) -> Result<(String, String), String> {
    let text = String::from_utf8_lossy(item);
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(text.into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_repetitions_and_equals_signs_in_values() {
        let pairs = Pairs::parse(b"A=1\0B=x=y\0A=2\0").unwrap();
        assert_eq!(pairs.emit(), b"A=1\0B=x=y\0A=2\0");
        assert_eq!(pairs.get("B"), Some("x=y"));
    }

    #[test]
    fn names_an_item_without_equals_sign() {
        assert_eq!(Pairs::parse(b"A=1\0nonsense\0"), Err("nonsense".to_owned()));
    }
}
