//! The PostgreSQL that the service works on, and pgbench on it. Both programs know from their environment where it is.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// What a statement answers: a line a row, `|` between columns.
pub fn query(statement: &str) -> anyhow::Result<String> {
    let output =
        Command::new("psql").args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement]).output().context("psql")?;
    ensure!(output.status.success(), "psql: {statement}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// What pgbench measured.
pub struct Measured {
    pub per_second: f64,
    pub transactions: f64,
    /// How long each transaction took, where its time was logged: from when it was due, if there was a rate.
    pub times: Vec<Duration>,
}

/// Runs `script` as prepared statements, over so many connections, for so long.
pub fn pgbench(
    script: &Path,
    connections: usize,
    time: Duration,
    further: &[String],
    log: Option<&Path>,
) -> anyhow::Result<Measured> {
    let mut command = Command::new("pgbench");
    command.args([
        "-n",
        "-M",
        "prepared",
        "-j",
        "1",
        "-c",
        &connections.to_string(),
        "-T",
        &time.as_secs().to_string(),
    ]);
    command.arg("-f").arg(script).args(further);
    if let Some(log) = log {
        command.arg("--log").arg(format!("--log-prefix={}", log.display()));
    }
    let child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().context("pgbench")?;
    let id = child.id();
    let output = child.wait_with_output()?;
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "pgbench: {errors}");
    let figure = |before: &str| -> anyhow::Result<f64> {
        let figure = text.lines().find_map(|line| line.strip_prefix(before)?.split([' ', '/']).next());
        Ok(figure.with_context(|| format!("pgbench says no {before:?}: {text}"))?.parse()?)
    };
    let mut times = Vec::new();
    if let Some(log) = log {
        let log = log.with_extension(id.to_string());
        let lines = fs::read_to_string(&log).with_context(|| format!("{}", log.display()))?;
        for line in lines.lines() {
            // client_id transaction_no time script_no …
            let microseconds = line.split(' ').nth(2).context("no time in pgbench's log")?.parse()?;
            times.push(Duration::from_micros(microseconds));
        }
        fs::remove_file(log)?;
    }
    Ok(Measured {
        per_second: figure("tps = ")?,
        transactions: figure("number of transactions actually processed: ")?,
        times,
    })
}
