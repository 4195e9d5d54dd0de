//! What a list costs that is answered from the cache, and one that is not, beside the least that any answer costs.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use bench::figures::Spread;
use bench::http::Connection;
use bench::servers::{self, Server};
use bench::wrk::{self, CONNECTIONS, Run, SECONDS};
use serde_json::Value;

use crate::{LIVE, PATH, Part, Target};

const ROUNDS: usize = 9;
const ONE: &str = "/api/v1/streams?limit=1";
/// The least of the trivial answer's requests a CPU second that a cached list has to reach.
const LEAST: f64 = 0.8;

/// What is asked of whom.
struct Case<'a> {
    what: &'static str,
    server: &'a Server,
    path: &'static str,
    /// Whether it goes through a gateway, which is then the first of the server's programs.
    has_gateway: bool,
}

/// One case in one round.
struct Compared {
    run: Run,
    /// Requests a CPU second of the gateway, against those of the trivial answer in the same round.
    of_gateway: f64,
    /// Requests a CPU second of everything that does the work, likewise.
    of_all: f64,
}

pub(crate) fn measure(servers: &[Server], script: &Path) -> anyhow::Result<Part> {
    let case = |what, name, path| {
        let has_gateway = name != "stream";
        Ok::<_, anyhow::Error>(Case { what, server: servers::find(servers, name)?, path, has_gateway })
    };
    let trivial = case("64 bytes from nginx", "trivial", PATH)?;
    let others = [
        case("control: the same again", "control", PATH)?,
        case("20 streams, from the cache", "cached", PATH)?,
        case("1 stream, from the cache", "cached", ONE)?,
        case("20 streams, `STREAM_CACHE=false`", "uncached", PATH)?,
        case("20 streams, from the cache, without a gateway", "stream", PATH)?,
    ];
    let size = check_answers(&others[1..])?;

    eprintln!("bench: lists: {ROUNDS} rounds of {} runs of {SECONDS} s", others.len() + 1);
    let run = |case: &Case<'_>| wrk::run(script, case.server, case.path, None).context(case.what);
    for case in others.iter().chain([&trivial]) {
        run(case)?; // connections to upstreams, prepared statements
    }
    let mut references = Vec::new();
    let mut compared: Vec<Vec<Compared>> = others.iter().map(|_| Vec::new()).collect();
    let mut before = run(&trivial)?;
    for round in 0..ROUNDS {
        let mut runs = Vec::new();
        for place in 0..others.len() {
            let index = (place + round) % others.len();
            runs.push((index, run(&others[index])?));
        }
        let after = run(&trivial)?;
        let gateway = f64::midpoint(before.cost[0], after.cost[0]);
        let all = f64::midpoint(before.total(), after.total());
        for (index, run) in runs {
            compared[index].push(Compared { of_gateway: gateway / run.cost[0], of_all: all / run.total(), run });
        }
        references.push(std::mem::replace(&mut before, after));
    }

    let mut text = format!(
        "`GET {PATH}` of 100,000 streams, {LIVE} of them live: an answer has {size} bytes. {CONNECTIONS} connections of wrk, one worker each; {ROUNDS} runs of \
         {SECONDS} s, each round in another order. Medians of the rounds; of ratios also the quartiles. Ratios are of requests \
         a CPU second, to the trivial answer's before and after in the same round: more is better.\n\n\
         | what | requests a second | CPU µs of the gateway | CPU µs of all | ratio, the gateway's CPU | ratio, all CPU |\n\
         |---|---|---|---|---|---|\n"
    );
    let median = |runs: &mut dyn Iterator<Item = f64>| Spread::of(runs).median;
    let row = |case: &Case<'_>, runs: &[&Run], ratios: (String, String)| {
        let part = |index: usize| format!("{:.1}", median(&mut runs.iter().map(|run| run.cost[index])) * 1e6);
        let parts: Vec<_> = (0..runs[0].cost.len()).map(part).collect();
        let rate = median(&mut runs.iter().map(|run| run.per_second));
        let all = median(&mut runs.iter().map(|run| run.total())) * 1e6;
        let (gateway, of_gateway) =
            if case.has_gateway { (part(0), ratios.0) } else { ("–".to_owned(), "–".to_owned()) };
        format!(
            "| {} | {rate:.0} | {gateway} | {all:.1} ({}) | {of_gateway} | {} |",
            case.what,
            parts.join(" + "),
            ratios.1
        )
    };
    let is_reference = ("1".to_owned(), "1".to_owned());
    writeln!(text, "{}", row(&trivial, &references.iter().collect::<Vec<_>>(), is_reference))?;
    let of_gateway = |index: usize| Spread::of(compared[index].iter().map(|one| one.of_gateway));
    for (index, case) in others.iter().enumerate() {
        let runs: Vec<_> = compared[index].iter().map(|one| &one.run).collect();
        let of_all = Spread::of(compared[index].iter().map(|one| one.of_all));
        writeln!(text, "{}", row(case, &runs, (of_gateway(index).to_string(), of_all.to_string())))?;
    }
    writeln!(
        text,
        "\nIn parentheses: the gateway + what answers (nginx; the stream service, PostgreSQL, and Redis where there is one)."
    )?;

    let control = of_gateway(0).median;
    let is_valid = (0.95..=1.05).contains(&control);
    if !is_valid {
        writeln!(
            text,
            "\n**VOID**: the control is {control:.2}, not 1.00 ± 0.05. The machine was too busy: measure again."
        )?;
    }
    let cached = of_gateway(1).median;
    let target = Target {
        what: "cached list, requests a CPU second of the gateway, to a trivial answer's",
        aim: "≥ 0.8",
        figure: format!("{cached:.2}"),
        is_met: cached >= LEAST,
    };
    Ok(Part { text, targets: vec![target], is_valid })
}

/// Whether all answer the same list, and one that is as it should be. Returns how many bytes it has.
fn check_answers(cases: &[Case<'_>]) -> anyhow::Result<usize> {
    let mut first = None;
    let mut size = 0;
    for case in cases.iter().filter(|case| case.path == PATH) {
        let request = format!("GET {PATH} HTTP/1.1\r\nHost: {}\r\n\r\n", case.server.address);
        let answer = Connection::open(case.server.address)?.send(&request)?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let items = body["items"].as_array().map_or(&[][..], Vec::as_slice);
        let is_right =
            items.len() == 20 && items.iter().all(|item| item["status"] == "live" && item["userName"].is_string());
        let text = || String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == 200 && is_right, "{}: answered {}: {}", case.what, answer.status, text());
        let expected = first.get_or_insert_with(|| body.clone());
        ensure!(*expected == body, "{}: not the same list as of others: {}", case.what, text());
        size = answer.body.len();
    }
    Ok(size)
}
