//! Checks of the commands that documents, messages and scripts advise people to run.

use std::path::{Path, PathBuf};

/// Commands of qemu-img that inspect a disk's bytes to find out its format, unless the format is given.
const PROBE: [&str; 6] = ["convert", "info", "compare", "check", "map", "resize"];

/// Lines that let qemu-img guess a format. A raw disk of a source can claim to be qcow2, with any file of the host
/// behind it.
fn guesses(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| {
            PROBE.iter().any(|verb| {
                line.split(&format!("qemu-img {verb} "))
                    .skip(1)
                    .any(|behind| !behind.contains("-f "))
            })
        })
        .collect()
}

fn files(path: &Path, into: &mut Vec<PathBuf>) {
    if path.is_file() {
        into.push(path.to_owned());
        return;
    }
    for entry in std::fs::read_dir(path).expect("a folder of the repository") {
        files(&entry.expect("an entry").path(), into);
    }
}

#[test]
fn whoever_advises_qemu_img_names_the_format() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for part in [
        "README.md",
        "docs",
        "deploy",
        "tools",
        "wherry/src",
        "crates/testkit/src",
    ] {
        files(&root.join(part), &mut found);
    }
    let mut advised = 0;
    for path in found {
        if path.ends_with("wherry/src/advice.rs") {
            continue;
        }
        // A file that is no text advises nothing.
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        advised += text.matches("qemu-img ").count();
        let lines = guesses(&text);
        assert!(lines.is_empty(), "{}: {lines:#?}", path.display());
    }
    assert!(
        advised > 3,
        "the advice is looked for where it is: {advised}"
    );
}

#[test]
fn a_guess_is_found_out() {
    for guess in ["run `qemu-img convert -O raw x y`", "qemu-img info disk"] {
        assert_eq!(guesses(guess), [guess]);
    }
    let two = "qemu-img info -f raw x; qemu-img check y";
    assert_eq!(guesses(two), [two]);
    assert_eq!(guesses("qemu-img convert -f qcow2 -O raw x y"), [""; 0]);
}
