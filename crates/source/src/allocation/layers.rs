//! Disks that have had many lives: tables, members of arrays and file systems lie over one another, each made by the
//! tool that owns it.
//!
//! A layer is *whole* while every byte that it wrote is there, and *reached* if it covers the disk, or if a whole table
//! names its place. Whoever reads the disk may take any layer that is whole and reached for the truth, so none of its
//! bytes may be left out. Nor may any byte of the last layer, if it is reached.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rustix::fs::SeekFrom;

use super::*;
use crate::testing::{is_root, sh};

const MIB: u64 = 1 << 20;

/// Enough for XFS in the first partition, which is nowhere below 300 MiB.
const DISK_BYTES: u64 = 400 * MIB;

/// Places of partitions: the first of each table is large, and each table may have one more.
const LARGE: Region = Region {
    start: MIB,
    size: 320 * MIB,
};
const SHIFTED: Region = Region {
    start: 4 * MIB,
    size: 320 * MIB,
};
const SMALL: Region = Region {
    start: 330 * MIB,
    size: 60 * MIB,
};
/// A partition of a table within a partition.
const NESTED: Region = Region {
    start: 3 * MIB,
    size: 310 * MIB,
};
const WHOLE: Region = Region {
    start: 0,
    size: DISK_BYTES,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Region {
    start: u64,
    size: u64,
}

/// The kind of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    /// `mkfs` of this kind, with these options.
    FileSystem(&'static str, &'static str),
    /// A table of this kind, with partitions there.
    Table(&'static str, &'static [Region]),
    /// A member of something, with data all over it.
    Member(Member),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Member {
    Md090,
    Md10,
    Md12,
    Lvm,
    Luks,
    Bcache,
    Swap,
}

/// The writes of a layer: bytes, and their place in its region.
type Written = Arc<Vec<(u64, Vec<u8>)>>;

const FILE_SYSTEMS: [Layer; 6] = [
    Layer::FileSystem("ext4", "-F -b 4096"),
    Layer::FileSystem("ext4", "-F -b 1024 -O ^metadata_csum"),
    Layer::FileSystem("ext2", "-F"),
    Layer::FileSystem("xfs", "-f -K"),
    Layer::FileSystem("xfs", "-f -K -m crc=0"),
    Layer::FileSystem("btrfs", "-f -K"),
];

const TABLES: [Layer; 5] = [
    Layer::Table("gpt", &[LARGE, SMALL]),
    Layer::Table("dos", &[LARGE, SMALL]),
    Layer::Table("dos", &[LARGE]),
    Layer::Table("gpt", &[SHIFTED]),
    Layer::Table("dos", &[SHIFTED]),
];

const MEMBERS: [Member; 7] = [
    Member::Md090,
    Member::Md10,
    Member::Md12,
    Member::Lvm,
    Member::Luks,
    Member::Bcache,
    Member::Swap,
];

fn put(bytes: &mut [u8], at: usize, content: &[u8]) {
    bytes[at..at + content.len()].copy_from_slice(content);
}

/// The superblock of `member`, and where it is in a region of this size.
fn signature(member: Member, size: u64) -> (u64, Vec<u8>) {
    let mut bytes = vec![0; 4096];
    let of_md1 = |offset: u64, mut bytes: Vec<u8>| {
        put(&mut bytes, 0, &0xa92b_4efc_u32.to_le_bytes());
        put(&mut bytes, 4, &1_u32.to_le_bytes());
        put(&mut bytes, 16, &[7; 16]);
        put(&mut bytes, 72, &1_u32.to_le_bytes());
        put(&mut bytes, 80, &(size / 512 / 2).to_le_bytes());
        put(&mut bytes, 92, &2_u32.to_le_bytes());
        put(&mut bytes, 136, &(size / 512 / 2).to_le_bytes());
        put(&mut bytes, 144, &(offset / 512).to_le_bytes());
        let sum: u64 = bytes[..256]
            .chunks_exact(4)
            .map(|word| u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]])))
            .sum();
        let folded = (sum & 0xffff_ffff) + (sum >> 32);
        put(&mut bytes, 216, &(folded as u32).to_le_bytes());
        (offset, bytes)
    };
    match member {
        Member::Md090 => {
            put(&mut bytes, 0, &0xa92b_4efc_u32.to_le_bytes());
            put(&mut bytes, 8, &90_u32.to_le_bytes());
            put(&mut bytes, 20, &[7; 4]);
            let offset = (size & !0xffff) - 0x1_0000;
            put(&mut bytes, 32, &((offset / 1024) as u32).to_le_bytes());
            (offset, bytes)
        }
        Member::Md10 => of_md1(((size / 512 - 16) & !7) * 512, bytes),
        Member::Md12 => of_md1(4096, bytes),
        Member::Lvm => {
            put(&mut bytes, 0, b"LABELONE");
            put(&mut bytes, 8, &1_u64.to_le_bytes());
            put(&mut bytes, 20, &32_u32.to_le_bytes());
            put(&mut bytes, 24, b"LVM2 001");
            put(&mut bytes, 32, &[b'7'; 32]);
            put(&mut bytes, 64, &size.to_le_bytes());
            let sum = lvm_sum(&bytes[20..512]);
            put(&mut bytes, 16, &sum.to_le_bytes());
            (512, bytes[..512].to_vec())
        }
        Member::Luks => {
            put(&mut bytes, 0, b"LUKS\xba\xbe");
            put(&mut bytes, 6, &[0, 1]);
            put(&mut bytes, 168, b"77777777-7777-7777-7777-777777777777");
            (0, bytes[..512].to_vec())
        }
        Member::Bcache => {
            put(&mut bytes, 8, &8_u64.to_le_bytes());
            put(&mut bytes, 16, &1_u64.to_le_bytes());
            let magic = [
                0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba,
                0x6d, 0x81,
            ];
            put(&mut bytes, 24, &magic);
            put(&mut bytes, 40, &[7; 16]);
            let sum = bcache_sum(&bytes[8..208]);
            put(&mut bytes, 0, &sum.to_le_bytes());
            (4096, bytes)
        }
        Member::Swap => {
            put(&mut bytes, 1024, &1_u32.to_le_bytes());
            put(&mut bytes, 1028, &((size / 4096 - 1) as u32).to_le_bytes());
            put(&mut bytes, 4086, b"SWAPSPACE2");
            (0, bytes)
        }
    }
}

/// CRC-32 as LVM has it.
fn lvm_sum(bytes: &[u8]) -> u32 {
    let mut sum = 0xf597_a6cf_u32;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            let odd = sum & 1 == 1;
            sum >>= 1;
            if odd {
                sum ^= 0xedb8_8320;
            }
        }
    }
    sum
}

/// CRC-64 as bcache has it.
fn bcache_sum(bytes: &[u8]) -> u64 {
    let mut sum = u64::MAX;
    for byte in bytes {
        sum ^= u64::from(*byte) << 56;
        for _ in 0..8 {
            let high = sum >> 63 == 1;
            sum <<= 1;
            if high {
                sum ^= 0x42f0_e1eb_a9ea_3693;
            }
        }
    }
    !sum
}

/// Returns the writes of a layer into a region of this size; made once.
fn written(layer: Layer, size: u64) -> Written {
    type Key = (Layer, u64);
    static MADE: LazyLock<Mutex<BTreeMap<Key, Written>>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().unwrap();
    Arc::clone(made.entry((layer, size)).or_insert_with(|| {
        Arc::new(match layer {
            Layer::Member(member) => of_member(member, size),
            _ => of_tool(layer, size),
        })
    }))
}

/// A superblock, and data in every second range of 16 MiB.
fn of_member(member: Member, size: u64) -> Vec<(u64, Vec<u8>)> {
    let data = (MIB..size - 2 * MIB).step_by(32 * MIB as usize);
    let mut written: Vec<_> = data
        .map(|at| (at + 32 * 1024, vec![0xd7; 96 * 1024]))
        .collect();
    written.push(signature(member, size));
    written
}

fn of_tool(layer: Layer, size: u64) -> Vec<(u64, Vec<u8>)> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    File::create_new(&path).unwrap().set_len(size).unwrap();
    let image = path.display();
    match layer {
        Layer::FileSystem(kind, options) => {
            let files = directory.path().join("files");
            std::fs::create_dir(&files).unwrap();
            std::fs::write(files.join("file"), vec![0xf1; 5 << 20]).unwrap();
            let with_file = match kind {
                "xfs" => {
                    let list = directory.path().join("list");
                    let text = format!(
                        "/none\n0 0\nd--755 0 0\nfile ---644 0 0 {}\n$\n",
                        files.join("file").display()
                    );
                    std::fs::write(&list, text).unwrap();
                    format!("-p {}", list.display())
                }
                "btrfs" => format!("--rootdir {}", files.display()),
                _ => format!("-d {}", files.display()),
            };
            sh(&format!("mkfs.{kind} -q {options} {with_file} {image} >&2"));
            forget_what_mkfs_left(kind, &path);
        }
        Layer::Table(kind, regions) => {
            let lines: String = regions
                .iter()
                .map(|part| format!("start={}, size={}\\n", part.start / 512, part.size / 512))
                .collect();
            sh(&format!(
                "printf 'label: {kind}\\n{lines}' | sfdisk --quiet --force {image}"
            ));
        }
        Layer::Member(_) => unreachable!("no tool makes members here"),
    }
    non_zero(&path)
}

/// Zeros what `mkfs` wrote and then gave up: nobody misses that. The check of the file system says that the rest is
/// all.
fn forget_what_mkfs_left(kind: &str, image: &Path) {
    let file = File::options().write(true).open(image).unwrap();
    let size = file.metadata().unwrap().len();
    file.set_modified(SystemTime::now() - Duration::from_secs(60))
        .unwrap();
    let free = match frozen(image, size) {
        Ok(frozen) => frozen.free,
        Err(reason) => panic!("{kind}: {reason}"),
    };
    for (start, bytes) in non_zero(image) {
        let end = start + bytes.len() as u64;
        for range in &free {
            let (from, until) = (range.start.max(start), range.end.min(end));
            if from < until {
                let zeros = vec![0; (until - from) as usize];
                file.write_all_at(&zeros, from).unwrap();
            }
        }
    }
    let check = match kind {
        "xfs" => "xfs_repair -n",
        "btrfs" => "btrfs check --readonly --check-data-csum",
        _ => "e2fsck -fn",
    };
    sh(&format!("{check} {}", image.display()));
}

/// All that is no zeros, by blocks of 512 bytes.
fn non_zero(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let file = File::open(path).unwrap();
    let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut next = 0;
    while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(next)) {
        next = rustix::fs::seek(&file, SeekFrom::Hole(start)).unwrap();
        let mut data = vec![0; (next - start) as usize];
        file.read_exact_at(&mut data, start).unwrap();
        for (block, at) in data.chunks(512).zip((start..).step_by(512)) {
            match found.last_mut() {
                _ if *block == [0; 512] => {}
                Some((first, bytes)) if *first + bytes.len() as u64 == at => {
                    bytes.extend_from_slice(block);
                }
                _ => found.push((at, block.to_vec())),
            }
        }
    }
    found
}

/// A disk, and the layers that were made on it, the oldest first.
struct Disk {
    _directory: tempfile::TempDir,
    path: PathBuf,
    layers: Vec<(Layer, Region)>,
}

impl Disk {
    fn new(layers: &[(Layer, Region)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let file = File::create_new(&path).unwrap();
        file.set_len(DISK_BYTES).unwrap();
        for (layer, region) in layers {
            for (at, bytes) in written(*layer, region.size).iter() {
                file.write_all_at(bytes, region.start + at).unwrap();
            }
        }
        // Else each look waits until the times of the file tell of a further write.
        file.set_modified(SystemTime::now() - Duration::from_secs(60))
            .unwrap();
        Self {
            _directory: directory,
            path,
            layers: layers.to_vec(),
        }
    }

    fn free(&self) -> Result<Vec<ByteRange>, Unknown> {
        frozen(&self.path, DISK_BYTES).map(|frozen| frozen.free().to_vec())
    }

    fn is_whole(&self, (layer, region): (Layer, Region)) -> bool {
        let file = File::open(&self.path).unwrap();
        written(layer, region.size).iter().all(|(at, bytes)| {
            let mut found = vec![0; bytes.len()];
            file.read_exact_at(&mut found, region.start + at).unwrap();
            found == *bytes
        })
    }

    fn is_reached(&self, region: Region) -> bool {
        region == WHOLE
            || self.layers.iter().any(|&(layer, of)| {
                let names = |part: &Region| {
                    of.start + part.start == region.start && part.size == region.size
                };
                matches!(layer, Layer::Table(_, parts) if parts.iter().any(names))
                    && self.is_whole((layer, of))
                    && self.is_reached(of)
            })
    }

    /// The first byte of a layer that matters and lies in what was left out.
    fn lost(&self, free: &[ByteRange]) -> Option<(Layer, Region, u64)> {
        let last = self.layers.len() - 1;
        self.layers
            .iter()
            .enumerate()
            .filter(|(number, (layer, region))| {
                self.is_reached(*region) && (*number == last || self.is_whole((*layer, *region)))
            })
            .find_map(|(_, &(layer, region))| {
                written(layer, region.size).iter().find_map(|(at, bytes)| {
                    let start = region.start + at;
                    let end = start + bytes.len() as u64;
                    let hit = free
                        .iter()
                        .find(|range| range.start < end && start < range.end);
                    hit.map(|range| (layer, region, range.start.max(start)))
                })
            })
    }
}

fn layer() -> impl Strategy<Value = (Layer, Region)> {
    let region = prop_oneof![
        3 => Just(WHOLE),
        3 => Just(LARGE),
        2 => Just(SHIFTED),
        1 => Just(SMALL),
        1 => Just(Region { start: LARGE.start + NESTED.start, size: NESTED.size }),
    ];
    // Others need loop devices.
    let kinds = if is_root() { 6 } else { 3 };
    let file_system = (prop::sample::select(&FILE_SYSTEMS[..kinds]), region.clone()).prop_map(
        |(layer, region)| {
            let is_small = region.size < 300 * MIB;
            // XFS takes no less, and its remains would be the same.
            let layer = if is_small { FILE_SYSTEMS[0] } else { layer };
            (layer, region)
        },
    );
    let member = (prop::sample::select(&MEMBERS[..]), region)
        .prop_map(|(member, region)| (Layer::Member(member), region));
    let table = prop::sample::select(&TABLES[..]).prop_map(|table| (table, WHOLE));
    let nested = Just((Layer::Table("dos", &[NESTED]), LARGE));
    prop_oneof![4 => file_system, 2 => member, 4 => table, 1 => nested]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_byte_that_any_reading_of_a_disk_reaches_is_left_out(layers in prop::collection::vec(layer(), 1..6)) {
        let disk = Disk::new(&layers);
        let free = disk.free().unwrap_or_default();
        prop_assert_eq!(disk.lost(&free), None);
    }
}

#[test]
fn a_stale_table_or_file_system_under_what_is_there_now_is_not_believed() {
    let ext4 = FILE_SYSTEMS[0];
    for table in &TABLES[..3] {
        let stale = [(*table, WHOLE), (ext4, LARGE)];
        for member in MEMBERS {
            let disk = Disk::new(&[&stale[..], &[(Layer::Member(member), WHOLE)]].concat());
            disk.free()
                .expect_err(&format!("{member:?} over {stale:?}"));
            let disk = Disk::new(&[stale[0], stale[1], (Layer::Member(member), LARGE)]);
            assert_eq!(disk.lost(&disk.free().unwrap_or_default()), None);
        }
    }
    // The table was put back into the first sector, which ext4 does not use.
    let disk = Disk::new(&[(ext4, LARGE), (ext4, WHOLE), (TABLES[2], WHOLE)]);
    assert!(matches!(disk.free(), Err(Unknown::Several(_))));
}

#[test]
fn a_disk_with_one_reading_is_not_read_where_it_is_free() {
    for file_system in FILE_SYSTEMS {
        let is_ext = matches!(file_system, Layer::FileSystem(kind, _) if kind.starts_with("ext"));
        if !is_ext && !is_root() {
            continue;
        }
        for layers in [
            vec![(file_system, WHOLE)],
            vec![(TABLES[0], WHOLE), (file_system, LARGE)],
            vec![
                (TABLES[1], WHOLE),
                (file_system, LARGE),
                (FILE_SYSTEMS[0], SMALL),
            ],
        ] {
            let disk = Disk::new(&layers);
            let free = disk
                .free()
                .unwrap_or_else(|reason| panic!("{layers:?}: {reason}"));
            let bytes: u64 = free.iter().map(|range| range.end - range.start).sum();
            assert!(bytes > 150 * MIB, "{bytes} of {layers:?}");
            assert_eq!(disk.lost(&free), None);
        }
    }
}

#[test]
fn the_check_of_layers_finds_what_a_believed_stale_table_loses() {
    let layers = [
        (TABLES[1], WHOLE),
        (FILE_SYSTEMS[0], LARGE),
        (Layer::Member(Member::Md12), WHOLE),
    ];
    let disk = Disk::new(&layers);
    // What was done before the whole disk was asked: the file system of the stale partition says what is free.
    let open = OpenDisk::open(&disk.path).unwrap();
    let stale = ext::inspect(&Tools::within(TIMEOUT), &open, LARGE.start).unwrap();
    let free: Vec<ByteRange> = stale
        .free
        .iter()
        .map(|range| ByteRange {
            start: LARGE.start + range.start,
            end: LARGE.start + range.end,
        })
        .collect();
    let (layer, region, _) = disk.lost(&free).expect("the array's data is there");
    assert_eq!((layer, region), layers[2]);
}
