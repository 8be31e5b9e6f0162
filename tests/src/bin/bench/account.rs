//! What each process has used of the processor and of memory, as the kernel counts it.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use posthaste_tests::{Cluster, Role};

/// The name of this process in the tables.
pub(crate) const GENERATOR: &str = "generator and sink";

/// The processes of a run.
pub(crate) struct Accounts {
    processes: Vec<(String, u32)>,
}

impl Accounts {
    pub(crate) fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut processes = vec![
            (
                "nats-server".to_owned(),
                cluster.nats.process_id().context("nats-server is not running")?,
            ),
            (
                "postgres".to_owned(),
                cluster.postgres.process_id().context("Postgres is not running")?,
            ),
        ];
        for role in [Role::Ingest, Role::Dispatcher, Role::RetryScheduler, Role::ConfigApi] {
            processes.push((
                role.name().to_owned(),
                cluster.process_id(role).context("a service is not running")?,
            ));
        }
        processes.push((GENERATOR.to_owned(), std::process::id()));
        Ok(Self { processes })
    }

    /// Processor time used so far, by process; Postgres with all its children, ended ones included.
    pub(crate) fn cpu(&self) -> anyhow::Result<Vec<(String, Duration)>> {
        self.sum(|stat| stat.cpu)
    }

    /// Resident memory, by process, in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<Vec<(String, u64)>> {
        let sums = self.sum(|stat| Duration::from_nanos(stat.resident))?;
        Ok(sums
            .into_iter()
            .map(|(name, bytes)| (name, u64::try_from(bytes.as_nanos()).unwrap_or(0)))
            .collect())
    }

    fn sum(&self, of: impl Fn(&Stat) -> Duration) -> anyhow::Result<Vec<(String, Duration)>> {
        let all: Vec<Stat> = fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(Stat::read)
            .collect();
        self.processes
            .iter()
            .map(|(name, pid)| {
                let own = all
                    .iter()
                    .find(|stat| stat.pid == *pid)
                    .with_context(|| format!("{name} is gone"))?;
                let children = all
                    .iter()
                    .filter(|stat| stat.parent == *pid && name == "postgres")
                    .map(&of);
                Ok((name.clone(), of(own) + children.sum::<Duration>()))
            })
            .collect()
    }
}

struct Stat {
    pid: u32,
    parent: u32,
    cpu: Duration,
    resident: u64,
}

/// Ticks a second in `/proc/<pid>/stat`: 100 on every Linux that has not been rebuilt otherwise.
const TICK: Duration = Duration::from_millis(10);
const PAGE: u64 = 4096;

impl Stat {
    /// proc(5): after the name in parentheses, field 4 is the parent, 14 to 17 the times, 24 the resident pages.
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks: u64 = (14..=17).filter_map(field).sum();
        Some(Self {
            pid,
            parent: u32::try_from(field(4)?).ok()?,
            cpu: TICK * u32::try_from(ticks).ok()?,
            resident: field(24)? * PAGE,
        })
    }
}
