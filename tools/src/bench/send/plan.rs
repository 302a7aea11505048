//! What a run consists of: who sends to whom, and which texts. Sender and receiver process share it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::bench::wire::Id;
use crate::replay::Chat;

/// Texts when no file is given: so many different ones, that a text in the wrong place is noticed.
const TEXTS: usize = 64;
/// Their length.
const TEXT_BYTES: usize = 200;
/// Texts taken from a file.
const FILE_TEXTS_MAX: usize = 65_536;

/// Somebody at a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Party {
    /// Its number.
    pub user: u64,
    /// For `hello`.
    pub token: String,
}

/// A conversation of two.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Pair {
    /// Its id.
    pub id: Id,
    /// Index of its sender.
    pub sender: u32,
    /// Index of its receiver.
    pub receiver: u32,
    /// Its head before the run.
    pub base_seq: u64,
}

/// What the receiver process is told at its start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReceiverPlan {
    /// Where the server is.
    pub server: String,
    /// Who receives.
    pub receivers: Vec<Party>,
    /// All conversations.
    pub pairs: Vec<Pair>,
    /// Texts are drawn from this file.
    pub texts: Option<PathBuf>,
    /// Milliseconds between receipts; 0: none.
    pub receipts_ms: u64,
}

/// When figures are taken, on the machine's monotonic clock.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Window {
    /// From.
    pub from_ns: u64,
    /// To.
    pub to_ns: u64,
}

impl Window {
    /// Whether a moment lies in it.
    pub fn holds(&self, ns: u64) -> bool {
        (self.from_ns..self.to_ns).contains(&ns)
    }

    /// Its length.
    pub fn seconds(&self) -> f64 {
        (self.to_ns - self.from_ns) as f64 / 1e9
    }
}

/// What the sender process tells the receiver process, one JSON line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Sending begins: figures are taken then.
    Begin(Window),
    /// Sending is over: per conversation, how many were acknowledged and the highest seq_id.
    Finish(Vec<(u64, u64)>),
}

/// The texts of a run; message n of a conversation has text n modulo their number.
pub struct Texts(Vec<Box<[u8]>>);

impl Texts {
    /// From a chat file, or deterministic ones of 200 printable bytes.
    pub fn open(file: Option<&Path>) -> anyhow::Result<Texts> {
        let Some(file) = file else { return Ok(Texts::printable()) };
        let chat = Chat::open(file).with_context(|| file.display().to_string())?;
        let count = chat.messages.len().min(FILE_TEXTS_MAX) as u32;
        Ok(Texts((0..count).map(|message| chat.text(message).as_bytes().into()).collect()))
    }

    fn printable() -> Texts {
        let byte = |text: usize, at: usize| b' ' + ((text * 31 + at * 7 + at * at / 13) % 95) as u8;
        Texts((0..TEXTS).map(|text| (0..TEXT_BYTES).map(|at| byte(text, at)).collect()).collect())
    }

    /// The text of message `n`.
    pub fn of(&self, n: u32) -> &[u8] {
        &self.0[n as usize % self.0.len()]
    }

    /// The longest.
    pub fn bytes_max(&self) -> usize {
        self.0.iter().map(|text| text.len()).max().unwrap_or(0)
    }
}

/// Who pairs with whom: conversation i has this sender and receiver. While there are pairs of a sender and a
/// receiver left, each is used once; `true`: it is used again, so it needs a group.
pub fn pairings(conversations: usize, senders: usize, receivers: usize) -> Vec<(u32, u32, bool)> {
    let pair = |at: usize| {
        let (sender, round) = (at % senders, at / senders);
        (sender as u32, ((sender + round) % receivers) as u32, round >= receivers)
    };
    (0..conversations).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_pair_is_used_once_before_any_is_used_again() {
        let pairs = pairings(1000, 20, 25);
        let direct: Vec<_> = pairs.iter().filter(|(_, _, again)| !again).collect();
        assert_eq!(direct.len(), 500);
        assert_eq!(direct.iter().collect::<HashSet<_>>().len(), 500);
        assert!((0..20).all(|s| pairs.iter().filter(|(sender, _, _)| *sender == s).count() == 50));
    }

    #[test]
    fn texts_are_printable_and_differ() {
        let texts = Texts::open(None).unwrap();
        assert_eq!(texts.bytes_max(), TEXT_BYTES);
        assert!((0..64).all(|n| texts.of(n).iter().all(|byte| (b' '..=b'~').contains(byte))));
        assert_eq!((0..64).map(|n| texts.of(n)).collect::<HashSet<_>>().len(), 64);
        assert_eq!(texts.of(64), texts.of(0));
    }
}
