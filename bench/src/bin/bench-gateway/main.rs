//! What `bench/gateway` measures with. That script starts the servers; this program is started by it twice:
//!
//! - `bench-gateway stub FOLDER`: what stands behind the servers beside the upstream: the keys of tokens, the tokens, and
//!   an echo for WebSockets. [`stub`].
//! - `bench-gateway measure FOLDER`: the measurements, on the servers that `FOLDER/servers` lists. [`load`]: CPU a request.
//!   [`latency`]: at a constant rate. [`websockets`]: memory and CPU of a relay. What they share with other
//!   measurements is in the library.
//!
//! Exits with 1 when an answer was wrong or the control was not 1.00 ± 0.05: then no figure counts.

mod latency;
mod load;
mod stub;
mod tokens;
mod websockets;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{bail, ensure};
use bench::servers::{self, Server};

use load::Case;
use tokens::Tokens;

/// What the upstream answers to everything.
const BODY: &str = r#"{"id":42,"title":"a 64-byte answer from memory","status":"live"}"#;
const _: () = assert!(BODY.len() == 64);
/// A route of the gateway that needs a token, and one that does not look at it.
const TOKEN_PATH: &str = "/api/v1/auth/me";
const PUBLIC_PATH: &str = "/api/v1/streams";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["stub", folder] => stub::run(Path::new(folder)).await.map(|()| true),
        ["measure", folder] => measure(Path::new(folder)).await,
        _ => Err(anyhow::anyhow!("usage: bench-gateway stub|measure FOLDER")),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures everything, and prints it as Markdown. Whether the figures count.
async fn measure(folder: &Path) -> anyhow::Result<bool> {
    let servers = servers::read(&folder.join("servers"))?;
    let server = |name: &str| servers::find(&servers, name);
    let tokens = Tokens::all(folder);
    let one = Tokens::one(&tokens, folder)?;
    let of_auth = Tokens::of_auth(server("auth")?, folder).await?;

    let case = |what, name, path, tokens: &Tokens| Ok::<_, anyhow::Error>(Case::new(what, server(name)?, path, tokens));
    let cases = [
        case("nginx 1.22, plain `proxy_pass`", "nginx", TOKEN_PATH, &tokens)?,
        case("control: a second nginx like the first", "control", TOKEN_PATH, &tokens)?,
        case("nginx, log buffered (`buffer=64k flush=1s`)", "nginx_buffered", TOKEN_PATH, &tokens)?,
        case("haproxy 2.6", "haproxy", TOKEN_PATH, &tokens)?,
        case("caddy 2.6", "caddy", TOKEN_PATH, &tokens)?,
        case("nginx with `auth_request` to amphi-auth", "auth_request", TOKEN_PATH, &of_auth)?,
        case("nginx with `auth_request`, its own share alone", "auth_floor", TOKEN_PATH, &tokens)?,
        case("**amphi-gateway**, 10,000 tokens in turn", "amphi", TOKEN_PATH, &tokens)?,
        case("amphi-gateway, one token", "amphi", TOKEN_PATH, &one)?,
        case("amphi-gateway, public route", "amphi", PUBLIC_PATH, &tokens)?,
        case("amphi-gateway, `LOG_LEVEL=error`", "amphi_quiet", TOKEN_PATH, &tokens)?,
        case("nginx, `access_log off`", "nginx_quiet", TOKEN_PATH, &tokens)?,
    ];
    check_answers(&cases, server("direct")?).await?;

    let load = load::measure(&cases, &folder.join("wrk.lua"))?;
    println!("{load}");
    let rate = load.slowest(&["amphi", "nginx", "haproxy"]) / 2.0;
    let targets = [server("direct")?, server("nginx")?, server("control")?, server("haproxy")?, server("amphi")?];
    println!("{}", latency::measure(&targets, TOKEN_PATH, &tokens, rate)?);
    println!("{}", websockets::measure(server("nginx_ws")?, server("amphi_ws")?).await?);

    let control = load.control();
    let is_valid = (0.95..=1.05).contains(&control);
    if is_valid {
        println!("The control is {control:.2}: within 1.00 ± 0.05, so the figures count.");
    } else {
        println!("**VOID**: the control is {control:.2}, not 1.00 ± 0.05. The machine was too busy: measure again.");
    }
    Ok(is_valid)
}

/// Whether all do what is measured: the same answer from everyone, and nothing without a token where one is checked.
async fn check_answers(cases: &[Case<'_>], direct: &Server) -> anyhow::Result<()> {
    let client = testkit::client();
    for case in cases {
        let url = format!("http://{}{}", case.server.address, case.path);
        let answer = client.get(&url).bearer_auth(case.tokens.first()?).send().await?;
        let (status, body) = (answer.status(), answer.text().await?);
        ensure!(status == 200 && body == BODY, "{} answered {status}: {body}", case.server.name);
        let status = client.get(&url).send().await?.status();
        let is_checked = status == 401;
        let should = case.path == TOKEN_PATH && checks_tokens(case.server);
        if is_checked != should {
            bail!("{} answered {status} to {} without a token", case.server.name, case.path);
        }
    }
    let body = client.get(format!("http://{}/", direct.address)).send().await?.text().await?;
    ensure!(body == BODY, "the upstream answered {body}");
    Ok(())
}

/// Whether it answers 401 without a token.
fn checks_tokens(server: &Server) -> bool {
    server.name.starts_with("amphi") || server.name == "auth_request"
}
