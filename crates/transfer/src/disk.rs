//! Disks: reading a source, writing a target. Everything here blocks and belongs on threads of its own.

mod buffer;
mod source;
mod target;

pub use buffer::AlignedBuffer;
pub use source::SourceReader;
pub use target::TargetWriter;
