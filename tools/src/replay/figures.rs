//! What a replay measured and found.

use std::time::Duration;

use serde::Serialize;

use super::chat::Chat;
use crate::bench::latency::{Latency, Percentiles};

/// Differences shown in words; the rest are counted.
const SHOWN_MAX: u64 = 20;

/// Counted while playing.
pub struct Tally {
    /// In the file.
    pub messages: u64,
    /// In the file.
    pub conversations: u64,
    /// What all members together are to hear from others.
    pub deliveries_expected: u64,
    /// Users whose first attach is complete.
    pub attached: u64,
    /// Durable.
    pub acked: u64,
    /// Received by others than the sender.
    pub delivered: u64,
    /// Of them: read from history after an interruption.
    pub filled: u64,
    /// Refusals of the moment, each sent again.
    pub refusals: u64,
    /// Connections that ended before the end.
    pub connections_lost: u64,
    /// Read back and the same.
    pub verified: u64,
    /// Conversations read back.
    pub conversations_read: u64,
    /// Differences of any kind.
    pub mismatches: u64,
    /// From the first message to the last ack and delivery.
    pub played: Duration,
    /// First attempt to durable ack.
    pub send_to_durable: Latency,
    /// First attempt to each live delivery.
    pub send_to_receive: Latency,
    seen: Vec<bool>,
}

impl Tally {
    /// Nothing yet.
    pub fn new(chat: &Chat) -> Tally {
        Tally {
            messages: chat.messages.len() as u64,
            conversations: chat.conversations.len() as u64,
            deliveries_expected: chat.deliveries(),
            attached: 0,
            acked: 0,
            delivered: 0,
            filled: 0,
            refusals: 0,
            connections_lost: 0,
            verified: 0,
            conversations_read: 0,
            mismatches: 0,
            played: Duration::ZERO,
            send_to_durable: Latency::new(),
            send_to_receive: Latency::new(),
            seen: vec![false; chat.users.len()],
        }
    }

    /// A user's attach is complete; counted once a user.
    pub fn attach(&mut self, user: u32) {
        if !std::mem::replace(&mut self.seen[user as usize], true) {
            self.attached += 1;
        }
    }

    /// Counts a difference, and says the first of them.
    pub fn mismatch(&mut self, what: impl FnOnce() -> String) {
        self.mismatches += 1;
        if self.mismatches <= SHOWN_MAX {
            eprintln!("skein: {}", what());
        }
    }

    /// What is printed.
    pub fn figures(&self) -> Figures {
        let seconds = self.played.as_secs_f64();
        let a_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        Figures {
            messages: self.messages,
            conversations: self.conversations,
            deliveries: self.delivered,
            verified: self.verified,
            mismatches: self.mismatches + (self.messages - self.verified.min(self.messages)),
            seconds,
            sends_per_s: a_second(self.messages),
            deliveries_per_s: a_second(self.delivered),
            send_to_durable_ms: self.send_to_durable.percentiles(),
            send_to_receive_ms: self.send_to_receive.percentiles(),
            filled_from_history: self.filled,
            refusals_retried: self.refusals,
            connections_lost: self.connections_lost,
        }
    }
}

/// The figures of a finished replay.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// In the file.
    pub messages: u64,
    /// In the file.
    pub conversations: u64,
    /// Received by others than the sender.
    pub deliveries: u64,
    /// Read back and the same.
    pub verified: u64,
    /// Differences, live or read back.
    pub mismatches: u64,
    /// From the first message to the last ack and delivery.
    pub seconds: f64,
    /// Messages a second, each durable and received.
    pub sends_per_s: f64,
    /// Deliveries a second.
    pub deliveries_per_s: f64,
    /// First attempt to durable ack.
    pub send_to_durable_ms: Percentiles,
    /// First attempt to live delivery.
    pub send_to_receive_ms: Percentiles,
    /// Deliveries read from history after an interruption.
    pub filled_from_history: u64,
    /// Refusals of the moment, each sent again.
    pub refusals_retried: u64,
    /// Connections that ended and were made again.
    pub connections_lost: u64,
}

impl Figures {
    /// For people.
    pub fn table(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("messages", format!("{} in {} conversations", self.messages, self.conversations)),
            ("verified", format!("{} of {}, {} mismatches", self.verified, self.messages, self.mismatches)),
            ("time", format!("{:.2} s", self.seconds)),
            ("sent", format!("{:.0} messages/s", self.sends_per_s)),
            ("received", format!("{:.0} deliveries/s", self.deliveries_per_s)),
            ("send -> durable", self.send_to_durable_ms.words()),
            ("send -> receive", self.send_to_receive_ms.words()),
        ];
        if self.connections_lost > 0 {
            let words = format!(
                "{} connections lost, {} deliveries read later",
                self.connections_lost, self.filled_from_history
            );
            rows.push(("interruptions", words));
        }
        rows
    }
}
