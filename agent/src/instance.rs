//! Identity of this agent process. With it the gateway distinguishes the agent from another one with a copy of its
//! state directory.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use domain::RequestId;
use proto::agent as wire;

/// Returns the identity of this process from its start to its end.
pub(crate) fn of_this_process(state_dir: &Path) -> wire::Instance {
    wire::Instance {
        id: RequestId::generate().to_string(),
        place: place(state_dir),
        host: sysinfo::System::host_name().unwrap_or_default(),
    }
}

/// Returns a value that is the same for every start with this state directory since the machine's boot. Only one
/// process at a time can lock the directory. The value is a fingerprint, because the machine's id must not be
/// disclosed.
fn place(state_dir: &Path) -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let directory = std::fs::metadata(state_dir)
        .map(|found| format!("{}:{}", found.dev(), found.ino()))
        .unwrap_or_default();
    let facts = [
        read("/proc/sys/kernel/random/boot_id"),
        read("/etc/machine-id"),
        directory,
    ];
    pki::fingerprint(facts.join("\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_an_id_and_each_directory_a_place() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = of_this_process(one.path());
        let again = of_this_process(one.path());
        assert_ne!(first.id, again.id);
        assert_eq!(first.place, again.place);
        assert_ne!(first.place, of_this_process(other.path()).place);
    }
}
