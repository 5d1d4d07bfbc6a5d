//! A NATS server of its own for each test: it starts in a tenth of a second, so that streams need no prefixes.

use servers::Nats;
use tempfile::TempDir;

/// A NATS server with JetStream and no streams. Dropping it stops it.
#[derive(Debug)]
pub struct TestNats {
    // Stops before its directory goes.
    server: Nats,
    _dir: TempDir,
}

/// A new NATS server.
///
/// # Panics
/// There is no NATS, or it does not start.
pub async fn nats() -> TestNats {
    let dir = tempfile::Builder::new()
        .prefix("wherry-nats-")
        .tempdir()
        .expect("a folder for temporary files");
    match Nats::start(&dir.path().join("server")).await {
        Ok(server) => TestNats { server, _dir: dir },
        Err(error) => panic!("no NATS for the test: {error}"),
    }
}

impl TestNats {
    /// Its address, with user and password.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The server, for tests that end or pause it.
    pub fn server(&self) -> &Nats {
        &self.server
    }
}
