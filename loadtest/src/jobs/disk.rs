//! Small disks with the contents of a real one: noise, text, written zeros and holes. Also compares an image's disk
//! with its source.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

const MIB: usize = 1 << 20;

/// Writes a disk of `mib` MiB that depends on nothing but the seed.
pub(super) fn make(path: &Path, mib: u64, seed: u64) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut file = File::create(path).with_context(|| format!("can't make {}", path.display()))?;
    let mut piece = vec![0; MIB];
    for number in 0..mib {
        match number % 4 {
            0 => random.fill_bytes(&mut piece),
            1 => {
                let line = format!(
                    "{seed:016x} {number:016x} the quick brown fox jumps over the lazy dog\n"
                );
                piece
                    .iter_mut()
                    .zip(line.bytes().cycle())
                    .for_each(|(byte, text)| *byte = text);
            }
            2 => piece.fill(0),
            _ => {
                std::io::Seek::seek_relative(&mut file, MIB as i64)?;
                continue;
            }
        }
        file.write_all(&piece)?;
    }
    file.set_len(mib * MIB as u64)?;
    file.sync_all()?;
    Ok(())
}

/// Checks that `image` has `size_bytes`, begins with the bytes of `source`, and has nothing but zeros behind them.
///
/// # Errors
/// Says where they differ.
pub(super) fn compare(source: &Path, image: &Path, size_bytes: u64) -> anyhow::Result<()> {
    let open =
        |path: &Path| File::open(path).with_context(|| format!("can't read {}", path.display()));
    let (source, image) = (open(source)?, open(image)?);
    let (source_bytes, image_bytes) = (source.metadata()?.len(), image.metadata()?.len());
    if image_bytes != size_bytes {
        bail!("it has {image_bytes} bytes, {size_bytes} were asked for");
    }
    let (mut asked, mut given) = (vec![0; MIB], vec![0; MIB]);
    let mut offset = 0;
    while offset < source_bytes {
        let length = usize::try_from((source_bytes - offset).min(MIB as u64))?;
        source.read_exact_at(&mut asked[..length], offset)?;
        image.read_exact_at(&mut given[..length], offset)?;
        if let Some(at) = (0..length).find(|&at| asked[at] != given[at]) {
            bail!("byte {} differs from the source", offset + at as u64);
        }
        offset += length as u64;
    }
    // The rest is tens of GiB of nothing: holes are not read.
    while offset < image_bytes {
        offset = match seek(&image, SeekFrom::Data(offset)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let read = image.read_at(&mut given, offset)?;
        if let Some(at) = given[..read].iter().position(|&byte| byte != 0) {
            bail!(
                "byte {} is not zero, behind the source's end",
                offset + at as u64
            );
        }
        offset += read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_is_found_wherever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (source, image) = (folder.path().join("source"), folder.path().join("image"));
        make(&source, 6, 1).unwrap();
        std::fs::copy(&source, &image).unwrap();
        let size = 16 * MIB as u64;
        assert!(compare(&source, &image, size).is_err(), "too short");
        let file = File::options().read(true).write(true).open(&image).unwrap();
        file.set_len(size).unwrap();
        compare(&source, &image, size).unwrap();
        for at in [
            0,
            MIB as u64 + 7,
            6 * MIB as u64 - 1,
            6 * MIB as u64,
            size - 1,
        ] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            assert!(compare(&source, &image, size).is_err(), "byte {at}");
            file.write_all_at(&byte, at).unwrap();
        }
        compare(&source, &image, size).unwrap();
    }

    #[test]
    fn disks_of_other_seeds_differ() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        make(&one, 2, 1).unwrap();
        make(&other, 2, 2).unwrap();
        assert!(compare(&one, &other, 2 * MIB as u64).is_err());
    }
}
