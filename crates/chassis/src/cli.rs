//! The command line of every program: the same commands for one service and for all.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{ArgAction, ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use common::{EventId, SystemClock};
use outbox::{Parked, Replay, Transport};
use tokio::signal::unix::{SignalKind, signal};

use crate::env::Env;
use crate::run::{self, Databases};
use crate::service::{self, Core, Order, Service};
use crate::{db, docs, telemetry};

#[derive(Parser)]
#[command(version, about = "Amphi: a self-hosted backend for live video.")]
struct Cli {
    /// Which services, separated by commas. Default: all that this program has.
    #[arg(long, global = true, value_delimiter = ',', value_name = "SERVICES")]
    target: Vec<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the services until Ctrl-C or SIGTERM (the default).
    Serve,
    /// List every setting: its value, where that came from, its default and what it means.
    Config,
    /// Bring the tables up to date and stop.
    Migrate,
    /// Look at events.
    #[command(subcommand)]
    Events(Events),
    /// Write the documents that follow from the code.
    #[command(hide = true)]
    Docs {
        /// The folder for OpenAPI, AsyncAPI and the list of problems.
        #[arg(long, default_value = "proto-docs")]
        out: PathBuf,
        /// The file whose table of settings is replaced.
        #[arg(long, default_value = "README.md")]
        readme: PathBuf,
    },
}

#[derive(Subcommand)]
enum Events {
    /// Print events as they are published, one JSON object a line, until Ctrl-C.
    Tail {
        /// Which events: `*` is one word, `#` any number of words, as in `stream.#`.
        #[arg(default_value = "#")]
        pattern: String,
    },
    /// List events that could not be handled, with the reason.
    Parked {
        /// Of this queue only.
        #[arg(long)]
        queue: Option<String>,
    },
    /// Put parked events into their queue again, oldest first.
    Replay {
        /// The queue, as `parked` names it.
        queue: String,
        /// This event only.
        #[arg(long, value_name = "EVENT_ID")]
        event: Option<EventId>,
    },
}

/// The whole program: `services` is what it has, `program` its name.
#[must_use]
pub fn main(program: &'static str, services: &[Service]) -> ExitCode {
    let cli = parse(program, services);
    // Every client that could use TLS needs its provider named before it is built. A repeat changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(program, &error.into()),
    };
    let done = match cli {
        Asked::OfAll(cli) => runtime.block_on(execute(program, cli, services)),
        Asked::OfOne(service, command, flags) => runtime.block_on(order(service, command, flags)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(program, &error),
    }
}

/// What the command line asks for.
enum Asked<'a> {
    /// A command that every program has.
    OfAll(Cli),
    /// A service's own command, with the flags that were given.
    OfOne(&'a Service, &'static service::Command, Vec<&'static str>),
}

fn parse<'a>(program: &'static str, services: &'a [Service]) -> Asked<'a> {
    let list: String = services.iter().map(|service| format!("\n  {:<12} {}", service.name, service.about)).collect();
    let mut command = Cli::command().name(program).after_help(format!("Services:{list}"));
    for service in services.iter().filter(|service| !service.commands.is_empty()) {
        let own = service.commands.iter().map(subcommand);
        let about = format!("Commands of {} alone", service.name);
        command = command
            .subcommand(clap::Command::new(service.name).about(about).subcommands(own).subcommand_required(true));
    }
    let matches = command.get_matches();
    match own_command(&matches, services) {
        Some((service, command, flags)) => Asked::OfOne(service, command, flags),
        None => Asked::OfAll(Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())),
    }
}

fn subcommand(command: &service::Command) -> clap::Command {
    let flag = |(name, meaning): &(&'static str, &'static str)| {
        clap::Arg::new(*name).long(*name).help(*meaning).action(ArgAction::SetTrue)
    };
    let about = command.about.lines().next().unwrap_or_default();
    clap::Command::new(command.name).about(about).long_about(command.about).args(command.flags.iter().map(flag))
}

fn own_command<'a>(
    matches: &ArgMatches,
    services: &'a [Service],
) -> Option<(&'a Service, &'static service::Command, Vec<&'static str>)> {
    let (name, matches) = matches.subcommand()?;
    let service = services.iter().find(|service| service.name == name)?;
    let (name, matches) = matches.subcommand()?;
    let command = service.commands.iter().find(|command| command.name == name)?;
    let flags = command.flags.iter().map(|(flag, _)| *flag).filter(|flag| matches.get_flag(flag)).collect();
    Some((service, command, flags))
}

fn fail(program: &str, error: &anyhow::Error) -> ExitCode {
    eprintln!("{program}: {error:#}");
    ExitCode::FAILURE
}

async fn execute(program: &'static str, cli: Cli, services: &[Service]) -> anyhow::Result<()> {
    let services = targets(&cli.target, services)?;
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(program, &services).await,
        Command::Config => config(&services),
        Command::Migrate => migrate(program, &services).await,
        Command::Events(command) => events(program, command, &services).await,
        Command::Docs { out, readme } => docs::write(&services, &out, &readme),
    }
}

fn targets(wanted: &[String], services: &[Service]) -> anyhow::Result<Vec<Service>> {
    if wanted.is_empty() || wanted == ["all"] {
        return Ok(services.to_vec());
    }
    for name in wanted {
        if services.iter().all(|service| service.name != name) {
            let known: Vec<_> = services.iter().map(|service| service.name).collect();
            bail!("--target: there is no service `{name}`; there are {}", known.join(", "));
        }
    }
    Ok(services.iter().filter(|service| wanted.iter().any(|name| name == service.name)).copied().collect())
}

async fn serve(program: &'static str, services: &[Service]) -> anyhow::Result<()> {
    let env = Env::process();
    let telemetry = start_telemetry(program, &env)?;
    // Before anything is started, so that a signal at any time ends in an orderly stop: what was started stops when
    // it is dropped.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let result = async {
        let starting = run::start(program, services, &env, Arc::new(SystemClock));
        let running = tokio::select! {
            running = starting => running?,
            _ = terminate.recv() => bail!("stopped before it was ready"),
            _ = interrupt.recv() => bail!("stopped before it was ready"),
        };
        announce(&running).await;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        running.stop().await;
        anyhow::Ok(())
    }
    .await;
    tokio::task::spawn_blocking(|| telemetry.stop()).await?;
    result
}

/// What the person who started us should read. Printed, not logged: it may show a password, once. On stderr, so that
/// what is on stdout are log lines alone.
async fn announce(running: &run::Running) {
    let complaints = running.complaints().await;
    eprintln!("\n{}", if complaints.is_empty() { "Amphi is ready." } else { "Amphi runs, but something is missing:" });
    for complaint in complaints {
        eprintln!("  {complaint}");
    }
    eprintln!();
    for (label, text) in &running.announcements {
        eprintln!("  {label:<14} {text}");
    }
    eprintln!("  {:<14} http://{} (/livez, /readyz, /metrics)", "private port", running.admin_address());
    eprintln!("\nStop with Ctrl-C.\n");
}

fn config(services: &[Service]) -> anyhow::Result<()> {
    let env = Env::process().describing();
    for service in services {
        run::derive_urls(service, &env, run::listen_address(service, &env, services)?);
    }
    run::read_all(services, &env)?;
    for setting in env.described() {
        println!("{}", setting.name);
        println!("    {}", setting.meaning);
        println!("    value    {}  (from: {})", setting.value, setting.source);
        println!("    default  {}\n", setting.default);
    }
    Ok(())
}

async fn migrate(program: &'static str, services: &[Service]) -> anyhow::Result<()> {
    let env = Env::process();
    let _telemetry = start_telemetry(program, &env)?;
    let (core, _) = run::read_all(services, &env)?;
    let databases = Databases::open(services, &env, &core).await?;
    let result = run::migrate(services, &env, &core, &databases).await;
    databases.stop().await;
    result
}

async fn order(service: &Service, command: &service::Command, flags: Vec<&'static str>) -> anyhow::Result<()> {
    let env = Env::process();
    let core = Core::from_env(&env)?;
    let databases = Databases::open(std::slice::from_ref(service), &env, &core).await?;
    let result = async {
        let pool = db::pool(&databases.of(service, &env)?, service.name, core.pool_size.get())?;
        (command.run)(Order { env, core, clock: Arc::new(SystemClock), pool, flags }).await
    }
    .await;
    databases.stop().await;
    println!("{}", result?);
    Ok(())
}

async fn events(program: &'static str, command: Events, services: &[Service]) -> anyhow::Result<()> {
    let env = Env::process();
    let (core, _) = run::read_all(services, &env)?;
    let databases = Databases::open(services, &env, &core).await?;
    let result = match run::transport(program, services, &core, &databases) {
        Ok(Some(transport)) => look(command, &transport).await,
        Ok(None) => Err(anyhow::anyhow!("there are no events without a database: set DATABASE_URL or AMQP_URL")),
        Err(error) => Err(error),
    };
    databases.stop().await;
    result
}

async fn look(command: Events, transport: &Transport) -> anyhow::Result<()> {
    match command {
        Events::Tail { pattern } => {
            let mut tail = transport.tail(&pattern).await?;
            // On stderr, so that what is on stdout are events alone.
            eprintln!("watching {pattern}; stop with Ctrl-C");
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            loop {
                tokio::select! {
                    envelope = tail.next() => println!("{}", serde_json::to_string(&envelope?)?),
                    _ = interrupt.recv() => return Ok(()),
                    _ = terminate.recv() => return Ok(()),
                }
            }
        }
        Events::Parked { queue } => {
            let parked = transport.parked(queue.as_deref()).await?;
            for event in &parked {
                println!("{}", line(event));
            }
            println!("{} parked. To try one again: `events replay QUEUE --event EVENT_ID`.", parked.len());
            Ok(())
        }
        Events::Replay { queue, event } => {
            let which = event.map_or(Replay::All, Replay::One);
            let replayed = transport.replay(&queue, which).await?;
            println!("{} put back into {queue}.", replayed.count);
            if replayed.too_old > 0 {
                println!(
                    "{} left, parked more than 29 days ago: look whether each took effect, then name it with --event.",
                    replayed.too_old
                );
            }
            Ok(())
        }
    }
}

fn line(event: &Parked) -> String {
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
    format!(
        "{}  {}  {}  parked at {} after {} tries: {}",
        event.queue,
        or_unknown(event.event_id.map(|id| id.to_string())),
        or_unknown(event.name.clone()),
        or_unknown(event.parked_at.map(|at| at.to_rfc3339())),
        event.attempts,
        event.reason,
    )
}

fn start_telemetry(program: &'static str, env: &Env) -> anyhow::Result<telemetry::Telemetry> {
    telemetry::start(&Core::from_env(env)?.telemetry, program).context("logging could not be started")
}
