"""Disks to copy, and whether a copy is one."""
import os
import random
import shutil
import tempfile
import pathlib

from machine import CACHE, GIB, MIB, find, run, say


def extents(file):
    """Where a file has data."""
    size, position = os.fstat(file).st_size, 0
    while position < size:
        try:
            start = os.lseek(file, position, os.SEEK_DATA)
        except OSError:
            return
        position = os.lseek(file, start, os.SEEK_HOLE)
        yield start, position


def copy_sparse(source, target, at=0):
    with open(source, "rb") as reading, open(target, "r+b") as writing:
        for start, end in extents(reading.fileno()):
            while start < end:
                piece = os.pread(reading.fileno(), min(8 * MIB, end - start), start)
                os.pwrite(writing.fileno(), piece, at + start)
                start += len(piece)


def sized(path, size):
    with open(path, "wb") as file:
        file.truncate(size)


def identical(source, target):
    """Whether the target begins with the source's bytes and has nothing but zeros behind them."""
    with open(source, "rb") as left, open(target, "rb") as right:
        if os.fstat(left.fileno()).st_size > os.fstat(right.fileno()).st_size:
            return False
        for start, end in sorted([*extents(left.fileno()), *extents(right.fileno())]):
            while start < end:
                length = min(8 * MIB, end - start)
                one, other = os.pread(left.fileno(), length, start), os.pread(right.fileno(), length, start)
                if one != other and one.ljust(length, b"\0") != other.ljust(length, b"\0"):
                    return False
                start += length
    return True


def some_files(folder, wanted):
    """Files of this machine, so many bytes of them: programs, libraries and documents compress as those of any server do."""
    taken = 0
    for top in ("/usr/bin", "/usr/lib", "/usr/share", "/usr/local", "/opt", "/var/lib"):
        for path, folders, names in os.walk(top):
            folders.sort()
            for name in sorted(names):
                file = os.path.join(path, name)
                try:
                    size = os.lstat(file).st_size
                    if os.path.islink(file) or not os.path.isfile(file) or size > wanted / 8:
                        continue
                    target = folder / file.lstrip("/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target)
                except OSError:
                    continue
                taken += size
                if taken >= wanted:
                    return taken
    return taken


def realistic(path, size, used):
    """GPT, one ext4 with files of this machine, and holes for the rest."""
    say(f"building a disk of {size / GIB:.1f} GiB with {used / 1e9:.2f} GB of this machine's files")
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        folder = pathlib.Path(scratch) / "files"
        folder.mkdir()
        taken = some_files(folder, int(used * 0.8))
        # Media and archives: what is packed already.
        with open(folder / "media", "wb") as media:
            while taken < used:
                taken += media.write(random.Random(taken).randbytes(8 * MIB))
        partition = pathlib.Path(scratch) / "partition"
        sized(partition, size - 2 * MIB)
        run(find("mkfs.ext4"), "-q", "-F", "-d", folder, partition)
        building = path.with_suffix(".partial")
        sized(building, size)
        run(find("sgdisk"), "-n", "1:2048:0", "-t", "1:8300", building)
        copy_sparse(partition, building, MIB)
        building.rename(path)


def noise(path, size):
    say(f"building {size / GIB:.2f} GiB of noise")
    building = path.with_suffix(".partial")
    with open(building, "wb") as file:
        for number in range(size // (8 * MIB)):
            file.write(random.Random(number).randbytes(8 * MIB))
    building.rename(path)


def disk(kind, quick):
    """A source on the disk's file system, built once and kept."""
    CACHE.mkdir(parents=True, exist_ok=True)
    name = f"{kind}-quick" if quick else kind
    path = CACHE / f"{name}.raw"
    if not path.exists():
        if kind == "realistic":
            realistic(path, *((256 * MIB, 64 * MIB) if quick else (6 * GIB, 2_300_000_000)))
        elif kind == "random":
            noise(path, 32 * MIB if quick else 2 * GIB)
        elif kind == "random-small":
            noise(path, 16 * MIB if quick else 256 * MIB)
        elif kind == "zeros":
            sized(path, 8 << 40)
    return path


def changed(source, folder):
    """A copy of a disk with other bytes in 1 % of its chunks, which lie anywhere."""
    path = folder / "changed.raw"
    sized(path, source.stat().st_size)
    copy_sparse(source, path)
    chance = random.Random(1)
    with open(path, "r+b") as file:
        chunks = sorted({start // MIB for low, high in extents(file.fileno()) for start in range(low, high, MIB)})
        for chunk in chance.sample(chunks, max(1, len(chunks) // 100)):
            os.pwrite(file.fileno(), chance.randbytes(64 * 1024), chunk * MIB)
    return path
