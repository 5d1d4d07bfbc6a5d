//! Real processes under faults from a seed: `WHERRY_SEED=N` runs one seed, `WHERRY_LONG=1` many.

use std::path::Path;

use testkit::faults;

/// Seeds of `make test-long`. Each takes about half a minute.
const MANY: u64 = 12;

#[tokio::test]
async fn whatever_falls_every_job_delivers_once() -> anyhow::Result<()> {
    let seeds: Vec<u64> = match std::env::var("WHERRY_SEED") {
        Ok(seed) => vec![seed.parse()?],
        Err(_) if std::env::var_os("WHERRY_LONG").is_some() => (1..=MANY).collect(),
        Err(_) => vec![1],
    };
    for seed in seeds {
        faults::survives(Path::new(env!("CARGO_BIN_EXE_wherry")), seed).await?;
    }
    Ok(())
}
