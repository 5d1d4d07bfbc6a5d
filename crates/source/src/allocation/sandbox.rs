//! The rights of a program that reads a disk of unknown content: that disk, and the files that programs need to run.
//!
//! A thread closes itself in and starts the program, which can't do more than the thread. Landlock bounds the files,
//! seccomp the system calls. Each is as strong as the kernel has it: a kernel without Landlock still runs the program,
//! as before there was a sandbox.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// The newest rights that are asked for. A kernel that knows fewer of them grants the others.
const RIGHTS: ABI = ABI::V6;

/// Programs, libraries, and their read-only data. Some systems have only some of them.
const PROGRAMS: [&str; 7] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
];

/// Files of the system that the tools read: mounts, sizes and kinds of devices.
const SYSTEM: [&str; 2] = ["/proc", "/sys"];

/// System calls that no reader of a disk needs, and that reach the network, other processes, the kernel, or round
/// Landlock.
const DENIED: [libc::c_long; 27] = [
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_io_uring_setup,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_open_by_handle_at,
];

/// The files that a program needs to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The disk, for reading.
    Disk,
    /// The same for a program that opens what it only reads for writing. It must be given a device that refuses to be
    /// written to.
    Readonly,
    /// All devices: `losetup` makes one over a part of the disk. It parses nothing of what the disk holds.
    Devices,
}

/// Closes the calling thread in for good.
pub(super) fn apply(disk: &File, reach: Reach) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    // The requests by which a program asks for the size and the sectors of a device.
    let reading = AccessFs::ReadFile | AccessFs::IoctlDev;
    match reach {
        Reach::Disk => bound_files(disk, reading),
        Reach::Readonly => bound_files(disk, reading | AccessFs::WriteFile),
        Reach::Devices => Ok(()),
    }
    .map_err(io::Error::other)?;
    bound_calls().map_err(io::Error::other)
}

fn bound_files(disk: &File, access: BitFlags<AccessFs>) -> Result<(), RulesetError> {
    let reading = AccessFs::from_read(RIGHTS);
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(RIGHTS))?
        .handle_access(AccessNet::from_all(RIGHTS))?
        .scope(Scope::from_all(RIGHTS))?
        .create()?
        .add_rule(PathBeneath::new(disk, access))?;
    for path in PROGRAMS {
        rules = allow(rules, path, reading)?;
    }
    for path in SYSTEM {
        rules = allow(rules, path, AccessFs::ReadFile | AccessFs::ReadDir)?;
    }
    rules = allow(rules, "/dev/null", AccessFs::ReadFile | AccessFs::WriteFile)?;
    rules.restrict_self()?;
    Ok(())
}

/// Allows what lies at a path, if there is anything.
fn allow(
    rules: landlock::RulesetCreated,
    path: &str,
    access: BitFlags<AccessFs>,
) -> Result<landlock::RulesetCreated, RulesetError> {
    match PathFd::new(path) {
        Ok(open) => rules.add_rule(PathBeneath::new(open, access)),
        Err(_) => Ok(rules),
    }
}

fn bound_calls() -> Result<(), seccompiler::Error> {
    let Ok(architecture) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Ok(());
    };
    let filter = SeccompFilter::new(
        BTreeMap::from(DENIED.map(|call| (call, Vec::new()))),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.cast_unsigned()),
        architecture,
    );
    let program: BpfProgram = filter
        .and_then(TryInto::try_into)
        .map_err(seccompiler::Error::Backend)?;
    seccompiler::apply_filter(&program)
}
