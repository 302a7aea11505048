//! What a run prints.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::bench::floors::SyncFloor;
use crate::bench::latency::Percentiles;

/// The figures of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Connections, half of them sending.
    pub connections: usize,
    /// Messages in a frame.
    pub batch: usize,
    /// Messages a second asked for; none: closed loop.
    pub rate: Option<f64>,
    /// Conversations of two.
    pub conversations: usize,
    /// Measured, after warming up.
    pub seconds: f64,
    /// Written, warm-up included.
    pub sent: u64,
    /// Durable, warm-up included.
    pub acked: u64,
    /// Received, each once, warm-up included.
    pub received: u64,
    /// Acknowledged and not received.
    pub lost: u64,
    /// Received again.
    pub duplicates: u64,
    /// Received out of its place.
    pub order_violations: u64,
    /// Received with another text.
    pub altered: u64,
    /// Refused by the server.
    pub refused: u64,
    /// Never answered.
    pub unanswered: u64,
    /// Why the first was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_refusal: Option<String>,
    /// Acknowledged inside the measured time.
    pub sends_per_s: f64,
    /// Received inside the measured time.
    pub deliveries_per_s: f64,
    /// Due (closed loop: written) to durable ack.
    pub send_to_durable_ms: Percentiles,
    /// Due (closed loop: written) to received by the other process.
    pub send_to_receive_ms: Percentiles,
    /// Microseconds of CPU a message.
    pub cpu: CpuReport,
    /// The journal inside the measured time, where the server tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalReport>,
    /// What the machine can do, measured before and after.
    pub floors: Floors,
}

/// Microseconds of CPU a message, by process and thread.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CpuReport {
    /// Of the server, if it is on this machine and known.
    pub server_us_per_msg: Option<f64>,
    /// Of this process.
    pub sender_us_per_msg: f64,
    /// Of the receiving process.
    pub receiver_us_per_msg: f64,
    /// The server's threads by name.
    pub server_threads_us_per_msg: BTreeMap<String, f64>,
}

/// What the journal did.
#[derive(Clone, Debug, Serialize)]
pub struct JournalReport {
    /// Blocks written and synced a second.
    pub syncs_per_s: f64,
    /// Bytes of a block, on average.
    pub block_bytes: f64,
    /// Messages in a block, on average.
    pub messages_per_sync: f64,
    /// Time of writing and syncing a block, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_us: Option<f64>,
}

/// Measured beside the run.
#[derive(Clone, Debug, Serialize)]
pub struct Floors {
    /// One page written and synced, alone; before.
    pub page_sync: SyncFloor,
    /// Blocks of the run's average size; after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_sync: Option<SyncFloor>,
    /// A small frame there and back over loopback TCP.
    pub loopback_us: f64,
    /// A lone send's durable ack, nobody else about.
    pub lone_send_us: f64,
    /// Its ratio to (round trip + one page's sync): 1 is the machine's own.
    pub lone_send_ratio: f64,
    /// The journal's time of a block over the bare loop's: 1 is the machine's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_commit_ratio: Option<f64>,
}

impl Report {
    /// Whether the checker is content.
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicates + self.order_violations + self.altered + self.unanswered == 0
    }

    /// For people.
    pub fn table(&self) -> Vec<(&'static str, String)> {
        let rate = self.rate.map_or("as fast as it goes".into(), |rate| format!("{rate:.0}/s asked"));
        let mut rows = vec![
            (
                "load",
                format!(
                    "{} connections, frames of {}, {} conversations, {rate}",
                    self.connections, self.batch, self.conversations
                ),
            ),
            ("sent", format!("{:.0} messages/s durable over {:.1} s", self.sends_per_s, self.seconds)),
            ("received", format!("{:.0} messages/s", self.deliveries_per_s)),
            ("send -> durable", self.send_to_durable_ms.words()),
            ("send -> receive", self.send_to_receive_ms.words()),
            ("checked", self.verdict()),
            ("CPU", self.cpu_words()),
        ];
        if let Some(journal) = &self.journal {
            let words = format!(
                "{:.0} syncs/s of {:.0} KiB, {:.0} messages each",
                journal.syncs_per_s,
                journal.block_bytes / 1024.0,
                journal.messages_per_sync
            );
            rows.push(("journal", words));
        }
        rows.push((
            "lone send",
            format!(
                "{:.0} µs durable = {:.2} x (round trip {:.0} µs + one sync {:.0} µs)",
                self.floors.lone_send_us,
                self.floors.lone_send_ratio,
                self.floors.loopback_us,
                self.floors.page_sync.p50_us
            ),
        ));
        if let (Some(block), Some(ratio)) = (&self.floors.block_sync, self.floors.group_commit_ratio) {
            let words = format!(
                "{ratio:.2} x a bare loop over blocks of {} KiB ({:.0}/s)",
                block.block_bytes / 1024,
                block.blocks_per_s
            );
            rows.push(("group commit", words));
        }
        rows
    }

    fn verdict(&self) -> String {
        let counts = format!("{} sent, {} durable, {} received", self.sent, self.acked, self.received);
        let faults = [
            (self.lost, "lost"),
            (self.duplicates, "duplicates"),
            (self.order_violations, "out of order"),
            (self.altered, "altered"),
            (self.unanswered, "unanswered"),
            (self.refused, "refused"),
        ];
        let faults: Vec<String> = faults.iter().map(|(count, what)| format!("{count} {what}")).collect();
        format!("{counts}; {}", faults.join(", "))
    }

    fn cpu_words(&self) -> String {
        let server = self.cpu.server_us_per_msg.map_or("server unknown".into(), |us| format!("server {us:.2}"));
        let threads: Vec<String> =
            self.cpu.server_threads_us_per_msg.iter().map(|(name, us)| format!("{name} {us:.2}")).collect();
        let (sender, receiver) = (self.cpu.sender_us_per_msg, self.cpu.receiver_us_per_msg);
        format!("µs a message: {server} ({}), sender {sender:.2}, receiver {receiver:.2}", threads.join(", "))
    }
}
