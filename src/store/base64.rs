//! Base64 (RFC 4648, section 4), the form in which headers carry bytes that are no text.
//!
//! The SDK has it; this is for the layers above, which do not know the SDK.

/// These bytes, with padding.
pub fn to_base64(bytes: &[u8]) -> String {
    aws_smithy_types::base64::encode(bytes)
}

/// The bytes that a text stands for; `None` for what is no base64.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    aws_smithy_types::base64::decode(text).ok()
}
