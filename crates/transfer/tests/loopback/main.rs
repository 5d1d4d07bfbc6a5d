//! The whole path over loopback with real files: what arrives, what is sent again after a fall, and what is refused.
//! Most tests run over both transports.

/// These tests, over one transport.
macro_rules! over {
    ($module:ident, $transport:expr, [$($test:ident),* $(,)?]) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $test() -> anyhow::Result<()> {
                    super::$test($transport).await
                }
            )*
        }
    };
}

macro_rules! over_both_transports {
    ($($test:ident),* $(,)?) => {
        over!(quic, transport::Kind::Quic, [$($test),*]);
        over!(tcp, transport::Kind::Tcp, [$($test),*]);
    };
}

mod arrival;
mod bench;
mod disks;
mod flipping;
mod integrity;
mod limits;
mod moves;
mod resume;
mod rights;
mod transports;
