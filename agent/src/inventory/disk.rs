//! Opens a disk, read-only, to check that it can be read and to find its size.

use std::fs::{File, Metadata};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use domain::printable::is_printable;
use domain::{Failure, FailureCode};

/// A readable disk.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Its size.
    pub size_bytes: u64,
    /// Metadata of the file or device node.
    pub metadata: Metadata,
}

/// Opens the disk read-only and finds its size.
///
/// # Errors
/// [`FailureCode::SourceDiskUnreadable`] with a sentence that names the path, the cause and a remedy.
pub(crate) fn measure(path: &Path) -> Result<Measured, Failure> {
    if !path.to_str().is_some_and(is_printable) {
        return Err(Failure::new(
            FailureCode::SourceDiskUnreadable,
            format!(
                "The path {path:?} must be UTF-8 text without control or invisible characters: give the disk by another path, such as a symbolic link."
            ),
        ));
    }
    let measured = open(path).map_err(|error| unreadable(path, &error))?;
    if measured.size_bytes == 0 {
        return Err(Failure::new(
            FailureCode::SourceDiskUnreadable,
            format!(
                "The disk {} is empty: check the path given with --disk.",
                path.display()
            ),
        ));
    }
    Ok(measured)
}

fn open(path: &Path) -> io::Result<Measured> {
    // The type is checked first, because opening a named pipe would wait for a writer.
    let kind = path.metadata()?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is neither a block device nor a file",
        ));
    }
    let mut file = File::open(path)?;
    // For a block device as for a file, the offset of the end is the size.
    let size_bytes = file.seek(SeekFrom::End(0))?;
    Ok(Measured {
        size_bytes,
        metadata: file.metadata()?,
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => "run the agent as root, or let its user read the device",
        io::ErrorKind::NotFound if path.as_os_str().as_encoded_bytes().contains(&b',') => {
            "a comma is a part of a path: repeat --disk for each disk, or give WHERRY_DISK one path a line"
        }
        _ => "check the path given with --disk and that the disk is attached",
    };
    Failure::new(
        FailureCode::SourceDiskUnreadable,
        format!(
            "The disk {} can't be opened ({error}): {advice}.",
            path.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_and_devices_with_a_size_are_disks() {
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("empty");
        File::create(&empty).unwrap();
        assert!(measure(&empty).unwrap_err().message.contains("empty"));
        for evil in domain::printable::EVIL {
            let message = measure(&directory.path().join(evil)).unwrap_err().message;
            assert!(
                is_printable(&message) && message.contains("another path"),
                "{message}"
            );
        }
        let message = measure(directory.path()).unwrap_err().message;
        assert!(
            message.contains("neither a block device nor a file"),
            "{message}"
        );
        let message = measure(Path::new("/dev/vda,/dev/vdb")).unwrap_err().message;
        assert!(message.contains("repeat --disk"), "{message}");
        let message = measure(Path::new("/nowhere/disk")).unwrap_err().message;
        assert!(
            message.contains("/nowhere/disk") && message.contains("os error 2"),
            "{message}"
        );
    }
}
