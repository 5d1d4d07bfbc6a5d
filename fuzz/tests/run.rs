//! Runs each target over its corpus, and over a bounded number of mutations of it.

use std::panic::catch_unwind;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const SEED: u64 = 20_261_123;

/// Returns the number of mutations of each corpus. `WHERRY_FUZZ_INPUTS` sets more: a larger number includes the
/// mutations of a smaller one.
fn inputs() -> u64 {
    match std::env::var("WHERRY_FUZZ_INPUTS") {
        Ok(number) => number.parse().expect("WHERRY_FUZZ_INPUTS is a number"),
        Err(_) => 20_000,
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder of the corpus")
        .map(|entry| entry.expect("a file").path())
        .collect();
    paths.sort();
    let inputs = paths
        .iter()
        .map(|path| std::fs::read(path).expect("a file"));
    inputs.collect()
}

/// Returns an input with a few bytes changed, removed, doubled, or taken from another input.
fn mutated(random: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=input.len());
        match random.random_range(0..5) {
            0 => input.insert(at, random.random()),
            1 if at < input.len() => input[at] = random.random(),
            2 if at < input.len() => {
                input.remove(at);
            }
            3 => {
                let end = (at + random.random_range(0..40)).min(input.len());
                let part = input[at..end].to_vec();
                input.splice(at..at, part);
            }
            _ => {
                let other = &corpus[random.random_range(0..corpus.len())];
                let from = random.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
    input
}

/// `UPDATE=1 cargo test -p fuzz` writes them again after a change of protocol or formats.
#[test]
fn the_examples_are_those_of_the_present_formats() {
    for (target, name, bytes) in fuzz::examples() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(target)
            .join(name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
            std::fs::write(&path, &bytes).expect("the file");
        }
        assert_eq!(std::fs::read(&path).ok(), Some(bytes), "{}", path.display());
    }
}

#[test]
fn no_input_makes_a_target_panic() {
    for (name, target) in fuzz::ALL {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} has a corpus");
        let run = |input: &[u8], which: &str| {
            assert!(
                catch_unwind(|| target(input)).is_ok(),
                "{name}, {which}: {:?}",
                String::from_utf8_lossy(input)
            );
        };
        for input in &corpus {
            run(input, "corpus");
        }
        let mut random = StdRng::seed_from_u64(SEED);
        for number in 0..inputs() {
            let input = mutated(&mut random, &corpus);
            run(&input, &format!("seed {SEED}, input {number}"));
        }
    }
}
