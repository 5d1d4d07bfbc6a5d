//! Memory whose start is aligned for O_DIRECT.

/// What block devices and file systems ask for at most.
const ALIGNMENT: usize = 4096;

#[repr(C, align(4096))]
#[derive(Clone)]
struct Block([u8; ALIGNMENT]);

/// Bytes that begin at a multiple of 4096.
pub struct AlignedBuffer {
    blocks: Vec<Block>,
}

impl AlignedBuffer {
    /// A buffer of at least `bytes`, rounded up to whole blocks, filled with zeros.
    pub fn new(bytes: usize) -> Self {
        Self {
            blocks: vec![Block([0; ALIGNMENT]); bytes.div_ceil(ALIGNMENT)],
        }
    }

    /// All bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let length = self.blocks.len() * ALIGNMENT;
        // SAFETY: blocks are plain bytes without padding, one behind the other, and borrowed for as long as the slice.
        unsafe { std::slice::from_raw_parts_mut(self.blocks.as_mut_ptr().cast(), length) }
    }
}
