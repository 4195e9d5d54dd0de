//! How long a list takes without the cache, beside the SQL that it is made of.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bench::figures::{Spread, quantile};
use bench::http::Connection;
use bench::servers::Server;

use crate::{PATH, Part, Target, joined, wait_until};
use bench::postgres::{pgbench, query};

const CONNECTIONS: usize = 8;
const ROUNDS: usize = 8;
const TIME: Duration = Duration::from_secs(4);
/// How much of what pgbench does without a pause is asked for: waiting in line is not what is measured.
const LOAD: f64 = 0.25;
/// The most that the p99 may be, of that of the SQL.
const MOST: f64 = 2.0;

pub(crate) fn measure(server: &Server, folder: &Path) -> anyhow::Result<Part> {
    let statements = statements(server, &folder.join("postgres/log"))?;
    let script = folder.join("list.sql");
    let (text, variables) = as_script(&statements);
    fs::write(&script, text)?;
    let closed = pgbench(&script, CONNECTIONS, Duration::from_secs(3), &variables, None)?;
    let rate = closed.per_second * LOAD;
    eprintln!("bench: lists without the cache: {ROUNDS} rounds of 2 runs of {} s, {rate:.0} a second", TIME.as_secs());

    let at_rate: Vec<_> = variables.iter().cloned().chain([format!("--rate={rate}")]).collect();
    let mut rounds = Vec::new();
    ask(server, rate, Duration::from_secs(1))?; // connections, prepared statements
    for _ in 0..ROUNDS {
        let of_service = Times::of(ask(server, rate, TIME)?)?;
        rounds.push((
            of_service,
            Times::of(pgbench(&script, CONNECTIONS, TIME, &at_rate, Some(&folder.join("pgbench")))?.times)?,
        ));
    }

    let mut text = format!(
        "`GET {PATH}` with `STREAM_CACHE=false`, asked of the stream service itself, beside pgbench (`-M prepared`) with the {} \
         statements that PostgreSQL logged for one such request. {rate:.0} a second at random moments, a quarter of what \
         pgbench does without a pause, over {CONNECTIONS} connections; from when each was due; {ROUNDS} rounds of {} s in turn. \
         Medians of the rounds, in parentheses the quartiles.\n\n\
         | | answers | p50, ms | p99, ms |\n|---|---|---|---|\n",
        statements.len(),
        TIME.as_secs()
    );
    let mut row = |what: &str, of: &dyn Fn(&(Times, Times)) -> Times| {
        let answers: usize = rounds.iter().map(|round| of(round).count).sum();
        let half = Spread::of(rounds.iter().map(|round| of(round).half / 1e3));
        let tail = Spread::of(rounds.iter().map(|round| of(round).tail / 1e3));
        writeln!(text, "| {what} | {answers} | {half} | {tail} |")
    };
    row("the service", &|round| round.0)?;
    row("the SQL alone", &|round| round.1)?;
    let half = Spread::of(rounds.iter().map(|(service, sql)| service.half / sql.half));
    let tail = Spread::of(rounds.iter().map(|(service, sql)| service.tail / sql.tail));
    writeln!(text, "| ratio | | {half} | {tail} |")?;
    let target = Target {
        what: "list without the cache, p99 to that of its SQL",
        aim: "≤ 2",
        figure: tail.to_string(),
        is_met: tail.median <= MOST,
    };
    Ok(Part { text, targets: vec![target], is_valid: true })
}

/// How long the answers of one round took, in microseconds.
#[derive(Clone, Copy)]
struct Times {
    count: usize,
    half: f64,
    tail: f64,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> anyhow::Result<Self> {
        ensure!(!times.is_empty(), "nothing was answered");
        times.sort_unstable();
        Ok(Self { count: times.len(), half: quantile(&times, 0.5), tail: quantile(&times, 0.99) })
    }
}

/// Asks for the list at random moments, `rate` times a second, and returns how long each answer took from when it was due.
fn ask(server: &Server, rate: f64, time: Duration) -> anyhow::Result<Vec<Duration>> {
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
    let start = Instant::now();
    let next = Mutex::new(start);
    // As pgbench does: whoever is free takes the next one.
    let next = || {
        let mut next = next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let due = *next;
        *next += Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / rate);
        (due < start + time).then_some(due)
    };
    let work = || {
        let mut connection = Connection::open(server.address)?;
        let mut times = Vec::new();
        while let Some(due) = next() {
            wait_until(due);
            let answer = connection.send(&request)?;
            ensure!(answer.status == 200, "answered {}", answer.status);
            times.push(due.elapsed());
        }
        anyhow::Ok(times)
    };
    let all = thread::scope(|scope| {
        let workers: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(joined).collect::<Vec<_>>()
    });
    Ok(all.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
}

/// A statement, with its parameters.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Statement {
    text: String,
    parameters: Vec<String>,
}

/// The statements that the service makes a list of, as PostgreSQL logs them: those that the code has, whatever it has.
fn statements(server: &Server, log: &Path) -> anyhow::Result<Vec<Statement>> {
    let set = |change: &str| {
        query(&format!("ALTER SYSTEM {change}"))?;
        query("SELECT pg_reload_conf()")
    };
    set("SET log_statement = 'all'")?;
    let found = logged(server, log);
    set("RESET log_statement")?;
    found
}

fn logged(server: &Server, log: &Path) -> anyhow::Result<Vec<Statement>> {
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
    let mut connection = Connection::open(server.address)?;
    let mut last = Vec::new();
    // Each backend reads its settings anew in its own time.
    for _ in 0..100 {
        let mut file = fs::File::open(log).with_context(|| format!("{}", log.display()))?;
        file.seek(SeekFrom::End(0))?;
        connection.send(&request)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let is_of_list = |one: &Statement| one.text.starts_with("SELECT") && one.text.contains("\"streams\"");
        let found: Vec<_> = parse(&text).into_iter().filter(is_of_list).collect();
        if !found.is_empty() && found == last {
            return Ok(found);
        }
        last = found;
        thread::sleep(Duration::from_millis(50));
    }
    bail!("PostgreSQL logs no statements of a list, or others each time: {last:?}")
}

/// What is executed by prepared statements, in a log of PostgreSQL whose lines begin as they do unless told otherwise.
fn parse(log: &str) -> Vec<Statement> {
    let mut found: Vec<Statement> = Vec::new();
    let mut last_of: HashMap<&str, usize> = HashMap::new();
    let mut is_text = false;
    for line in log.lines() {
        if let Some(more) = line.strip_prefix('\t') {
            if let Some(last) = found.last_mut().filter(|_| is_text) {
                last.text.push('\n');
                last.text.push_str(more);
            }
            continue;
        }
        is_text = false;
        // 2026-01-01 00:00:00.000 UTC [PID] LOG:  execute NAME: SELECT …
        let Some((pid, said)) =
            line.split_once("] ").and_then(|(before, said)| Some((before.rsplit_once('[')?.1, said)))
        else {
            continue;
        };
        if let Some((_, text)) = said.strip_prefix("LOG:  execute ").and_then(|said| said.split_once(": ")) {
            last_of.insert(pid, found.len());
            found.push(Statement { text: text.to_owned(), parameters: Vec::new() });
            is_text = true;
        } else if let (Some(list), Some(index)) = (said.strip_prefix("DETAIL:  parameters: "), last_of.get(pid)) {
            found[*index].parameters = values(list);
        }
    }
    found
}

/// The values in `$1 = 'it''s', $2 = '5'`.
fn values(list: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut rest = list;
    while let Some((_, quoted)) = rest.split_once(" = '") {
        let mut value = String::new();
        let mut end = quoted.len();
        let mut letters = quoted.char_indices().peekable();
        while let Some((place, letter)) = letters.next() {
            if letter == '\'' && letters.next_if(|(_, next)| *next == '\'').is_none() {
                end = place + 1;
                break;
            }
            value.push(letter);
        }
        values.push(value);
        rest = &quoted[end..];
    }
    values
}

/// A script for pgbench, and the options that give its variables their values.
fn as_script(statements: &[Statement]) -> (String, Vec<String>) {
    let (mut script, mut variables) = (String::new(), Vec::new());
    for (number, Statement { text, parameters }) in statements.iter().enumerate() {
        let mut text = text.clone();
        // From the last, or `$1` would be found in `$10`.
        for (index, value) in parameters.iter().enumerate().rev() {
            let name = format!("s{number}p{}", index + 1);
            text = text.replace(&format!("${}", index + 1), &format!(":{name}"));
            variables.extend(["-D".to_owned(), format!("{name}={value}")]);
        }
        script.push_str(&text);
        script.push_str(";\n");
    }
    (script, variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_read_as_postgresql_logs_them() {
        let log = "2026-11-21 12:00:00.000 UTC [7] LOG:  execute s1: SELECT 1\n\
                   \tFROM \"streams\" WHERE id = $1 AND title = $2\n\
                   2026-11-21 12:00:00.001 UTC [8] LOG:  statement: BEGIN\n\
                   2026-11-21 12:00:00.001 UTC [7] DETAIL:  parameters: $1 = '{5,6}', $2 = 'it''s, $3'\n\
                   2026-11-21 12:00:00.002 UTC [8] LOG:  execute <unnamed>: SELECT 2\n";
        let found = parse(log);
        let first = Statement {
            text: "SELECT 1\nFROM \"streams\" WHERE id = $1 AND title = $2".to_owned(),
            parameters: vec!["{5,6}".to_owned(), "it's, $3".to_owned()],
        };
        let second = Statement { text: "SELECT 2".to_owned(), parameters: Vec::new() };
        assert_eq!(found, [first, second]);
        let (script, variables) = as_script(&found);
        assert_eq!(script, "SELECT 1\nFROM \"streams\" WHERE id = :s0p1 AND title = :s0p2;\nSELECT 2;\n");
        assert_eq!(variables, ["-D", "s0p2=it's, $3", "-D", "s0p1={5,6}"]);
    }
}
