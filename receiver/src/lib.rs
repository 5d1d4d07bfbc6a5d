//! The receiver: the process in an instance that receives the disks, verifies them, and builds the image.
//!
//! It is started over a directory that contains its `instance` file. It locks the directory, listens for its agent and
//! its worker, writes `ready`, and serves the worker until it is ended. Disks and chunk maps stay in the directory, so
//! the next receiver over the directory continues.

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
