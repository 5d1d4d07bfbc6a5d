//! The manifest of a disk: what an image's disk must hold, in a file that can be checked with nothing else at hand.
//!
//! # Format
//!
//! A JSON text: `{"format":"wherry-manifest","version":1,"hash":"blake3","size_bytes":…,"chunk_bytes":…,"root":"<hex>","chunks":[…]}`. `chunks` lists
//! stretches in order: `{"zeros":COUNT}` or `{"hashes":["<hex>", …]}`. The disk may be longer than `size_bytes`: what lies behind is zeros.
//! The root is BLAKE3 over size (u64), chunk size (u32), both little-endian, and the hash of every chunk in order.

use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk::AlignedBuffer;
use crate::hashes::{Chunk, ChunkHashes, Hash, RunKind, hash, is_zero};
use crate::protocol::CHUNK_BYTES_ALLOWED;

/// A disk that is larger would take hours to tell that its manifest is wrong: 1 PiB.
const MOST_BYTES: u64 = 1 << 50;

/// A manifest, as the file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    version: u32,
    hash: String,
    /// Size of the source's disk in bytes.
    pub size_bytes: u64,
    /// Bytes of a chunk.
    pub chunk_bytes: u32,
    root: String,
    chunks: Vec<Stretch>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stretch {
    Zeros(u64),
    Hashes(Vec<String>),
}

/// Why a manifest, or a disk under it, is not good.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file can't be read.
    #[error("can't read {path}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text is no manifest of this version.
    #[error("the manifest can't be used: {0}")]
    Malformed(String),
    /// The manifest's own root does not fit its chunks.
    #[error("the manifest is damaged: its root does not fit its chunks")]
    Damaged,
    /// A chunk of the disk is not what the manifest says.
    #[error("{path} differs from its manifest in the chunk at byte {offset}")]
    Differs {
        /// The disk.
        path: String,
        /// First byte of the chunk.
        offset: u64,
    },
    /// The disk is shorter than the manifest says.
    #[error("{path} has {found} bytes, its manifest asks for {expected}")]
    Short {
        /// The disk.
        path: String,
        /// Bytes that it has.
        found: u64,
        /// Bytes of the manifest.
        expected: u64,
    },
    /// There is data behind the source's bytes.
    #[error("{path} holds data at byte {offset}, behind the end of the source's disk")]
    DataBehindEnd {
        /// The disk.
        path: String,
        /// Start of the stretch with data.
        offset: u64,
    },
}

impl Manifest {
    /// The manifest of a disk whose chunks are all known; `None` if one is not.
    pub fn new(hashes: &ChunkHashes) -> Option<Self> {
        let root = hashes.root()?;
        let chunks = hashes
            .runs(0, hashes.chunks())
            .into_iter()
            .map(|run| match run.kind {
                RunKind::Zero => Some(Stretch::Zeros(run.count)),
                RunKind::Data => (run.start..run.start + run.count)
                    .map(|chunk| match hashes.get(chunk) {
                        Chunk::Data(hash) => Some(blake3::Hash::from(hash).to_hex().to_string()),
                        Chunk::Zero | Chunk::Unknown => None,
                    })
                    .collect::<Option<Vec<String>>>()
                    .map(Stretch::Hashes),
                RunKind::Unknown => None,
            })
            .collect::<Option<Vec<Stretch>>>()?;
        Some(Self {
            format: "wherry-manifest".to_owned(),
            version: 1,
            hash: "blake3".to_owned(),
            size_bytes: hashes.size_bytes(),
            chunk_bytes: hashes.chunk_bytes(),
            root: blake3::Hash::from(root).to_hex().to_string(),
            chunks,
        })
    }

    /// The root in hexadecimal.
    pub fn root_hex(&self) -> &str {
        &self.root
    }

    /// The text of the file.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a struct of strings and integers has a JSON form")
            + "\n"
    }

    /// Reads the text and checks that it fits itself.
    ///
    /// # Errors
    /// [`ManifestError::Malformed`] and [`ManifestError::Damaged`].
    pub fn from_json(text: &str) -> Result<(Self, ChunkHashes), ManifestError> {
        let manifest: Self = serde_json::from_str(text)
            .map_err(|error| ManifestError::Malformed(error.to_string()))?;
        if manifest.format != "wherry-manifest"
            || manifest.version != 1
            || manifest.hash != "blake3"
        {
            return Err(ManifestError::Malformed(
                "it is of another format or version".to_owned(),
            ));
        }
        let hashes = manifest.hashes()?;
        let root = hashes
            .root()
            .map(|root| blake3::Hash::from(root).to_hex().to_string());
        if root.as_deref() == Some(&manifest.root) {
            Ok((manifest, hashes))
        } else {
            Err(ManifestError::Damaged)
        }
    }

    fn hashes(&self) -> Result<ChunkHashes, ManifestError> {
        if !CHUNK_BYTES_ALLOWED.contains(&self.chunk_bytes) {
            return Err(ManifestError::Malformed(format!(
                "its chunks have {} bytes",
                self.chunk_bytes
            )));
        }
        if self.size_bytes > MOST_BYTES {
            return Err(ManifestError::Malformed(format!(
                "no disk has {} bytes",
                self.size_bytes
            )));
        }
        let mut hashes = ChunkHashes::new(self.size_bytes, self.chunk_bytes);
        let mut chunk = 0_u64;
        for stretch in &self.chunks {
            let count = match stretch {
                Stretch::Zeros(count) => *count,
                Stretch::Hashes(list) => list.len() as u64,
            };
            let end = chunk
                .checked_add(count)
                .filter(|end| *end <= hashes.chunks())
                .ok_or(ManifestError::Damaged)?;
            match stretch {
                Stretch::Zeros(count) => hashes.set_zero(chunk, *count),
                Stretch::Hashes(list) => {
                    for (text, chunk) in list.iter().zip(chunk..) {
                        let hash = blake3::Hash::from_hex(text).map_err(|_| {
                            ManifestError::Malformed(format!("{text:?} is no hash"))
                        })?;
                        hashes.set(chunk, Chunk::Data(*hash.as_bytes()));
                    }
                }
            }
            chunk = end;
        }
        Ok(hashes)
    }
}

/// Checks a disk against its manifest, reading every chunk that is not a hole. `progress` is told the bytes checked so far.
///
/// # Errors
/// [`ManifestError`], with the first chunk that differs.
pub fn verify(
    disk: &Path,
    manifest: &Path,
    mut progress: impl FnMut(u64),
) -> Result<Hash, ManifestError> {
    use std::os::unix::fs::FileExt as _;

    let unreadable = |path: &Path| {
        let path = path.display().to_string();
        move |source| ManifestError::Read {
            path: path.clone(),
            source,
        }
    };
    let text = std::fs::read_to_string(manifest).map_err(unreadable(manifest))?;
    let (_, expected) = Manifest::from_json(&text)?;
    let path = disk.display().to_string();
    let file = File::open(disk).map_err(unreadable(disk))?;
    let found = file.metadata().map_err(unreadable(disk))?.len();
    if found < expected.size_bytes() {
        return Err(ManifestError::Short {
            path,
            found,
            expected: expected.size_bytes(),
        });
    }
    let chunk_bytes = u64::from(expected.chunk_bytes());
    let mut buffer = AlignedBuffer::new(expected.chunk_bytes() as usize);
    for chunk in 0..expected.chunks() {
        let offset = chunk * chunk_bytes;
        let bytes = &mut buffer.as_mut_slice()[..expected.length_of(chunk) as usize];
        let actual = if is_hole(&file, offset, bytes.len() as u64) {
            Chunk::Zero
        } else {
            file.read_exact_at(bytes, offset)
                .map_err(unreadable(disk))?;
            if is_zero(bytes) {
                Chunk::Zero
            } else {
                Chunk::Data(hash(bytes))
            }
        };
        if actual != expected.get(chunk) {
            return Err(ManifestError::Differs { path, offset });
        }
        progress(offset + u64::from(expected.length_of(chunk)));
    }
    let mut offset = expected.size_bytes();
    while offset < found {
        let length =
            usize::try_from((found - offset).min(chunk_bytes)).expect("a chunk fits memory");
        if !is_hole(&file, offset, length as u64) {
            let bytes = &mut buffer.as_mut_slice()[..length];
            file.read_exact_at(bytes, offset)
                .map_err(unreadable(disk))?;
            if !is_zero(bytes) {
                return Err(ManifestError::DataBehindEnd { path, offset });
            }
        }
        offset += length as u64;
    }
    expected.root().ok_or(ManifestError::Damaged)
}

fn is_hole(file: &File, offset: u64, length: u64) -> bool {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) => data >= offset + length,
        Err(error) => error == rustix::io::Errno::NXIO,
    }
}
