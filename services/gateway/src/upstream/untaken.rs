//! Whether a request was certainly not taken by an upstream that has closed the connection without an answer.

use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{Getter, Opcode, ioctl};

/// `TIOCOUTQ`, which Linux also calls `SIOCOUTQ`.
const UNACKNOWLEDGED: Opcode = libc::TIOCOUTQ as Opcode;

/// Whether the upstream's program cannot have read a byte of the `sent` ones that were written last to `socket`, whose
/// reading side has ended in an orderly way. `refused` is the error that a write has met, if any.
///
/// Why this is certain: every segment that the upstream's kernel sends acknowledges, by its number, everything that had
/// arrived until then, and a FIN is sent when the program closes or shuts down, or later. So if we have the FIN and
/// still none of these bytes is acknowledged, none had arrived while the program could read. What came after that its
/// kernel answers with a reset, or a program that has shut down its sending half reads it to throw it away: it can answer
/// nothing any more.
///
/// A reset without a FIN proves nothing, whatever is acknowledged: a program may have read half of the request and then
/// have closed, which sends a reset and no acknowledgement. A read then fails, so that we are not asked. But when a write
/// meets the reset first, the reads behind it end as if a FIN had come, so that error speaks against it. `BrokenPipe` is
/// what a write meets after a FIN.
pub(super) fn is_untaken(socket: impl AsFd, sent: usize, refused: Option<io::ErrorKind>) -> bool {
    let is_orderly = matches!(refused, None | Some(io::ErrorKind::BrokenPipe));
    is_orderly && cfg!(target_os = "linux") && unacknowledged(socket).is_ok_and(|bytes| bytes >= sent)
}

/// How many bytes that were written to `socket` its peer has not acknowledged. A reset does not change the number.
#[expect(unsafe_code, reason = "no crate offers this question as a safe function")]
fn unacknowledged(socket: impl AsFd) -> io::Result<usize> {
    // SAFETY: to this request the kernel answers with one `int` (tcp(7), tty_ioctl(2)), and does nothing else.
    let bytes: i32 = unsafe { ioctl(socket, Getter::<UNACKNOWLEDGED, i32>::new()) }?;
    usize::try_from(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::process::{Command, Stdio};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const REQUEST: [u8; 200] = [b'a'; 200];

    /// Two ends of a connection that has carried an exchange: the gateway's, and the upstream's.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        for socket in [&ours, &theirs] {
            socket.set_nodelay(true).unwrap();
        }
        ours.write_all(b"before").unwrap();
        theirs.read_exact(&mut [0; 6]).unwrap();
        theirs.write_all(b"before").unwrap();
        ours.read_exact(&mut [0; 6]).unwrap();
        (ours, theirs)
    }

    /// What the gateway does: writes, then reads. Whether it may send the request again.
    fn may_repeat(ours: &mut TcpStream) -> bool {
        let refused = ours.write_all(&REQUEST).err().map(|error| error.kind());
        ends_untaken(ours, refused)
    }

    fn ends_untaken(ours: &mut TcpStream, refused: Option<io::ErrorKind>) -> bool {
        matches!(ours.read(&mut [0; 1]), Ok(0)) && is_untaken(&*ours, REQUEST.len(), refused)
    }

    /// Waits until the end of what the other side sends has arrived.
    fn wait_for_end(ours: &TcpStream) {
        assert_eq!(ours.peek(&mut [0; 1]).unwrap(), 0);
    }

    /// Writes until that fails: how many bytes that took, and what the error is.
    fn write_until_refused(ours: &mut TcpStream) -> (usize, io::ErrorKind) {
        let mut sent = 0;
        loop {
            match ours.write(&REQUEST) {
                Ok(size) => sent += size,
                Err(error) => return (sent, error.kind()),
            }
        }
    }

    #[test]
    fn a_request_behind_a_close_was_not_taken() {
        let (mut ours, theirs) = connection();
        drop(theirs);
        wait_for_end(&ours);
        assert!(may_repeat(&mut ours));
    }

    #[test]
    fn nor_was_one_whose_later_write_failed() {
        let (mut ours, theirs) = connection();
        drop(theirs);
        wait_for_end(&ours);
        let (sent, refused) = write_until_refused(&mut ours);
        assert_eq!(refused, io::ErrorKind::BrokenPipe);
        assert!(matches!(ours.read(&mut [0; 1]), Ok(0)) && is_untaken(&ours, sent, Some(refused)));
    }

    #[test]
    fn a_request_that_was_read_before_the_close_was_taken() {
        let (mut ours, mut theirs) = connection();
        ours.write_all(&REQUEST).unwrap();
        theirs.read_exact(&mut [0; REQUEST.len()]).unwrap();
        drop(theirs);
        assert!(!ends_untaken(&mut ours, None));
    }

    #[test]
    fn a_request_that_was_read_in_part_before_the_close_was_taken() {
        let (mut ours, mut theirs) = connection();
        ours.write_all(&REQUEST).unwrap();
        theirs.read_exact(&mut [0; 10]).unwrap();
        drop(theirs);
        assert!(!ends_untaken(&mut ours, None));
    }

    #[test]
    fn a_request_that_lay_unread_at_a_shutdown_counts_as_taken() {
        let (mut ours, theirs) = connection();
        ours.write_all(&REQUEST).unwrap();
        theirs.peek(&mut [0; 1]).unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        assert!(!ends_untaken(&mut ours, None));
    }

    #[test]
    fn a_reset_that_a_write_has_met_is_not_taken_for_a_close() {
        let (mut ours, mut theirs) = connection();
        ours.write_all(&REQUEST).unwrap();
        theirs.read_exact(&mut [0; 10]).unwrap();
        drop(theirs);

        let (sent, refused) = write_until_refused(&mut ours);

        assert_eq!(refused, io::ErrorKind::ConnectionReset);
        assert_eq!(ours.read(&mut [0; 1]).unwrap(), 0, "the reset is hidden by the write");
        assert!(!is_untaken(&ours, REQUEST.len() + sent, Some(refused)));
    }

    #[test]
    fn a_request_that_a_killed_program_had_read_was_taken() {
        let (mut ours, theirs) = connection();
        // It holds the only other end of the connection, reads the request from it, says so, and never ends by itself.
        let mut program = Command::new("sh")
            .args(["-c", "head -c 200 >/dev/null; echo read >&2; exec sleep 1000"])
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        ours.write_all(&REQUEST).unwrap();
        program.stderr.take().unwrap().read_exact(&mut [0; 5]).unwrap();
        program.kill().unwrap();
        program.wait().unwrap();
        assert!(!ends_untaken(&mut ours, None));
    }

    #[test]
    fn a_request_behind_the_death_of_a_killed_program_was_not_taken() {
        let (mut ours, theirs) = connection();
        let mut program =
            Command::new("sleep").arg("1000").stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs))).spawn().unwrap();
        program.kill().unwrap();
        program.wait().unwrap();
        assert!(may_repeat(&mut ours));
    }

    /// Requests race with closes, hundreds of times for each way to close. What the program has read is known, so a wrong
    /// answer is seen.
    #[test]
    fn in_a_race_nothing_that_was_read_counts_as_untaken() {
        #[derive(Clone, Copy, Debug)]
        enum Way {
            Close,
            ReadThenClose,
            ReadSomeThenClose,
            ShutDownThenClose,
        }
        let mut untaken = 0;
        for way in [Way::Close, Way::ReadThenClose, Way::ReadSomeThenClose, Way::ShutDownThenClose] {
            for round in 0..500 {
                let (mut ours, mut theirs) = connection();
                let (told, has_read) = mpsc::channel();
                let closer = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_micros(fastrand::u64(0..60)));
                    theirs.set_nonblocking(true).unwrap();
                    let size = match way {
                        Way::Close => 0,
                        Way::ReadThenClose => theirs.read(&mut [0; 1000]).unwrap_or(0),
                        Way::ReadSomeThenClose => theirs.read(&mut [0; 10]).unwrap_or(0),
                        Way::ShutDownThenClose => {
                            let size = theirs.read(&mut [0; 1000]).unwrap_or(0);
                            theirs.shutdown(Shutdown::Write).unwrap();
                            size
                        }
                    };
                    told.send(size).unwrap();
                });
                std::thread::sleep(Duration::from_micros(fastrand::u64(0..60)));
                let may_repeat = may_repeat(&mut ours);
                let size = has_read.recv().unwrap();
                closer.join().unwrap();
                assert!(!may_repeat || size == 0, "{way:?}, round {round}: {size} bytes were read");
                untaken += u32::from(may_repeat);
            }
        }
        assert!(untaken > 0, "no request came behind a close, so nothing was shown");
    }
}
