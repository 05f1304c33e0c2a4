//! A token stream: 16-bit tokens in a memory-mapped file, with document boundaries beside it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use crate::artifact;
use crate::error::{Error, Result};

/// Documents as tokens, one after the other, each ended by its own end-of-sequence token. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TokenStream {
    map: Arc<Mmap>,
    /// Where each document ends, in tokens, rising.
    ends: Arc<Vec<u64>>,
}

impl TokenStream {
    /// Writes documents to `stem.u16` (little-endian) and `stem.ends.json`, atomically and one at a time, and opens them.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Invalid`] when a token does not fit 16 bits; whatever a document brings.
    pub fn write(stem: &Path, documents: impl Iterator<Item = Result<Vec<u32>>>) -> Result<Self> {
        let mut ends = Vec::new();
        let mut fault = None;
        let written = artifact::write_atomic(&tokens_file(stem), |writer| {
            let mut end = 0u64;
            for document in documents {
                let narrow = document.and_then(|d| d.into_iter().map(narrow).collect::<Result<Vec<u16>>>());
                // An error, so that what was written so far never takes the file's place.
                let tokens = narrow.map_err(|e| {
                    fault = Some(e);
                    io::Error::other("a document is faulty")
                })?;
                for token in &tokens {
                    writer.write_all(&token.to_le_bytes())?;
                }
                end += tokens.len() as u64;
                ends.push(end);
            }
            Ok(())
        });
        if let Some(fault) = fault {
            return Err(fault);
        }
        written?;
        artifact::write_json(&ends_file(stem), &ends)?;
        Self::open(stem)
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] when the boundaries do not fit the tokens.
    pub fn open(stem: &Path) -> Result<Self> {
        let path = tokens_file(stem);
        let ends: Vec<u64> = artifact::read_json(&ends_file(stem))?;
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let map = map(&file, &path)?;
        let fits = map.len() as u64 == 2 * ends.last().copied().unwrap_or(0) && ends.is_sorted();
        if !fits {
            let what = format!("{} bytes of tokens do not fit the {} document ends beside them", map.len(), ends.len());
            return Err(Error::malformed(path, None, what, "delete the corpus folder; it is built anew"));
        }
        Ok(Self { map: Arc::new(map), ends: Arc::new(ends) })
    }

    /// All tokens.
    pub fn tokens(&self) -> &[u16] {
        view(&self.map)
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.ends.len()
    }

    /// The tokens of document `index`, counted from 0.
    pub fn document(&self, index: usize) -> &[u16] {
        let from = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.tokens()[from..self.ends[index] as usize]
    }
}

fn tokens_file(stem: &Path) -> PathBuf {
    stem.with_extension("u16")
}

fn ends_file(stem: &Path) -> PathBuf {
    stem.with_extension("ends.json")
}

fn narrow(token: u32) -> Result<u16> {
    u16::try_from(token).map_err(|_| {
        Error::invalid(format!("token {token} does not fit 16 bits"), "use a vocabulary of at most 65536 tokens")
    })
}

// Mapping a file is unsafe because another process could change it under us; streams are written once, atomically, and
// replaced by rename, which leaves an open map intact.
#[allow(unsafe_code)]
fn map(file: &File, path: &Path) -> Result<Mmap> {
    unsafe { Mmap::map(file) }.map_err(Error::io("map", path))
}

// A page is aligned for u16 and every bit pattern is one; `align_to` leaves no rest because the length was checked to be
// even. The bytes are little-endian, as on every machine this runs on.
#[allow(unsafe_code)]
fn view(bytes: &[u8]) -> &[u16] {
    unsafe { bytes.align_to::<u16>() }.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_keep_documents_and_their_ends() {
        let folder = tempfile::tempdir().unwrap();
        let stem = folder.path().join("a");
        let documents = [vec![5, 6, 0], vec![7, 0], vec![65_535, 0]];
        let stream = TokenStream::write(&stem, documents.clone().into_iter().map(Ok)).unwrap();
        assert_eq!(stream.tokens(), [5, 6, 0, 7, 0, 65_535, 0]);
        assert_eq!(
            (stream.documents(), stream.document(1), stream.document(2)),
            (3, &[7u16, 0][..], &[65_535u16, 0][..])
        );
        assert!(TokenStream::write(&folder.path().join("b"), [Ok(vec![65_536])].into_iter()).is_err());
        std::fs::write(tokens_file(&stem), [1, 0, 2, 0]).unwrap();
        assert!(TokenStream::open(&stem).unwrap_err().to_string().contains("do not fit"));
    }
}
