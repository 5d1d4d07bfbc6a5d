//! The receiver: the process in an instance that takes the disks, proves them, and builds the image.
//!
//! It is started over a directory that holds its `instance` file, locks the directory, listens for its agent and its worker, writes `ready`, and serves the
//! worker until it is ended. Disks and chunk maps stay in the directory, so the next receiver over it goes on.

mod config;
mod control;
mod error;
mod image;
mod instance;
mod role;

pub use config::Config;
pub use error::Error;
pub use image::{ImageDescription, ImageDisk};
pub use role::run;
