//! Disks to migrate: small files with everything that a real disk has, made from a seed.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

const MIB: usize = 1 << 20;

/// Writes a disk of `size` bytes: a third of it random, a third text that compresses, the rest holes and written zeros,
/// in pieces of uneven length, so that chunk borders fall everywhere.
pub fn make(path: &Path, size: u64, seed: u64) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    file.set_len(size)?;
    let mut offset = 0;
    while offset < size {
        let length = random.random_range(1..=3 * MIB as u64).min(size - offset);
        let piece = usize::try_from(length).expect("a piece is a few MiB");
        file.seek(SeekFrom::Start(offset))?;
        match random.random_range(0..6) {
            0 | 1 => {
                let mut bytes = vec![0; piece];
                random.fill_bytes(&mut bytes);
                file.write_all(&bytes)?;
            }
            2 | 3 => {
                let line = format!(
                    "{:016x} the quick brown fox jumps over the lazy dog\n",
                    random.random::<u64>()
                );
                let bytes: Vec<u8> = line.bytes().cycle().take(piece).collect();
                file.write_all(&bytes)?;
            }
            4 => file.write_all(&vec![0; piece])?,
            _ => {}
        }
        offset += length;
    }
    file.sync_all()?;
    Ok(())
}

/// Bytes of the 1 MiB chunks that hold anything but zeros: what a full copy must send.
pub fn bytes_of_chunks_with_data(path: &Path) -> anyhow::Result<u64> {
    let mut file = BufReader::with_capacity(MIB, File::open(path)?);
    let mut left = std::fs::metadata(path)?.len();
    let (mut chunk, mut bytes) = (vec![0; MIB], 0);
    while left > 0 {
        let length = usize::try_from(left.min(MIB as u64)).expect("at most a MiB");
        file.read_exact(&mut chunk[..length])?;
        if chunk[..length].iter().any(|&byte| byte != 0) {
            bytes += length as u64;
        }
        left -= length as u64;
    }
    Ok(bytes)
}

/// Checks that `image` is `size` bytes long, begins with the bytes of `source` and holds zeros behind them.
///
/// # Errors
/// Names the first byte that differs.
pub fn check_equal(source: &Path, image: &Path, size: u64) -> anyhow::Result<()> {
    let actual = std::fs::metadata(image)
        .with_context(|| format!("look at {}", image.display()))?
        .len();
    if actual != size {
        bail!(
            "{} has {actual} bytes, {size} were asked for",
            image.display()
        );
    }
    let source_size = std::fs::metadata(source)?.len();
    let mut source_file = BufReader::with_capacity(MIB, File::open(source)?);
    let mut image_file = BufReader::with_capacity(MIB, File::open(image)?);
    let (mut expected, mut found) = (vec![0; MIB], vec![0; MIB]);
    let mut offset = 0;
    while offset < source_size {
        let length =
            usize::try_from((source_size - offset).min(MIB as u64)).expect("at most a MiB");
        source_file.read_exact(&mut expected[..length])?;
        image_file.read_exact(&mut found[..length])?;
        if let Some(index) = (0..length).find(|&index| expected[index] != found[index]) {
            bail!(
                "{} differs from {} at byte {}",
                image.display(),
                source.display(),
                offset + index as u64
            );
        }
        offset += length as u64;
    }
    match first_data(image_file.get_ref(), source_size)? {
        Some(offset) => bail!(
            "{} holds data behind the source's end, at byte {offset}",
            image.display()
        ),
        None => Ok(()),
    }
}

/// The first byte at or behind `offset` that is not zero. Holes are skipped, since targets are tens of GiB of nothing.
fn first_data(file: &File, offset: u64) -> anyhow::Result<Option<u64>> {
    use rustix::fs::{SeekFrom as Seek, seek};
    use std::os::unix::fs::FileExt as _;

    let end = file.metadata()?.len();
    let mut position = offset;
    let mut buffer = vec![0; MIB];
    while position < end {
        position = match seek(file, Seek::Data(position)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let read = file.read_at(&mut buffer, position)?;
        if let Some(index) = buffer[..read].iter().position(|&byte| byte != 0) {
            return Ok(Some(position + index as u64));
        }
        position += read as u64;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_with_zeros_behind_is_equal_and_every_other_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let (source, image) = (
            directory.path().join("source"),
            directory.path().join("image"),
        );
        make(&source, 9 * MIB as u64 + 513, 7).unwrap();
        std::fs::copy(&source, &image).unwrap();
        let size = 32 * MIB as u64;
        assert!(check_equal(&source, &image, size).is_err(), "too short");
        let file = File::options().write(true).open(&image).unwrap();
        file.set_len(size).unwrap();
        check_equal(&source, &image, size).unwrap();

        let flip = |offset: u64| {
            use std::os::unix::fs::FileExt as _;
            let file = File::options().read(true).write(true).open(&image).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset).unwrap();
            file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
        };
        for offset in [
            0,
            5 * MIB as u64,
            9 * MIB as u64 + 512,
            9 * MIB as u64 + 513,
            size - 1,
        ] {
            flip(offset);
            assert!(
                check_equal(&source, &image, size).is_err(),
                "a flipped byte at {offset}"
            );
            flip(offset);
        }
        check_equal(&source, &image, size).unwrap();
    }
}
