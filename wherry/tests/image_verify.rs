//! `wherry image verify` with nothing but files: no gateway runs, and no key is known.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use chunks::ByteRange;
use chunks::hashes::{Chunk, hash};

const CHUNK: u32 = 1 << 16;
const SIZE: u64 = 5 * CHUNK as u64 - 77;

/// An image as it is exported, and one disk in it.
struct Image {
    directory: tempfile::TempDir,
    disk: PathBuf,
    manifest: PathBuf,
}

impl Image {
    fn new() -> Self {
        Self::with(Vec::new())
    }

    /// An image of a source that could not be read in these ranges.
    fn with(unreadable: Vec<ByteRange>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (disk, manifest) = (
            directory.path().join("disk-0.raw"),
            directory.path().join("disk-0.manifest"),
        );
        let mut bytes: Vec<u8> = (0..SIZE)
            .map(|at| (at / 999 + 1).to_le_bytes()[0])
            .collect();
        bytes[CHUNK as usize..2 * CHUNK as usize].fill(0);
        let mut of_chunks = bytes.chunks(CHUNK as usize).map(|chunk| {
            if chunk.iter().all(|byte| *byte == 0) {
                Chunk::Zero
            } else {
                Chunk::Data(hash(chunk))
            }
        });
        let file = std::fs::File::create(&manifest).unwrap();
        let head = transfer::manifest::write(file, SIZE, CHUNK, unreadable, |range| {
            Ok(of_chunks.by_ref().take(range.count as usize).collect())
        })
        .unwrap();
        std::fs::write(&disk, &bytes).unwrap();
        // The image's disk is longer: zeros lie behind the source's bytes.
        let file = std::fs::File::options().write(true).open(&disk).unwrap();
        file.set_len(SIZE + 4096).unwrap();
        let description = serde_json::json!({
            "image_id": "m-1", "name": "web", "job_id": "j-1", "source_id": "s-1", "created": "2026-11-25T00:00:00Z",
            "disks": [{
                "index": 0, "size_bytes": SIZE + 4096, "source_bytes": SIZE, "root_hash": head.root_hex(), "chunk_bytes": CHUNK,
                "raw": "disk-0.raw", "qcow2": "disk-0.qcow2", "manifest": "disk-0.manifest",
            }],
        });
        std::fs::write(directory.path().join("image.json"), description.to_string()).unwrap();
        Self {
            directory,
            disk,
            manifest,
        }
    }

    fn folder(&self) -> [&Path; 2] {
        [Path::new("--path"), self.directory.path()]
    }

    fn one_disk(&self) -> [&Path; 4] {
        [
            Path::new("--disk"),
            &self.disk,
            Path::new("--manifest"),
            &self.manifest,
        ]
    }
}

fn verify(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wherry"))
        .args(["image", "verify"])
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
}

/// The exit code and what is said on standard error.
fn refusal(arguments: &[&Path]) -> (Option<i32>, String) {
    let output = verify(arguments);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

fn flip(path: &Path, offset: u64) {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

#[test]
fn a_good_image_is_good_wherever_it_lies() {
    let image = Image::new();
    for (arguments, name) in [
        (&image.folder()[..], "disk 0"),
        (&image.one_disk()[..], "the disk"),
    ] {
        let output = verify(arguments);
        let said = String::from_utf8(output.stdout).unwrap();
        let start = format!("{name}: every chunk of 320 KiB is what was sent, root hash ");
        assert!(said.starts_with(&start), "{said}");
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn what_the_source_could_not_read_is_listed() {
    let start = u64::from(CHUNK);
    let image = Image::with(vec![ByteRange {
        start,
        end: start + 512,
    }]);
    let output = verify(&image.folder());
    let said = String::from_utf8(output.stdout).unwrap();
    let listed = format!("512 bytes at byte {start}\n");
    assert!(
        said.contains("the source could not read") && said.contains(&listed),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_flipped_bit_is_named_by_disk_and_offset() {
    let image = Image::new();
    flip(&image.disk, 3 * u64::from(CHUNK) + 5);
    flip(&image.disk, 4 * u64::from(CHUNK) + 5);
    for (arguments, name) in [
        (&image.folder()[..], "disk 0"),
        (&image.one_disk()[..], "the disk"),
    ] {
        let (code, said) = refusal(arguments);
        assert_eq!(code, Some(1));
        let what = format!(
            "the disk {} differs from its manifest in the 65536 bytes from byte 196608 on",
            image.disk.display()
        );
        assert!(
            said.contains(&format!("{name} is not good")) && said.contains(&what),
            "{said}"
        );
    }
}

#[test]
fn what_lies_behind_the_end_is_seen() {
    let image = Image::new();
    flip(&image.disk, SIZE + 4095);
    let (code, said) = refusal(&image.one_disk());
    assert_eq!(code, Some(1));
    assert!(
        said.contains("behind the end of the source's disk"),
        "{said}"
    );
}

#[test]
fn a_damaged_manifest_is_not_taken_for_a_damaged_disk() {
    let image = Image::new();
    flip(&image.manifest, 60);
    let (code, said) = refusal(&image.folder());
    assert_eq!(code, Some(1));
    let what = format!("the manifest {} is damaged", image.manifest.display());
    assert!(said.contains(&what), "{said}");
}

#[test]
fn the_manifest_of_another_image_is_seen() {
    let (image, other) = (Image::new(), Image::new());
    let mut bytes = std::fs::read(&other.disk).unwrap();
    bytes[0] ^= 1;
    bytes.truncate(SIZE as usize);
    let file = std::fs::File::create(&image.manifest).unwrap();
    let mut chunks = bytes.chunks(CHUNK as usize).map(|chunk| {
        let is_zero = chunk.iter().all(|byte| *byte == 0);
        if is_zero {
            Chunk::Zero
        } else {
            Chunk::Data(hash(chunk))
        }
    });
    transfer::manifest::write(file, SIZE, CHUNK, Vec::new(), |range| {
        Ok(chunks.by_ref().take(range.count as usize).collect())
    })
    .unwrap();
    std::fs::write(&image.disk, &bytes).unwrap();
    assert_eq!(verify(&image.one_disk()).status.code(), Some(0));
    let (code, said) = refusal(&image.folder());
    assert_eq!(code, Some(1));
    assert!(said.contains("is not the manifest of image m-1"), "{said}");
}

#[test]
fn what_is_missing_is_said() {
    let image = Image::new();
    let (code, said) = refusal(&[Path::new("--path"), Path::new("/nowhere")]);
    assert_eq!(code, Some(1));
    assert!(said.contains("/nowhere is no image"), "{said}");
    std::fs::rename(&image.disk, image.directory.path().join("disk-0.qcow2")).unwrap();
    let (code, said) = refusal(&image.folder());
    assert_eq!(code, Some(1));
    assert!(said.contains("export it with --format raw"), "{said}");
    let (code, said) = refusal(&[Path::new("--disk"), &image.disk]);
    assert_eq!(code, Some(2));
    assert!(said.contains("--manifest"), "{said}");
}
