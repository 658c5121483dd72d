//! `HashedRead`: SHA-256 and number of the bytes that are read through it; also writes bytes as hexadecimal text.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// Bytes as lower-case hexadecimal digits, as `sha256sum` prints them.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hashes and counts the bytes that are read through it.
pub struct HashedRead<R> {
    input: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> HashedRead<R> {
    /// Reads an input from where it stands.
    pub fn new(input: R) -> Self {
        Self {
            input,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    /// The input, read up to here.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes
    }

    /// SHA-256 of the bytes read so far, in hexadecimal.
    pub fn sha256(&self) -> String {
        hexadecimal(&self.hash.clone().finalize())
    }
}

impl<R: Read> Read for HashedRead<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.hash.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}
