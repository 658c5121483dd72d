//! `TableKind`: which table of texts a file is, by its first bytes: Parquet, or Arrow's file or stream.

/// A table of texts; read if the program was built with the feature `parquet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableKind {
    Parquet,
    ArrowFile,
    ArrowStream,
}

impl TableKind {
    /// The kind of table that begins so.
    pub fn of(head: &[u8]) -> Option<Self> {
        match head {
            [b'P', b'A', b'R', b'1' | b'E', ..] if head.len() >= 12 => Some(Self::Parquet),
            head if head.starts_with(b"ARROW1\0\0") => Some(Self::ArrowFile),
            // A continuation and the length of a schema: no text begins so in any encoding that is read.
            [0xff, 0xff, 0xff, 0xff, ..] => Some(Self::ArrowStream),
            _ => None,
        }
    }

    /// What it is called, with its article.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "a Parquet",
            Self::ArrowFile | Self::ArrowStream => "an Arrow",
        }
    }
}
