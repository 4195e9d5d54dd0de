//! Logs, traces and metrics of a process.
//!
//! Logs go to stdout, as JSON or for people, and with `LOG_DIR` to daily files too, errors apart (002 §6.2).
//! Traces go to an OpenTelemetry collector over OTLP when an endpoint is set; without one nothing makes spans for it, and
//! trace ids are those of [`common::Trace`]. Metrics are kept in memory for `/metrics`.

use std::io::IsTerminal as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use common::Secret;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use opentelemetry::global;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::access_log::{self, AccessLog};
use crate::env::{ConfigError, Env, Stage, Value};
use crate::log_sink::LogSink;

/// Upper bounds of the request-time buckets, in seconds.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How often measurements are folded into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl Value for LogFormat {
    const EXPECTS: &'static str = "text or json";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// What is logged and where, and where traces go.
#[derive(Debug, Clone)]
pub struct Config {
    pub log_format: LogFormat,
    pub log_level: String,
    pub log_dir: Option<PathBuf>,
    pub log_keep_days: NonZeroUsize,
    /// Kept secret: collectors' addresses can carry credentials.
    pub otlp_endpoint: Option<Secret>,
}

impl Config {
    pub fn from_env(env: &Env, stage: Stage) -> Result<Self, ConfigError> {
        let format = match stage {
            Stage::Development => "text",
            Stage::Production => "json",
        };
        Ok(Self {
            log_format: env.read(
                "LOG_FORMAT",
                format,
                "How log lines on stdout look: `text` for people, `json` for machines (the default in production).",
            )?,
            log_level: env.read(
                "LOG_LEVEL",
                "info,actix_server=warn",
                "What is logged: `error`, `warn`, `info`, `debug`, or directives such as `info,stream=debug`.",
            )?,
            log_dir: env.optional(
                "LOG_DIR",
                "logs go to stdout only",
                "A folder for log files, one a day as JSON; errors in files of their own.",
            )?,
            log_keep_days: env.read("LOG_KEEP_DAYS", "14", "How many daily files of each kind stay in `LOG_DIR`.")?,
            otlp_endpoint: env.optional(
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "no traces are sent",
                "The OpenTelemetry collector (OTLP over HTTP) that traces are sent to, such as http://127.0.0.1:4318.",
            )?,
        })
    }
}

/// Ends telemetry when the process ends: what is still in buffers is written and sent.
pub struct Telemetry {
    provider: SdkTracerProvider,
    stdout: LogSink,
    _files: Vec<WorkerGuard>,
}

/// Starts logging and tracing for this process. `process` names it in traces.
///
/// Fails when it was started before, `LOG_LEVEL` cannot be read, or `LOG_DIR` cannot be written.
pub fn start(config: &Config, process: &str) -> anyhow::Result<Telemetry> {
    let filter = || EnvFilter::try_new(&config.log_level).context("LOG_LEVEL: expected directives such as `info`");
    let provider = tracer_provider(config, process)?;
    global::set_text_map_propagator(TraceContextPropagator::new());
    global::set_tracer_provider(provider.clone());

    let sink = LogSink::new(std::io::stdout())?;
    let stdout = match config.log_format {
        LogFormat::Json => json(sink.clone()),
        LogFormat::Text => {
            // Spans tell machines which lines belong together; for people they are in the way.
            let filter = filter_fn(|metadata| !metadata.is_span());
            tracing_subscriber::fmt::layer()
                .with_target(false)
                .with_ansi(std::io::stdout().is_terminal())
                .with_writer(sink.clone())
                .with_filter(filter)
                .boxed()
        }
    };
    let mut layers = vec![stdout.with_filter(filter()?).boxed()];
    let mut sinks = vec![(config.log_format, access_log::sink(sink.clone()))];
    let mut files = Vec::new();
    if let Some(folder) = &config.log_dir {
        let mut file = |name: &str| -> anyhow::Result<_> {
            let appender = RollingFileAppender::builder()
                .rotation(Rotation::DAILY)
                .filename_prefix(format!("{process}.{name}"))
                .filename_suffix("log")
                .max_log_files(config.log_keep_days.get())
                .build(folder)
                .with_context(|| format!("LOG_DIR: {} cannot be written", folder.display()))?;
            let (writer, guard) = tracing_appender::non_blocking(appender);
            files.push(guard);
            Ok(writer)
        };
        let info = file("info")?;
        sinks.push((LogFormat::Json, access_log::sink(info.clone())));
        layers.push(json(info).with_filter(filter()?).boxed());
        layers.push(json(file("error")?).with_filter(LevelFilter::ERROR).boxed());
    }
    if config.otlp_endpoint.is_some() {
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("amphi"));
        layers.push(layer.with_filter(LevelFilter::INFO).boxed());
    }
    tracing_subscriber::registry().with(layers).try_init().context("logging was started twice")?;
    if tracing::enabled!(target: "access", tracing::Level::INFO) {
        AccessLog::new(sinks).set_for_process();
    }
    Ok(Telemetry { provider, stdout: sink, _files: files })
}

type AnyLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn json<W>(writer: W) -> AnyLayer
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer().json().flatten_event(true).with_ansi(false).with_writer(writer).boxed()
}

fn tracer_provider(config: &Config, process: &str) -> anyhow::Result<SdkTracerProvider> {
    let resource = Resource::builder().with_service_name(process.to_owned()).build();
    let builder = SdkTracerProvider::builder().with_resource(resource);
    let Some(endpoint) = &config.otlp_endpoint else {
        return Ok(builder.with_sampler(Sampler::AlwaysOff).build());
    };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{}/v1/traces", endpoint.expose().trim_end_matches('/')))
        .build()
        .context("OTEL_EXPORTER_OTLP_ENDPOINT: expected an address such as http://127.0.0.1:4318")?;
    Ok(builder.with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn))).with_batch_exporter(exporter).build())
}

impl Telemetry {
    /// Sends the last spans and writes the last lines. May wait for the collector, a few seconds at most.
    pub fn stop(self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.stdout.flush();
    }
}

/// Folds what was measured into its buckets, every few seconds until `shutdown`: between two scrapes, or without any,
/// every single measurement would be kept.
pub async fn keep_up(metrics: PrometheusHandle, shutdown: CancellationToken) {
    while tokio::time::timeout(UPKEEP, shutdown.cancelled()).await.is_err() {
        metrics.run_upkeep();
    }
}

/// The metrics of this process, for `/metrics`. Starts to record at the first call.
pub fn metrics() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new().set_buckets(SECONDS)?.build_recorder();
    let handle = HANDLE.get_or_init(|| recorder.handle()).clone();
    // Fails only when another call installed its recorder just now; that one is in `HANDLE`.
    let _ = metrics::set_global_recorder(recorder);
    Ok(handle)
}
