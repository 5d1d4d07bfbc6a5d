//! Memory whose start is aligned for O_DIRECT, and a pool of it: fresh pages cost more than the bytes that go through
//! them.

use std::sync::{Arc, Mutex};

use aligned_vec::{AVec, ConstAlign, avec};

/// The largest alignment that block devices and file systems ask for.
pub const ALIGNMENT: usize = 4096;

/// Bytes that begin at a multiple of 4096.
pub struct AlignedBuffer(AVec<u8, ConstAlign<ALIGNMENT>>);

impl AlignedBuffer {
    /// A buffer of at least `bytes`, rounded up to whole blocks, filled with zeros.
    pub fn new(bytes: usize) -> Self {
        Self(avec![[ALIGNMENT]| 0; bytes.next_multiple_of(ALIGNMENT)])
    }

    /// All bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// All bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl std::fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlignedBuffer")
            .field("bytes", &self.0.len())
            .finish()
    }
}

/// Buffers of one size that are used again. It does not bound how many are out: the queues that they wait in do.
#[derive(Debug)]
pub struct BufferPool {
    bytes: usize,
    most_idle: usize,
    idle: Mutex<Vec<AlignedBuffer>>,
}

impl BufferPool {
    /// A pool of buffers of `bytes` that keeps `most_idle` of them while nobody needs them.
    pub fn new(bytes: usize, most_idle: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes,
            most_idle,
            idle: Mutex::default(),
        })
    }

    /// A buffer whose first `length` bytes count. What it holds is left over from its last use.
    pub fn take(self: &Arc<Self>, length: usize) -> PooledBuffer {
        assert!(length <= self.bytes, "a pool's buffers have one size");
        let idle = self
            .idle
            .lock()
            .expect("no holder of this lock can panic")
            .pop();
        PooledBuffer {
            buffer: Some(idle.unwrap_or_else(|| AlignedBuffer::new(self.bytes))),
            length,
            pool: Arc::clone(self),
        }
    }
}

/// A buffer that goes back to its pool when it is dropped.
#[derive(Debug)]
pub struct PooledBuffer {
    /// Empty only while it is dropped.
    buffer: Option<AlignedBuffer>,
    length: usize,
    pool: Arc<BufferPool>,
}

impl PooledBuffer {
    /// The bytes that count.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let length = self.length;
        match &mut self.buffer {
            Some(buffer) => &mut buffer.as_mut_slice()[..length],
            None => &mut [],
        }
    }

    /// The same buffer with another number of bytes that count.
    pub fn resized(mut self, length: usize) -> Self {
        assert!(length <= self.pool.bytes, "a pool's buffers have one size");
        self.length = length;
        self
    }
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        match &self.buffer {
            Some(buffer) => &buffer.as_slice()[..self.length],
            None => &[],
        }
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let mut idle = self
            .pool
            .idle
            .lock()
            .expect("no holder of this lock can panic");
        if let Some(buffer) = self.buffer.take()
            && idle.len() < self.pool.most_idle
        {
            idle.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_used_again() {
        let pool = BufferPool::new(10_000, 1);
        let mut first = pool.take(5000);
        first.as_mut_slice().fill(7);
        let address = first.as_ref().as_ptr();
        assert_eq!(address.align_offset(ALIGNMENT), 0);
        let second = pool.take(1);
        drop(first);
        drop(second);
        let again = pool.take(10_000);
        assert_eq!(again.as_ref().as_ptr(), address);
        assert_eq!(again.as_ref().len(), 10_000);
        assert_eq!(bytes::Bytes::from_owner(again).as_ptr(), address);
    }
}
