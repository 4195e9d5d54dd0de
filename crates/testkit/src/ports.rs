//! Ports for programs that must know theirs before they start.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Mutex;

/// Below what the kernel gives to outgoing connections, so that none of those takes a port between its choice and use.
const RANGE: std::ops::Range<u16> = 12_000..20_000;

/// A port on loopback that is free, and that no other test will choose while this process lives.
///
/// # Panics
/// When none is left.
#[must_use]
pub fn free_port() -> u16 {
    /// Locked as long as the process lives.
    static CLAIMS: Mutex<Vec<File>> = Mutex::new(Vec::new());

    let user = std::fs::metadata("/proc/self").map(|process| process.uid()).unwrap_or_default();
    let folder = std::env::temp_dir().join(format!("amphi-test-ports-{user}"));
    std::fs::create_dir_all(&folder).expect("the folder of claims can be made");
    // Tests begin at different places, so that they seldom meet.
    let start = uuid::Uuid::new_v4().as_u128() % u128::from(RANGE.end - RANGE.start);
    let start = RANGE.start + u16::try_from(start).unwrap_or_default();
    for port in (start..RANGE.end).chain(RANGE.start..start) {
        let claim = File::options().create(true).truncate(false).write(true).open(folder.join(port.to_string()));
        let Ok(claim) = claim else { continue };
        if claim.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            CLAIMS.lock().expect("no other thread panicked here").push(claim);
            return port;
        }
    }
    panic!("no port is free from {} to {}", RANGE.start, RANGE.end);
}
