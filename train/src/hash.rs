//! Hashes as hexadecimal text.

/// Bytes as lower-case hexadecimal digits, as `sha256sum` prints them.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
