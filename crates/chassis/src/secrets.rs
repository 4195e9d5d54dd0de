//! Secrets of an installation: made once, kept in a file that only its owner reads.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use common::Secret;
use ring::rand::{SecureRandom as _, SystemRandom};

/// The shortest secret that production takes, in characters.
const SHORTEST: usize = 16;
/// What people leave in place, or copy from a manual.
const GUESSABLE: &[&str] = &["changeme", "change-me", "secret", "password", "default", "example", "your-super-secret"];

/// `bytes` random bytes, as lower-case hex.
///
/// # Panics
/// When the operating system has no randomness to give: then nothing here is safe.
#[must_use]
pub fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    #[expect(clippy::expect_used, reason = "without randomness no secret can be made")]
    SystemRandom::new().fill(&mut random).expect("the operating system has no randomness");
    let digits = random.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect()
}

/// Why a secret could be guessed; `None` when it could not.
#[must_use]
pub fn weakness(secret: &Secret) -> Option<&'static str> {
    let text = secret.expose().to_ascii_lowercase();
    if text.len() < SHORTEST {
        return Some("it has fewer than 16 characters");
    }
    GUESSABLE.iter().any(|word| text.contains(word)).then_some("it contains a word that is easy to guess")
}

/// The secret kept at `path`, made now (256 bits, hex) if it is not there. Mode 0600.
///
/// Two processes that start at once end with the same secret: it appears under its name whole or not at all.
pub fn load_or_make(path: &Path) -> io::Result<Secret> {
    match load(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        found => return found,
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let draft = path.with_extension(format!("{}.new", random_hex(4)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(format!("{}\n", random_hex(32)).as_bytes())?;
    // Its name must not outlive a power cut that its content does not.
    file.sync_all()?;
    // A hard link fails when another process was first; then its secret counts.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => load(path),
    }
}

fn load(path: &Path) -> io::Result<Secret> {
    let text = fs::read_to_string(path)?;
    match text.trim_end() {
        // Anybody could show an empty secret.
        "" => Err(io::Error::new(ErrorKind::InvalidData, "the file is empty; remove it, or write a secret into it")),
        text => Ok(Secret::new(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "\n").unwrap();
        assert!(load_or_make(&path).is_err());
    }
}
