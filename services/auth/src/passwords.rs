//! Passwords: hashed with argon2id at the parameters that OWASP recommends, on a few threads of their own.
//!
//! Each thread keeps the 19 MiB that a hash needs, and runs at low priority: whatever else the process does goes first.

use std::num::NonZeroUsize;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Context as _;
use argon2::password_hash;
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use common::Secret;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::AuthError;

/// OWASP's first choice of memory in KiB, passes and lanes. Hashes made with less are made again at the next login.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// How many passwords wait for each thread; at some 20 ms each that is less than a second. One more is refused at once.
const WAITING_FOR_EACH: usize = 32;
/// Threads of the process that do other work have ten times the weight.
const NICENESS: i32 = 10;

/// Hashes and verifies passwords, so many at once and no more.
pub(crate) struct Passwords {
    queue: Sender<Job>,
    /// How many may be at work or wait: the bound of the queue.
    places: Arc<Semaphore>,
    /// Verified against when an account does not exist, so that its absence takes as long as a wrong password.
    nobody: String,
}

type Job = Box<dyn FnOnce(&mut Hasher) + Send>;

/// A place among those who wait, for one password after the other.
pub(crate) struct Place<'a> {
    passwords: &'a Passwords,
    permit: Arc<OwnedSemaphorePermit>,
}

/// What is known of a password that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) is_right: bool,
    /// Whether it was hashed with less than what is asked for today.
    pub(crate) is_weakly_hashed: bool,
}

impl Passwords {
    /// Starts `workers` threads; if it is not said, so many that half of the processors stay free of them. They end with
    /// this value.
    pub(crate) fn new(workers: Option<NonZeroUsize>) -> anyhow::Result<Self> {
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let workers = workers.map_or((processors / 2).max(1), NonZeroUsize::get);
        let (queue, jobs) = mpsc::channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..workers {
            let jobs = Arc::clone(&jobs);
            let thread = thread::Builder::new().name("passwords".to_owned());
            thread.spawn(move || work(&jobs)).context("no thread for passwords")?;
        }
        let nobody = Hasher::new().hash(&chassis::secrets::random_hex(16)).map_err(AuthError::Hash)?;
        Ok(Self { queue, places: Arc::new(Semaphore::new(workers * (1 + WAITING_FOR_EACH))), nobody })
    }

    /// A place, or at once the answer that there is none. Take it before other work that is for the password alone.
    pub(crate) fn place(&self) -> Result<Place<'_>, AuthError> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_full| AuthError::Busy)?;
        Ok(Place { passwords: self, permit: Arc::new(permit) })
    }

    /// The hash to store, as [`Place::hash`] makes it.
    pub(crate) async fn hash(&self, password: Secret) -> Result<String, AuthError> {
        self.place()?.hash(password).await
    }
}

impl Place<'_> {
    /// The hash to store, as a PHC string. Takes some 20 ms of a core.
    pub(crate) async fn hash(&self, password: Secret) -> Result<String, AuthError> {
        self.run(move |hasher| hasher.hash(password.expose())).await?.map_err(AuthError::Hash)
    }

    /// Whether `password` is the one that `stored` was made from. Without `stored` it takes as long and is not.
    pub(crate) async fn verify(&self, password: Secret, stored: Option<String>) -> Result<Verdict, AuthError> {
        let is_known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.passwords.nobody.clone());
        let verdict =
            self.run(move |hasher| hasher.verify(password.expose(), &stored)).await?.map_err(AuthError::Hash)?;
        Ok(Verdict { is_right: verdict.is_right && is_known, ..verdict })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Hasher) -> T + Send + 'static,
    ) -> Result<T, AuthError> {
        let (answer, answered) = oneshot::channel();
        let permit = Arc::clone(&self.permit);
        let job = Box::new(move |hasher: &mut Hasher| {
            // A client that has left while it waited costs nothing. Its place is free when its work is done.
            if !answer.is_closed() {
                let _ = answer.send(work(hasher));
            }
            drop(permit);
        });
        self.passwords.queue.send(job).map_err(|_ended| AuthError::Busy)?;
        answered.await.map_err(|_ended| AuthError::Busy)
    }
}

/// Works until there is nobody left who could ask.
fn work(jobs: &Mutex<Receiver<Job>>) {
    // On Linux this is the priority of the thread, not of the process.
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::warn!(%error, "passwords are hashed at normal priority");
    }
    let mut hasher = Hasher::new();
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        job(&mut hasher);
    }
}

/// Argon2, and the memory that it works in.
struct Hasher {
    memory: Vec<Block>,
}

impl Hasher {
    fn new() -> Self {
        Self { memory: Vec::new() }
    }

    fn hash(&mut self, password: &str) -> password_hash::Result<String> {
        let salt = password_hash::try_generate_salt()?;
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None)?;
        let output = self.run(Algorithm::Argon2id, Version::V0x13, &params, password, &salt)?;
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&params)?,
            salt: Some(Salt::new(&salt)?),
            hash: Some(output),
        };
        Ok(hash.to_string())
    }

    fn verify(&mut self, password: &str, stored: &str) -> password_hash::Result<Verdict> {
        let stored = PasswordHash::new(stored)?;
        let algorithm = Algorithm::try_from(stored.algorithm.as_str())?;
        let version = stored.version.map(Version::try_from).transpose()?.unwrap_or_default();
        let params = Params::try_from(&stored)?;
        let (Some(salt), Some(expected)) = (&stored.salt, &stored.hash) else {
            return Err(password_hash::Error::EncodingInvalid);
        };
        let computed = self.run(algorithm, version, &params, password, salt)?;
        let is_weakly_hashed = algorithm != Algorithm::Argon2id
            || version != Version::V0x13
            || params.m_cost() < MEMORY_KIB
            || params.t_cost() < PASSES
            || params.p_cost() < LANES;
        // Compared in constant time.
        Ok(Verdict { is_right: computed == *expected, is_weakly_hashed })
    }

    fn run(
        &mut self,
        algorithm: Algorithm,
        version: Version,
        params: &Params,
        password: &str,
        salt: &[u8],
    ) -> password_hash::Result<Output> {
        self.memory.resize(params.block_count(), Block::new());
        let mut output = [0; Output::MAX_LENGTH];
        let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN).min(Output::MAX_LENGTH);
        let output = &mut output[..length];
        let argon2 = Argon2::new(algorithm, version, params.clone());
        argon2.hash_password_into_with_memory(password.as_bytes(), salt, output, &mut self.memory[..])?;
        Ok(Output::new(output)?)
    }
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};

    use super::*;

    #[test]
    fn a_hash_is_what_everybody_else_understands() {
        let hash = Hasher::new().hash("correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(Argon2::default().verify_password(b"correct horse", hash.as_str()).is_ok());
        let theirs = Argon2::default().hash_password(b"correct horse").unwrap().to_string();
        let verdict = Hasher::new().verify("correct horse", &theirs).unwrap();
        assert_eq!(verdict, Verdict { is_right: true, is_weakly_hashed: false });
    }

    #[test]
    fn hashes_made_with_less_are_told_from_others_and_the_memory_serves_both() {
        let mut hasher = Hasher::new();
        for (memory, passes, is_weakly_hashed) in [(8 * 1024, 2, true), (19 * 1024, 1, true), (32 * 1024, 2, false)] {
            let params = Params::new(memory, passes, 1, None).unwrap();
            let stored = Argon2::from(params).hash_password(b"correct horse").unwrap().to_string();
            let verdict = hasher.verify("correct horse", &stored).unwrap();
            assert_eq!(verdict, Verdict { is_right: true, is_weakly_hashed }, "{stored}");
            assert!(!hasher.verify("incorrect horse", &stored).unwrap().is_right);
        }
    }

    #[tokio::test]
    async fn threads_that_hash_let_others_go_first() {
        let passwords = Passwords::new(Some(NonZeroUsize::MIN)).unwrap();
        let niceness = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // The name before may have spaces, and ends with a bracket; the niceness is 17 fields on.
            stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse::<i32>().unwrap()
        };
        let theirs = passwords.place().unwrap().run(move |_| niceness()).await.unwrap();
        assert_eq!(theirs, niceness() + NICENESS);
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_at_once_until_work_is_done() {
        let passwords = Passwords::new(Some(NonZeroUsize::MIN)).unwrap();
        let mut places: Vec<_> = (0..=WAITING_FOR_EACH).map(|_| passwords.place().unwrap()).collect();
        assert!(matches!(passwords.place(), Err(AuthError::Busy)));

        // A client that leaves while its password is hashed keeps the place until that is done.
        let ((begin, has_begun), (go_on, wait)) = (mpsc::channel::<()>(), mpsc::channel::<()>());
        let place = places.remove(0);
        let work = move |_: &mut Hasher| (begin.send(()).unwrap(), wait.recv().unwrap());
        let mut left = Box::pin(async move { place.run(work).await });
        assert!(futures_util::poll!(&mut left).is_pending());
        has_begun.recv().unwrap();
        drop(left);
        assert!(matches!(passwords.place(), Err(AuthError::Busy)));
        go_on.send(()).unwrap();

        places.remove(0).run(|_| ()).await.unwrap();
        assert!(passwords.place().is_ok());
    }
}
