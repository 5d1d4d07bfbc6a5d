//! Runs both servers in the given directory, prints their process numbers and addresses, and waits to be killed. Used
//! by the tests.

use std::io::Write;
use std::path::PathBuf;

use servers::{Durability, Nats, Postgres};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = PathBuf::from(std::env::args_os().nth(1).expect("usage: run_servers DIR"));
    let postgres = Postgres::start(&dir.join("postgres"), Durability::Full).await?;
    let nats = Nats::start(&dir.join("nats")).await?;
    println!(
        "{} {} {} {}",
        postgres.pid().expect("it runs"),
        nats.pid().expect("it runs"),
        postgres.url(),
        nats.url()
    );
    std::io::stdout().flush()?;
    std::future::pending::<()>().await;
    Ok(())
}
