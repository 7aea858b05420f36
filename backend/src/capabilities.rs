//! What `--print-capabilities` prints: the schema `VHostUserBackendCapabilitiesBlock` of QEMU's
//! docs/interop/vhost-user.json.

use serde::Serialize;

#[derive(Serialize)]
struct Capabilities {
    r#type: &'static str,
    features: &'static [&'static str],
}

/// The options of QEMU's schema (`VHostUserBackendBlockFeature`) that this program has.
const CAPABILITIES: Capabilities = Capabilities {
    r#type: "block",
    features: &["read-only", "blk-file"],
};

/// The capabilities as a JSON document with a final newline.
///
/// # Errors
/// None in practice: the document is a constant.
pub fn capabilities_json() -> serde_json::Result<String> {
    serde_json::to_string_pretty(&CAPABILITIES).map(|json| json + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_document_that_qemu_describes() {
        assert_eq!(
            capabilities_json().unwrap(),
            "{\n  \"type\": \"block\",\n  \"features\": [\n    \"read-only\",\n    \"blk-file\"\n  ]\n}\n"
        );
    }
}
