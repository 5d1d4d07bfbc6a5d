//! The bytes of a disk in a qcow2 file, read by qemu-img a window at a time: the whole disk never lies unpacked beside
//! it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// Bytes that are unpacked at a time.
const WINDOW_BYTES: u64 = 256 << 20;

/// The fields of the header that are read, as QEMU's docs/interop/qcow2.rst has them: big-endian, from these bytes on.
const MAGIC: &[u8; 4] = b"QFI\xfb";
const HEADER_BYTES: usize = 80;
const BACKING_FILE: usize = 8;
const SIZE: usize = 24;
const INCOMPATIBLE: usize = 72;

/// The incompatible feature of a file whose data are in another.
const EXTERNAL_DATA: u64 = 1 << 2;

/// The program can be run.
///
/// # Errors
/// It can't, with what to do.
pub(super) fn check_program(qemu_img: &Path) -> anyhow::Result<()> {
    let tried = Command::new(qemu_img)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    tried.map(drop).with_context(|| {
        format!(
            "qcow2 files are checked with qemu-img, and {} can't be run: install it (Debian: apt install qemu-utils), name it with --qemu-img, \
             or give --format raw",
            qemu_img.display()
        )
    })
}

/// A qcow2 file that refers to no other file.
#[derive(Debug)]
pub(super) struct Content {
    qemu_img: PathBuf,
    file: String,
    size_bytes: u64,
    scratch: tempfile::TempDir,
    /// The unpacked window: the offset of its first byte, and its file.
    window: Option<(u64, File)>,
}

impl Content {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// It is no qcow2 file of a disk of this size, or one that names other files: a program that opens it would read
    /// those.
    pub(super) fn open(qemu_img: &Path, file: &Path, size_bytes: u64) -> anyhow::Result<Self> {
        let mut header = [0; HEADER_BYTES];
        File::open(file)
            .and_then(|mut file| file.read_exact(&mut header))
            .with_context(|| format!("{} is no qcow2 file", file.display()))?;
        let field = |at: usize| {
            let bytes = header[at..at + 8].try_into();
            u64::from_be_bytes(bytes.expect("eight bytes are eight bytes"))
        };
        ensure!(
            header.starts_with(MAGIC) && header[4..8] == [0, 0, 0, 3],
            "{} is no qcow2 file of version 3",
            file.display()
        );
        ensure!(
            field(BACKING_FILE) == 0 && field(INCOMPATIBLE) & EXTERNAL_DATA == 0,
            "{} refers to another file, as no image of Wherry does: do not open it",
            file.display()
        );
        ensure!(
            field(SIZE) == size_bytes,
            "{} is of a disk of {} bytes, and the image's has {size_bytes}",
            file.display(),
            field(SIZE)
        );
        let directory = file.parent().context("a file is in a directory")?;
        let absolute = std::path::absolute(file)?;
        Ok(Self {
            qemu_img: qemu_img.to_owned(),
            file: absolute
                .into_os_string()
                .into_string()
                .map_err(|path| anyhow::anyhow!("{} must be UTF-8 for qemu-img", path.display()))?,
            size_bytes,
            scratch: tempfile::TempDir::with_prefix_in(".unpacked-", directory)?,
            window: None,
        })
    }

    /// Unpacks the window that begins there.
    fn unpack(&self, start: u64) -> io::Result<File> {
        let source = serde_json::json!({
            "driver": "raw",
            "offset": start,
            "size": WINDOW_BYTES.min(self.size_bytes - start),
            "file": {"driver": "qcow2", "file": {"driver": "file", "filename": self.file}},
        });
        let to = self.scratch.path().join("window");
        let unpacked = Command::new(&self.qemu_img)
            .args(["convert", "-O", "raw", &format!("json:{source}")])
            .arg(&to)
            .stdin(Stdio::null())
            .output()?;
        if !unpacked.status.success() {
            let message = String::from_utf8_lossy(&unpacked.stderr);
            return Err(io::Error::other(message.trim().to_owned()));
        }
        let window = File::open(&to)?;
        std::fs::remove_file(&to)?;
        Ok(window)
    }
}

impl transfer::manifest::Content for Content {
    fn length(&self) -> u64 {
        self.size_bytes
    }

    fn is_hole(&self, _offset: u64, _length: u32) -> bool {
        false
    }

    fn read_exact_at(&mut self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            let start = offset - offset % WINDOW_BYTES;
            let window = match self.window.take() {
                Some((first, window)) if first == start => window,
                // The last one's room is given back first.
                _ => self.unpack(start)?,
            };
            let left = (start + WINDOW_BYTES - offset).min(buffer.len() as u64) as usize;
            let (now, rest) = buffer.split_at_mut(left);
            window.read_exact_at(now, offset - start)?;
            self.window = Some((start, window));
            (buffer, offset) = (rest, offset + left as u64);
        }
        Ok(())
    }
}
