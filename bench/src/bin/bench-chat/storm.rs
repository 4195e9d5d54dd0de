//! What happens when an instance dies, and everybody comes back at once.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bench::figures::quantile;
use bench::postgres::query;
use bench::servers::{self, Server};
use futures_util::future::try_join_all;
use tokio::time::{sleep, timeout};

use crate::client::{Client, User};
use crate::fan_out::open_all;
use crate::service::{BETWEEN_TRIES, Service};
use crate::speech::{Speech, seq};
use crate::{Part, ROOMS, Target};

/// How many messages each room has gained before.
const MESSAGES: usize = 40;
/// A client has missed at most so many of them.
const MISSED: usize = 30;
const PATIENCE: Duration = Duration::from_secs(60);
const MOST_SECONDS: f64 = 15.0;
const MOST_QUERIES: f64 = 2.0;

pub(crate) async fn measure(servers: &[Server], users: &[User], folder: &Path) -> anyhow::Result<Part> {
    eprintln!("bench: {} WebSockets come back after kill -9", users.len());
    let address = servers::find(servers, "storm")?.address;
    let room = |user: usize| user % ROOMS + 1;
    let service = Service::start(folder)?;
    service.serves(address).await?;
    let clients = open_all(address, Speech::Rooms, users, room).await?;
    let mut last = vec![0; ROOMS + 1];
    for (user, mut client) in clients.into_iter().enumerate().take(ROOMS) {
        for number in 0..MESSAGES {
            client.say(&Speech::Rooms.message(room(user), number)).await?;
        }
        for _ in 0..MESSAGES {
            let ack = client.until(Speech::is_ack).await?;
            last[room(user)] = seq(&ack).context("no number in an acknowledgement")?;
        }
    }
    // Of connections from now on.
    query("ALTER DATABASE postgres SET log_statement = 'all'")?;
    let log = folder.join("postgres/log");
    let logged = fs::metadata(&log)?.len();

    let killed_at = Instant::now();
    drop(service);
    let service = Service::start(folder)?;
    let resumed = users.iter().map(async |user| {
        let (room, missed) = (room(user.number), (user.number / ROOMS % (MISSED + 1)) as i64);
        let mut client = loop {
            match Client::open(address, Speech::Rooms, user, room).await {
                Ok(client) => break client,
                Err(_) if killed_at.elapsed() < PATIENCE => sleep(BETWEEN_TRIES).await,
                Err(error) => return Err(error),
            }
        };
        let since = last[room] - missed;
        if let Some(join) = Speech::Rooms.join(room, Some(since)) {
            client.say(&join).await?;
        }
        let joined = client.until(|frame| Speech::Rooms.is_joined(frame)).await?;
        let joined = String::from_utf8(joined)?;
        ensure!(joined.contains("\"recovered\":true"), "not recovered: {joined}");
        for expected in since + 1..=last[room] {
            let message = client.until(|frame| Speech::number(frame).is_some()).await?;
            ensure!(seq(&message) == Some(expected), "user {} did not get message {expected} next", user.number);
        }
        Ok((client, killed_at.elapsed()))
    });
    let resumed = timeout(PATIENCE, try_join_all(resumed)).await.context("not all came back in a minute")??;
    let (clients, mut times): (Vec<_>, Vec<_>) = resumed.into_iter().unzip();
    query("ALTER DATABASE postgres RESET log_statement")?;
    let queries = queries(&log, logged)?;
    drop((clients, service));

    times.sort_unstable();
    let all = times.last().map_or(0.0, Duration::as_secs_f64);
    let per_room = queries as f64 / ROOMS as f64;
    let text = format!(
        "{} WebSockets in {ROOMS} rooms. The service is killed (`kill -9`) and started again at once; all clients try every {} ms, join \
         with `since` and check that they get exactly what they have missed, up to {MISSED} messages each. From the kill: half have \
         resumed after {:.2} s, all after {all:.2} s. Statements on rooms, members and messages meanwhile, as PostgreSQL logs them: \
         {queries}.\n",
        users.len(),
        BETWEEN_TRIES.as_millis(),
        quantile(&times, 0.5) / 1e6,
    );
    let targets = vec![
        Target {
            what: format!("{} come back after kill -9: all resumed", users.len()),
            aim: "≤ 15 s",
            figure: format!("{all:.2} s"),
            is_met: all <= MOST_SECONDS,
        },
        Target {
            what: "queries a room meanwhile".to_owned(),
            aim: "≤ 2",
            figure: format!("{per_room:.2}"),
            is_met: per_room <= MOST_QUERIES,
        },
    ];
    Ok(Part { text, targets, is_valid: true })
}

/// How many statements on the tables of chat were logged since.
fn queries(log: &Path, since: u64) -> anyhow::Result<usize> {
    let mut file = fs::File::open(log)?;
    file.seek(SeekFrom::Start(since))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(statements(&text).filter(|text| is_of_chat(text)).count())
}

/// Statements as PostgreSQL logs them: those that have several lines too.
fn statements(log: &str) -> impl Iterator<Item = String> {
    let mut all: Vec<String> = Vec::new();
    for line in log.lines() {
        match line.split_once("LOG:  ") {
            Some((_, text)) => all.push(text.to_owned()),
            None => {
                if let Some(last) = all.last_mut() {
                    last.push_str(line);
                }
            }
        }
    }
    all.into_iter().filter(|text| text.starts_with("execute ") || text.starts_with("statement: "))
}

fn is_of_chat(statement: &str) -> bool {
    let is_query = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].iter().any(|word| statement.contains(word));
    is_query && ["rooms", "room_members", "messages"].iter().any(|table| statement.contains(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_counted_once_each() {
        let log = "2026-11-21 10:00:00.000 UTC [1] LOG:  execute s1: SELECT m.seq\n\tFROM messages m\n\
                   2026-11-21 10:00:00.000 UTC [1] DETAIL:  parameters: $1 = '1'\n\
                   2026-11-21 10:00:00.000 UTC [1] LOG:  statement: BEGIN\n\
                   2026-11-21 10:00:00.000 UTC [1] LOG:  execute <unnamed>: SELECT 1 FROM \"rooms\"\n\
                   2026-11-21 10:00:00.000 UTC [1] LOG:  checkpoint starting: time";
        assert_eq!(statements(log).count(), 3);
        assert_eq!(statements(log).filter(|text| is_of_chat(text)).count(), 2);
    }
}
