//! Our own programs, as processes: what a test talks to is what an operator starts.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually;

/// How long a process may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(25);
/// How long a process that is to end by itself may take. More than the test of the README gives its script.
const END_WITHIN: Duration = Duration::from_secs(100);
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
/// What a program prints when it serves.
const READY: &str = "Stop with Ctrl-C.";

/// A running program. Dropped, it is asked to stop, so that it cleans up after itself.
pub struct Program {
    child: Child,
    output: Arc<Mutex<String>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Program {
    /// Starts `path` with nothing in its environment but `settings` and `PATH`, and waits until it serves.
    ///
    /// Panics with its output when it ends instead.
    pub async fn start(path: &str, arguments: &[&str], settings: &[(&str, String)]) -> Self {
        let mut program = Self::spawn(path, arguments, settings);
        let said = |program: &Self| program.output().contains(READY);
        eventually("the program serves", async || {
            if let Ok(Some(status)) = program.child.try_wait() {
                panic!("{path} ended with {status}:\n{}", program.output());
            }
            said(&program).then_some(())
        })
        .await;
        program
    }

    /// Starts `path` like [`Program::start`], without waiting for anything.
    #[must_use]
    pub fn spawn(path: impl AsRef<OsStr>, arguments: &[&str], settings: &[(&str, String)]) -> Self {
        let mut child = Command::new(path)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program is there");
        let output = Arc::new(Mutex::new(String::new()));
        let readers = vec![
            collect(child.stdout.take().expect("stdout is piped"), Arc::clone(&output)),
            collect(child.stderr.take().expect("stderr is piped"), Arc::clone(&output)),
        ];
        Self { child, output, readers }
    }

    /// What it has printed so far, logs included.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it announced under `label` when it began to serve: `gateway` is the gateway's address.
    #[must_use]
    pub fn announced(&self, label: &str) -> String {
        let output = self.output();
        let line = output.lines().find_map(|line| line.trim_start().strip_prefix(label)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("nothing is announced as `{label}`:\n{output}")).trim().to_owned()
    }

    /// The address of its private port.
    #[must_use]
    pub fn private_port(&self) -> String {
        let text = self.announced("private port");
        text.split_whitespace().next().unwrap_or_default().to_owned()
    }

    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop, and does not wait.
    pub fn ask_to_stop(&self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM); // It may have ended by itself.
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) {
        let _ = self.child.kill(); // It may have ended by itself.
        let _ = self.child.wait();
    }

    /// Asks it to stop, and waits. Panics when that takes longer than 25 s.
    pub fn stop(mut self) -> (ExitStatus, String) {
        let status = self.terminate().expect("the program stops in time");
        (status, self.output())
    }

    /// Waits until it ends by itself. Kills it and panics with its output when that takes longer than 100 s.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let Some(status) = self.ended_within(END_WITHIN) else {
            let _ = self.child.kill(); // It may have ended at this moment.
            let _ = self.child.wait();
            panic!("the program did not end within {} s:\n{}", END_WITHIN.as_secs(), self.output());
        };
        (status, self.output())
    }

    fn terminate(&mut self) -> Option<ExitStatus> {
        self.ask_to_stop();
        self.ended_within(STOP_WITHIN)
    }

    /// How it ended, once its output is complete. None when it still runs after `limit`.
    fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.child.try_wait().expect("the program can be waited for");
            // A process that it has left behind may keep its output open for ever.
            let is_complete = self.readers.iter().all(thread::JoinHandle::is_finished);
            match status {
                Some(status) if is_complete || Instant::now() >= deadline => return Some(status),
                None if Instant::now() >= deadline => return None,
                _ => thread::sleep(BETWEEN_LOOKS),
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.terminate().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("--- the program printed:\n{}", self.output());
        }
    }
}

fn collect(stream: impl Read + Send + 'static, into: Arc<Mutex<String>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut output = into.lock().unwrap_or_else(PoisonError::into_inner);
            output.push_str(&line);
            output.push('\n');
        }
    })
}
