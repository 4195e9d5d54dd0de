//! Where log lines go on their way to stdout: into a buffer, as a system call a line costs more than the line.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// A buffer that has grown to this is written at once, in bytes.
const FULL: usize = 64 * 1024;
/// How long a line waits at most. One that warns does not wait.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// Collects lines, and writes them in order. Clones share the buffer.
///
/// A process that is killed loses what it wrote in the last tenth of a second, save warnings and errors.
#[derive(Clone)]
pub(crate) struct LogSink {
    shared: Arc<Mutex<Buffer>>,
}

struct Buffer {
    text: Vec<u8>,
    out: Box<dyn Write + Send>,
}

impl LogSink {
    /// Starts to collect for `out`. A thread flushes for as long as the sink is there.
    pub(crate) fn new(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Mutex::new(Buffer { text: Vec::with_capacity(FULL), out: Box::new(out) }));
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            while let Some(shared) = weak.upgrade() {
                lock(&shared).flush();
                drop(shared);
                std::thread::sleep(FLUSH_EVERY);
            }
        })?;
        Ok(Self { shared })
    }

    /// Writes what waits.
    pub(crate) fn flush(&self) {
        lock(&self.shared).flush();
    }
}

impl Buffer {
    fn flush(&mut self) {
        if self.text.is_empty() {
            return;
        }
        // Whoever reads our logs may have gone: that is no reason to stop working.
        let _ = self.out.write_all(&self.text).and_then(|()| self.out.flush());
        self.text.clear();
    }
}

fn lock(buffer: &Mutex<Buffer>) -> MutexGuard<'_, Buffer> {
    buffer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes one line.
pub(crate) struct Line<'a> {
    buffer: MutexGuard<'a, Buffer>,
    is_urgent: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if self.is_urgent || self.buffer.text.len() >= FULL {
            self.buffer.flush();
        }
    }
}

impl<'a> MakeWriter<'a> for LogSink {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { buffer: lock(&self.shared), is_urgent: false }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line { buffer: lock(&self.shared), is_urgent: *metadata.level() <= Level::WARN }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Out(mpsc::Sender<Vec<u8>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_out_in_order_soon_and_whole() {
        let (sender, receiver) = mpsc::channel();
        let sink = LogSink::new(Out(sender)).unwrap();
        for n in 0..3 {
            writeln!(sink.make_writer(), "line {n}").unwrap();
        }
        let mut text = Vec::new();
        while !text.ends_with(b"line 2\n") {
            text.extend(receiver.recv_timeout(Duration::from_secs(10)).unwrap());
        }
        assert_eq!(text, b"line 0\nline 1\nline 2\n");
    }
}
