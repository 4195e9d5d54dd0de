//! The servers that are measured, and what the kernel says of them.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The unit of times in `/proc/PID/stat`: USER_HZ, 100 a second on every Linux.
const TICK_SECONDS: f64 = 0.01;

/// A server under measurement.
#[derive(Debug)]
pub struct Server {
    pub name: String,
    pub address: SocketAddr,
    /// Its processes, without their children. Several where several programs do the work.
    roots: Vec<u32>,
    /// Emptied before each run; `None` where nothing is logged.
    log: Option<PathBuf>,
}

/// The server of this name.
pub fn find<'a>(servers: &'a [Server], name: &str) -> anyhow::Result<&'a Server> {
    servers.iter().find(|server| server.name == name).with_context(|| format!("no server is called {name}"))
}

/// The servers in `file`: one a line, as `NAME ADDRESS PID[,PID...] LOG`, LOG being `-` without one.
pub fn read(file: &Path) -> anyhow::Result<Vec<Server>> {
    let text = fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    text.lines().map(|line| parse(line).with_context(|| format!("{}: {line}", file.display()))).collect()
}

fn parse(line: &str) -> anyhow::Result<Server> {
    let mut words = line.split_whitespace();
    let mut word = || words.next().context("a word is missing");
    Ok(Server {
        name: word()?.to_owned(),
        address: word()?.parse()?,
        roots: word()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
        log: Some(word()?).filter(|log| *log != "-").map(PathBuf::from),
    })
}

impl Server {
    /// One that is none of those that were started before.
    #[must_use]
    pub fn of(name: &str, address: SocketAddr, pid: u32) -> Self {
        Self { name: name.to_owned(), address, roots: vec![pid], log: None }
    }

    /// User and system time of its processes, their threads and their children so far, in seconds: the whole, and each
    /// root's part.
    pub fn cpu(&self) -> anyhow::Result<Cpu> {
        let stats = stats()?;
        let parts = self.roots.iter().map(|root| tree(&stats, *root).iter().map(|pid| stats[pid].seconds).sum());
        Ok(Cpu(parts.collect()))
    }

    /// What its processes take of the memory, each page divided among those that share it, in bytes.
    pub fn memory(&self) -> anyhow::Result<f64> {
        let stats = stats()?;
        let mut bytes = 0.0;
        for pid in self.roots.iter().flat_map(|root| tree(&stats, *root)) {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let pss = text.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next());
            bytes += pss.context("no Pss in smaps_rollup")?.parse::<f64>()? * 1024.0;
        }
        Ok(bytes)
    }

    /// Throws away what it has logged: a round writes hundreds of megabytes.
    pub fn empty_log(&self) -> anyhow::Result<()> {
        match &self.log {
            Some(log) => fs::OpenOptions::new().write(true).open(log)?.set_len(0).context("the log cannot be emptied"),
            None => Ok(()),
        }
    }
}

/// CPU seconds, one figure for each root of a server.
#[derive(Debug, Clone)]
pub struct Cpu(Vec<f64>);

impl Cpu {
    /// What was spent between the two.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<f64> {
        self.0.iter().zip(&before.0).map(|(after, before)| after - before).collect()
    }
}

struct Stat {
    parent: u32,
    /// Of the process and of its children that have ended.
    seconds: f64,
}

fn stats() -> anyhow::Result<HashMap<u32, Stat>> {
    let mut stats = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may have ended since the folder was read.
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        stats.insert(pid, stat(&text).with_context(|| format!("/proc/{pid}/stat: {text}"))?);
    }
    Ok(stats)
}

/// See proc_pid_stat(5). The name of the program, in parentheses, may hold anything.
fn stat(text: &str) -> Option<Stat> {
    let fields: Vec<_> = text.rsplit_once(") ")?.1.split(' ').collect();
    // utime, stime, cutime and cstime are fields 14 to 17; `fields` begins with the third.
    let ticks: u64 = fields.get(11..15)?.iter().map(|ticks| ticks.parse::<u64>().ok()).sum::<Option<_>>()?;
    Some(Stat { parent: fields.get(1)?.parse().ok()?, seconds: ticks as f64 * TICK_SECONDS })
}

/// `root` and all that descend from it.
fn tree(stats: &HashMap<u32, Stat>, root: u32) -> Vec<u32> {
    let mut pids: Vec<_> = stats.contains_key(&root).then_some(root).into_iter().collect();
    let mut next = 0;
    while let Some(parent) = pids.get(next).copied() {
        pids.extend(stats.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let line = "42 (a ) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 150 50 20 10 20 0 1 0 99 1000 10";
        let stat = stat(line).unwrap();
        assert_eq!(stat.parent, 7);
        assert!((stat.seconds - 2.3).abs() < 1e-9);
    }

    #[test]
    fn a_tree_holds_all_that_descend_from_its_root() {
        let stats: HashMap<_, _> =
            [(1, 0), (7, 1), (8, 7), (9, 8), (10, 1)].map(|(pid, parent)| (pid, Stat { parent, seconds: 0.0 })).into();
        let mut pids = tree(&stats, 7);
        pids.sort_unstable();
        assert_eq!(pids, [7, 8, 9]);
        assert!(tree(&stats, 11).is_empty());
    }
}
