//! Passwords: argon2id in a bounded pool.
//!
//! What always holds: at most [`threads`](Passwords::new) hashes are made at once, at most `limits.password_queue` wait,
//! and a look-up of a name nobody has costs the same as one of a name somebody has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::{Code, Fault, Limits};

/// What somebody is told whom the pool has no place for: about a full queue's worth of hashes.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The hash that is verified against when there is none: of a random password nobody knows, made with the parameters
/// in force (m = 19 MiB, t = 2, p = 1, which is OWASP's minimum and argon2's default).
const NOBODYS_PHC: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c2tlaW4ubm9ib2R5LnNhbHQ$2QmO2jBzXG7l2n4Tq0m1c1VdJm9iG7hQm3d1mYxk0yE";

/// The pool.
pub(super) struct Passwords {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
}

impl Passwords {
    /// A pool that leaves one core to everything else.
    pub fn new(limits: &Limits) -> Passwords {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Passwords {
            running: Arc::new(Semaphore::new((cores - 1).max(1))),
            waiting: AtomicUsize::new(0),
            waiting_max: limits.password_queue as usize,
        }
    }

    /// The PHC string of a password.
    pub async fn hash(&self, password: &str) -> Result<String, Fault> {
        let password = password.to_owned();
        let phc = self.run(move || Argon2::default().hash_password(password.as_bytes()).map(|h| h.to_string())).await?;
        phc.map_err(|error| {
            tracing::error!(%error, "a password could not be hashed");
            Fault::new(Code::Internal, "the password could not be hashed")
        })
    }

    /// Whether a password is the one a PHC string was made of. Without one it takes as long and says no.
    pub async fn verify(&self, password: &str, phc: Option<String>) -> Result<bool, Fault> {
        let password = password.to_owned();
        self.run(move || {
            let known = phc.as_deref().filter(|phc| !phc.is_empty());
            let hash = PasswordHash::new(known.unwrap_or(NOBODYS_PHC));
            let fits = hash.is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
            fits && known.is_some()
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
        let place = self.queue()?;
        let running = Arc::clone(&self.running).acquire_owned().await;
        let running = running.expect("the semaphore is never closed");
        drop(place);
        let done = tokio::task::spawn_blocking(move || {
            let _running = running; // held by the work, not by who waits for it: a caller may go away
            work()
        });
        done.await.map_err(|_| Fault::later(Code::Draining, "the server is stopping", BUSY_RETRY_AFTER))
    }

    fn queue(&self) -> Result<Place<'_>, Fault> {
        let taken = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Place(&self.waiting);
        // One more than the queue may wait while a thread is free: it waits for nothing.
        if taken >= self.waiting_max + self.running.available_permits() {
            return Err(Fault::later(Code::Busy, "too many passwords are being checked", BUSY_RETRY_AFTER));
        }
        Ok(place)
    }
}

/// A place in the queue, given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Most memory (KiB) and passes one verification may take: an imported hash decides what every later login costs.
const IMPORTED_MEMORY_KIB_MAX: u32 = 64 << 10;
const IMPORTED_PASSES_MAX: u32 = 8;

/// Whether a string can be kept as an account's password hash.
pub(super) fn is_phc(phc: &str) -> bool {
    let Ok(hash) = PasswordHash::new(phc) else { return false };
    let affordable = Params::try_from(&hash)
        .is_ok_and(|p| p.m_cost() <= IMPORTED_MEMORY_KIB_MAX && p.t_cost() <= IMPORTED_PASSES_MAX);
    hash.algorithm.as_str() == "argon2id" && hash.hash.is_some() && affordable
}

/// Whether a password's length is within the table's.
pub(super) fn check_length(password: &str, limits: &Limits) -> Result<(), Fault> {
    let range = limits.password_bytes_min..=limits.password_bytes;
    if range.contains(&(password.len() as u64)) {
        return Ok(());
    }
    let what = format!("a password has {} to {} bytes", range.start(), range.end());
    Err(Fault::new(Code::BadPassword, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_fits_its_hash_and_no_other_does() {
        let pool = Passwords::new(&Limits::default());
        let phc = pool.hash("correct horse").await.unwrap();
        assert!(is_phc(&phc), "{phc}");
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(pool.verify("correct horse", Some(phc.clone())).await.unwrap());
        assert!(!pool.verify("wrong horse", Some(phc)).await.unwrap());
        assert!(!pool.verify("", Some(String::new())).await.unwrap());
    }

    #[test]
    fn nobodys_hash_costs_what_a_real_one_does() {
        assert!(is_phc(NOBODYS_PHC));
        let hash = PasswordHash::new(NOBODYS_PHC).unwrap();
        let made = Argon2::default().hash_password(b"any").unwrap();
        assert_eq!(hash.params.to_string(), made.params.to_string());
        assert_eq!(hash.hash.unwrap().as_bytes().len(), made.hash.unwrap().as_bytes().len());
    }

    #[tokio::test]
    async fn the_pool_says_busy_when_its_queue_is_full_and_recovers() {
        let limits = Limits { password_queue: 2, ..Limits::default() };
        let pool = Arc::new(Passwords::new(&limits));
        let permits = pool.running.available_permits();
        let all = Arc::clone(&pool.running).acquire_many_owned(permits as u32).await.unwrap();
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let pool = Arc::clone(&pool);
                tokio::spawn(async move { pool.run(|| ()).await })
            })
            .collect();
        while pool.waiting.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(|| ()).await.unwrap_err().code, Code::Busy);
        drop(all);
        for done in waiting {
            assert_eq!(done.await.unwrap(), Ok(()));
        }
        assert_eq!(pool.run(|| 7).await, Ok(7));
        assert_eq!(pool.waiting.load(Ordering::Relaxed), 0);
    }
}
