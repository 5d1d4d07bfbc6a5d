//! Blocks that deleted files have left on a disk stay behind, and everything else arrives.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const MIB: usize = 1 << 20;

/// Runs a command that the test depends on.
fn sh(command: &str) {
    let output = Command::new("sh")
        .args(["-ec", command])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .expect("sh");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
}

fn copy(from: &Path, to: &Path, more: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_wherry"))
        .args(["bench", "transfer", "--json", "--level", "0", "--from"])
        .arg(from)
        .arg("--to")
        .arg(to)
        .args(more)
        .output()
        .expect("wherry");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).expect("a report")
}

fn bytes(report: &Value, name: &str) -> usize {
    let bytes = report[name].as_u64().expect("a number");
    usize::try_from(bytes).expect("a small disk")
}

/// An ext4 disk from which files were deleted, without the help of a mount.
#[test]
fn deleted_files_are_not_sent_and_the_copy_is_a_whole_file_system() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    std::fs::create_dir(path("files")).expect("a directory");
    let content = |seed: u8| -> Vec<u8> {
        let mut random = u32::from(seed) | 0x100;
        std::iter::repeat_with(|| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 24) as u8
        })
        .take(8 * MIB)
        .collect()
    };
    for number in 0..8 {
        let name = format!("files/{number}");
        std::fs::write(path(&name), content(number)).expect("a file");
    }
    let (disk, files) = (path("disk"), path("files"));
    let disk_name = disk.display();
    sh(&format!(
        "truncate -s 128M {disk_name}; mkfs.ext4 -q -d {} {disk_name}",
        files.display()
    ));
    for number in [1, 2, 3, 6, 7] {
        sh(&format!("debugfs -w -R 'rm {number}' {disk_name}"));
    }

    let skipped = copy(&disk, &path("skipped"), &["--free-space", "skip"]);
    // At the ends of a deleted file a chunk is shared with what is in use.
    let left = bytes(&skipped, "bytes_free");
    assert!(left >= 30 * MIB, "{skipped}");
    assert!(bytes(&skipped, "bytes_wire") < 36 * MIB, "{skipped}");
    let whole = path("skipped");
    sh(&format!("e2fsck -fn {}", whole.display()));
    for number in [0, 4, 5] {
        let found = path("found");
        let dump = format!("dump {number} {}", found.display());
        sh(&format!("debugfs -R '{dump}' {}", whole.display()));
        let found = std::fs::read(found).expect("a file");
        assert!(found == content(number), "file {number} is another");
    }

    // Every byte, if that is wanted.
    let copied = copy(&disk, &path("copied"), &["--free-space", "copy"]);
    assert_eq!(bytes(&copied, "bytes_free"), 0);
    assert!(bytes(&copied, "bytes_wire") > 64 * MIB, "{copied}");
    sh(&format!("cmp {disk_name} {}", path("copied").display()));
    assert_ne!(copied["root"], skipped["root"]);
}
