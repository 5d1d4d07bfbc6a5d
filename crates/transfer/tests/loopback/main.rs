//! The whole path over loopback with real files: what arrives, what is sent again after a fall, and what is refused. Most tests run over both
//! carriers.

/// These tests, over one carrier.
macro_rules! over {
    ($module:ident, $carrier:expr, [$($test:ident),* $(,)?]) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $test() -> anyhow::Result<()> {
                    super::$test($carrier).await
                }
            )*
        }
    };
}

macro_rules! over_both_carriers {
    ($($test:ident),* $(,)?) => {
        over!(quic, transport::Carrier::Quic, [$($test),*]);
        over!(tcp, transport::Carrier::Tcp, [$($test),*]);
    };
}

mod arrival;
mod bench;
mod carriers;
mod disks;
mod flipping;
mod integrity;
mod limits;
mod moves;
mod resume;
mod rights;
