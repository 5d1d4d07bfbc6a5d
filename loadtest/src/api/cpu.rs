//! Processor time of a process and its descendants, from /proc.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

/// Watches a process and everything that it started.
#[derive(Debug)]
pub(super) struct CpuMeter {
    root: i32,
}

/// Processor time, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct CpuSeconds {
    /// Processor time of Wherry's own process.
    pub wherry: f64,
    /// Processor time of its Postgres and NATS.
    pub servers: f64,
}

impl CpuSeconds {
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            wherry: self.wherry - before.wherry,
            servers: self.servers - before.servers,
        }
    }

    /// Processor time of both.
    pub fn total(&self) -> f64 {
        self.wherry + self.servers
    }
}

/// The fields of /proc/PID/stat that are used.
struct Stat {
    parent: i32,
    /// Clock ticks of the process itself, and of its children that ended.
    own: u64,
    ended: u64,
}

impl CpuMeter {
    pub(super) fn of_tree(root: i32) -> Self {
        Self { root }
    }

    pub(super) fn read(&self) -> CpuSeconds {
        let processes: BTreeMap<i32, Stat> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
                Some((id, stat(id)?))
            })
            .collect();
        let is_below = |mut id: i32| {
            // A tree of processes is not deep; a loop can't be one.
            for _ in 0..64 {
                match processes.get(&id) {
                    Some(stat) if stat.parent == self.root => return true,
                    Some(stat) => id = stat.parent,
                    None => return false,
                }
            }
            false
        };
        let root = processes.get(&self.root);
        let below = processes.iter().filter(|(id, _)| is_below(**id));
        CpuSeconds {
            wherry: seconds(root.map_or(0, |stat| stat.own)),
            servers: seconds(below.map(|(_, stat)| stat.own + stat.ended).sum()),
        }
    }
}

/// Processor time of this process.
pub(super) fn own() -> f64 {
    let id = i32::try_from(std::process::id()).unwrap_or_default();
    stat(id).map_or(0.0, |stat| seconds(stat.own))
}

fn stat(id: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The program's name is in brackets and may hold anything; the fields behind it are numbers.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: number(11)? + number(12)?,
        ended: number(13)? + number(14)?,
    })
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_and_children_count() {
        let before = own();
        let until = std::time::Instant::now() + std::time::Duration::from_millis(100);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        assert!(own() > before);

        let id = i32::try_from(std::process::id()).unwrap();
        let meter = CpuMeter::of_tree(id);
        let before = meter.read();
        let mut child = std::process::Command::new("sh")
            .args([
                "-c",
                "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exec sleep 60",
            ])
            .spawn()
            .unwrap();
        let began = std::time::Instant::now();
        while meter.read().since(&before).servers < 0.02 {
            assert!(began.elapsed().as_secs() < 30, "{:?}", meter.read());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
