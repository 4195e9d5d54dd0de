//! One line a request, written by hand into the log's buffer: the line costs less than a log event with its fields.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::telemetry::LogFormat;

/// Somewhere that lines go. Called with whole lines, each with its end.
pub type Sink = Box<dyn Fn(&[u8]) + Send + Sync>;

/// Writes access lines. Clones write to the same places.
#[derive(Clone, Default)]
pub struct AccessLog {
    sinks: Arc<Vec<(LogFormat, Sink)>>,
}

/// A request that was answered.
pub struct Entry<'a> {
    pub at: DateTime<Utc>,
    pub method: &'a str,
    /// Path and query, without secrets.
    pub path: &'a str,
    /// The pattern of the route.
    pub route: &'a str,
    pub status: u16,
    /// To the head of the answer: a body may go on for hours.
    pub took: Duration,
    pub client: Option<std::net::IpAddr>,
    pub request_id: &'a str,
}

static OF_PROCESS: OnceLock<AccessLog> = OnceLock::new();

thread_local! {
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
    /// A second and how it is written: most lines share it with the line before.
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

impl AccessLog {
    /// One that writes to `sinks`, to each in its format.
    #[must_use]
    pub fn new(sinks: Vec<(LogFormat, Sink)>) -> Self {
        Self { sinks: Arc::new(sinks) }
    }

    /// That of this process: it writes where the process logs, if that takes lines of level `info`; nowhere before logging
    /// was started.
    #[must_use]
    pub fn of_process() -> Self {
        OF_PROCESS.get().cloned().unwrap_or_default()
    }

    pub(crate) fn set_for_process(self) {
        // A second start of logging fails by itself.
        let _ = OF_PROCESS.set(self);
    }

    /// Whether anybody reads it: if not, an entry is not worth making.
    #[must_use]
    pub fn is_read(&self) -> bool {
        !self.sinks.is_empty()
    }

    pub fn write(&self, entry: &Entry<'_>) {
        for (format, sink) in self.sinks.iter() {
            LINE.with_borrow_mut(|line| {
                line.clear();
                // Writing to a string cannot fail.
                let _ = match format {
                    LogFormat::Json => json(line, entry),
                    LogFormat::Text => text(line, entry),
                };
                sink(line.as_bytes());
            });
        }
    }
}

fn json(line: &mut String, entry: &Entry<'_>) -> fmt::Result {
    line.push_str("{\"timestamp\":\"");
    time(line, entry.at)?;
    line.push_str("\",\"level\":\"INFO\",\"message\":\"request\",\"method\":");
    quoted(line, entry.method);
    line.push_str(",\"path\":");
    quoted(line, entry.path);
    line.push_str(",\"route\":");
    quoted(line, entry.route);
    line.push_str(",\"status\":");
    number(line, entry.status.into(), 3);
    line.push_str(",\"took_ms\":");
    milliseconds(line, entry.took);
    if let Some(client) = entry.client {
        write!(line, ",\"client\":\"{client}\"")?;
    }
    writeln!(line, ",\"request_id\":\"{}\",\"target\":\"access\"}}", entry.request_id)
}

/// As the lines of other events look.
fn text(line: &mut String, entry: &Entry<'_>) -> fmt::Result {
    time(line, entry.at)?;
    line.push_str("  INFO request method=");
    line.push_str(entry.method);
    line.push_str(" path=");
    quoted(line, entry.path);
    line.push_str(" route=");
    quoted(line, entry.route);
    line.push_str(" status=");
    number(line, entry.status.into(), 3);
    line.push_str(" took_ms=");
    milliseconds(line, entry.took);
    if let Some(client) = entry.client {
        write!(line, " client={client}")?;
    }
    line.push_str(" request_id=");
    line.push_str(entry.request_id);
    line.push('\n');
    Ok(())
}

/// RFC 3339, in UTC, with microseconds.
fn time(line: &mut String, at: DateTime<Utc>) -> fmt::Result {
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != at.timestamp() {
            *second = at.timestamp();
            text.clear();
            write!(text, "{}", at.format("%Y-%m-%dT%H:%M:%S"))?;
        }
        line.push_str(text);
        line.push('.');
        number(line, at.timestamp_subsec_micros().into(), 6);
        line.push('Z');
        Ok(())
    })
}

/// With three digits behind the point.
fn milliseconds(line: &mut String, time: Duration) {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    number(line, micros / 1000, 1);
    line.push('.');
    number(line, micros % 1000, 3);
}

/// With at least so many digits. Formatting with `write!` costs several times as much.
fn number(line: &mut String, mut number: u64, least: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while number > 0 || digits.len() - at < least {
        at -= 1;
        let digit = (number % 10) as u8;
        digits[at] = b'0' + digit;
        number /= 10;
    }
    line.push_str(std::str::from_utf8(&digits[at..]).unwrap_or_default());
}

/// `text` as a JSON string: quotes, backslashes and control characters cannot end it or the line.
fn quoted(line: &mut String, text: &str) {
    line.push('"');
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\' && byte != 0x7f) {
        line.push_str(text);
    } else {
        for c in text.chars() {
            match c {
                '"' | '\\' => line.extend(['\\', c]),
                c if c.is_control() => {
                    let _ = write!(line, "\\u{:04x}", u32::from(c));
                }
                c => line.push(c),
            }
        }
    }
    line.push('"');
}

/// A sink into a file or a stream of our own log.
pub(crate) fn sink<W>(writer: W) -> Sink
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    Box::new(move |line| {
        // As with every log line, nobody can be told.
        let _ = writer.make_writer().write_all(line);
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn written(format: LogFormat, path: &str) -> String {
        let text = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&text);
        let log = AccessLog::new(vec![(format, Box::new(move |line| sink.lock().unwrap().extend_from_slice(line)))]);
        log.write(&Entry {
            at: DateTime::from_timestamp_micros(1_795_000_000_000_042).unwrap(),
            method: "GET",
            path,
            route: "/streams",
            status: 200,
            took: Duration::from_micros(1500),
            client: Some([127, 0, 0, 1].into()),
            request_id: "0abc",
        });
        String::from_utf8(text.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_is_json_whatever_the_path_is() {
        for path in ["/streams?page=2", "/a\"b\\c\n\u{7f}\u{1}é"] {
            let line = written(LogFormat::Json, path);
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["path"], path);
            assert_eq!(value["timestamp"], "2026-11-18T11:06:40.000042Z");
            assert_eq!((value["status"].as_u64(), value["took_ms"].as_f64()), (Some(200), Some(1.5)));
            assert_eq!(value["client"], "127.0.0.1");
        }
    }

    #[test]
    fn a_line_for_people_is_one_line() {
        let line = written(LogFormat::Text, "/a\nINFO forged");
        assert_eq!(
            line,
            "2026-11-18T11:06:40.000042Z  INFO request method=GET path=\"/a\\u000aINFO forged\" route=\"/streams\" \
             status=200 took_ms=1.500 client=127.0.0.1 request_id=0abc\n"
        );
    }
}
