//! The receiver alone, as the tests of providers start it: `receiver receiver --dir DIR`.

use clap::Parser as _;

#[derive(clap::Parser)]
enum Command {
    /// Receives the disks of one run.
    Receiver(receiver::Config),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _installed_once = rustls::crypto::ring::default_provider().install_default();
    let Command::Receiver(config) = Command::parse();
    let shutdown = service::Shutdown::new();
    service::handle_signals(&shutdown)?;
    receiver::run(config, shutdown).await?;
    Ok(())
}
