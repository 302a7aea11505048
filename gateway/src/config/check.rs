//! What values have to be to each other for a node to work.

use std::net::SocketAddr;

use super::{Config, RoleName};
use crate::wire::frame::CLIENT_FRAME_BYTES_MAX;

/// The key at fault, and why.
type Fault = (&'static str, String);

impl Config {
    /// Refuses what cannot work, naming the key.
    pub fn check(&self) -> Result<(), Fault> {
        self.check_roles()?;
        self.check_addresses()?;
        self.check_sizes()?;
        self.check_retention()?;
        self.check_auth()?;
        self.check_log()?;
        self.check_limits()
    }

    fn check_roles(&self) -> Result<(), Fault> {
        let both = self.roles.contains(&RoleName::Gateway) && self.roles.contains(&RoleName::Core);
        require(both, "roles", || "a single node needs both \"gateway\" and \"core\"".into())?;
        require((1..=4096).contains(&self.shards), "shards", || "must be 1 to 4096: a shard's id has 12 bits".into())
    }

    fn check_addresses(&self) -> Result<(), Fault> {
        let public = !is_loopback(self.listen);
        require(!(self.dev && public), "listen", || {
            format!(
                "{} is not a loopback address, and --dev listens on loopback only; use --config for others",
                self.listen
            )
        })?;
        require(!self.dev || is_loopback(self.http), "http", || {
            format!(
                "{} is not a loopback address, and --dev listens on loopback only; use --config for others",
                self.http
            )
        })?;
        let key = !self.tls.key.as_os_str().is_empty();
        require(self.has_tls() == key, "tls.key", || "tls.cert and tls.key are given together or not at all".into())?;
        let plain = !self.has_tls() && !self.tls.allow_plain_tcp_on_public_addresses;
        require(!(public && plain), "listen", || {
            format!(
                "{} is not a loopback address and there is no certificate: set tls.cert and tls.key, \
                 or tls.allow_plain_tcp_on_public_addresses = true",
                self.listen
            )
        })
    }

    fn check_retention(&self) -> Result<(), Fault> {
        let retention = &self.retention;
        require(retention.days <= 36_500, "retention.days", || "must be at most 36500".into())?;
        require(retention.every.0.as_secs() >= 1, "retention.every", || "must be at least 1s".into())
    }

    fn check_sizes(&self) -> Result<(), Fault> {
        let (journal, sequencer) = (&self.journal, &self.sequencer);
        let file_bytes = journal.file_bytes.0;
        let possible = (1 << 20..1 << 32).contains(&file_bytes) && file_bytes.is_multiple_of(4096);
        require(possible, "journal.file_bytes", || "must be a multiple of 4KiB from 1MiB to below 4GiB".into())?;
        require(journal.block_bytes_max.0 >= 128 << 10, "journal.block_bytes_max", || {
            "must be at least 128KiB".into()
        })?;
        require(journal.block_bytes_max.0 <= journal.file_bytes.0 / 4, "journal.block_bytes_max", || {
            format!("must be at most a quarter of journal.file_bytes ({})", journal.file_bytes)
        })?;
        require(journal.reserve_files >= 2, "journal.reserve_files", || {
            "must be at least 2: space is reserved before a message is accepted".into()
        })?;
        require(journal.held_files_max >= 2, "journal.held_files_max", || "must be at least 2".into())?;
        require(journal.queue_bytes_max >= journal.block_bytes_max, "journal.queue_bytes_max", || {
            format!("must be at least journal.block_bytes_max ({})", journal.block_bytes_max)
        })?;
        require(sequencer.entry_bytes_max.0 >= 64 << 10, "sequencer.entry_bytes_max", || {
            "must be at least 64KiB".into()
        })?;
        require(sequencer.entry_bytes_max.0 <= journal.block_bytes_max.0 / 2, "sequencer.entry_bytes_max", || {
            format!("must be at most half of journal.block_bytes_max ({})", journal.block_bytes_max)
        })?;
        require((1..=16).contains(&sequencer.entries_in_flight), "sequencer.entries_in_flight", || {
            "must be 1 to 16".into()
        })?;
        require(sequencer.queue_commands_max >= 256, "sequencer.queue_commands_max", || "must be at least 256".into())?;
        require(sequencer.queue_bytes_max >= sequencer.entry_bytes_max, "sequencer.queue_bytes_max", || {
            format!("must be at least sequencer.entry_bytes_max ({})", sequencer.entry_bytes_max)
        })?;
        require(sequencer.tail_bytes.0 >= 1 << 20, "sequencer.tail_bytes", || "must be at least 1MiB".into())?;
        require(sequencer.seal_bytes.0 >= 1 << 20, "sequencer.seal_bytes", || "must be at least 1MiB".into())?;
        require(sequencer.seal_age.0.as_secs() >= 1, "sequencer.seal_age", || "must be at least 1s".into())?;
        require(sequencer.unsealed_bytes_max.0 / 2 >= sequencer.seal_bytes.0, "sequencer.unsealed_bytes_max", || {
            format!("must be at least twice sequencer.seal_bytes ({})", sequencer.seal_bytes)
        })?;
        require(sequencer.seal_bytes_per_second.0 >= 1 << 20, "sequencer.seal_bytes_per_second", || {
            "must be at least 1MiB".into()
        })?;
        require((2..=64).contains(&sequencer.merge_inputs), "sequencer.merge_inputs", || "must be 2 to 64".into())?;
        require(sequencer.row_cache_bytes.0 >= 4 << 20, "sequencer.row_cache_bytes", || {
            "must be at least 4MiB".into()
        })?;
        require(sequencer.block_cache_bytes.0 >= 4 << 20, "sequencer.block_cache_bytes", || {
            "must be at least 4MiB".into()
        })
    }

    fn check_auth(&self) -> Result<(), Fault> {
        let (access, refresh) = (self.auth.access_token_lifetime, self.auth.refresh_token_lifetime);
        require(access.0.as_secs() >= 10, "auth.access_token_lifetime", || "must be at least 10s".into())?;
        require(refresh >= access, "auth.refresh_token_lifetime", || {
            format!("must be at least auth.access_token_lifetime ({access})")
        })?;
        // A session in the log ends after 30 days without a refresh: a longer token would only promise too much.
        require(refresh.0.as_secs() <= 30 * 24 * 3600, "auth.refresh_token_lifetime", || "must be at most 30d".into())
    }

    /// A word that is no level would be taken for the name of a part, and silence all others.
    fn check_log(&self) -> Result<(), Fault> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let level_of = |directive: &str| directive.rsplit('=').next().unwrap_or_default().trim().to_ascii_lowercase();
        let bad = self.log.level.split(',').find(|directive| !LEVELS.contains(&level_of(directive).as_str()));
        require(bad.is_none(), "log.level", || {
            let bad = bad.unwrap_or_default();
            format!("{bad:?} is not a level ({}), nor PART=LEVEL", LEVELS.join(", "))
        })
    }

    fn check_limits(&self) -> Result<(), Fault> {
        for row in fanout::Limits::TABLE {
            require(self.limits.get(row.name) != Some(0), limit_key(row.name), || {
                format!("limits.{} must be above 0", row.name)
            })?;
        }
        let limits = &self.limits;
        let frame_max = CLIENT_FRAME_BYTES_MAX as u64;
        require((1024..=frame_max).contains(&limits.frame_bytes), "limits.frame_bytes", || {
            format!("must be 1024 to {frame_max}: the protocol's largest frame")
        })?;
        require(limits.text_bytes + 512 <= limits.frame_bytes, "limits.text_bytes", || {
            "must leave 512 bytes of limits.frame_bytes for what surrounds a text".into()
        })?;
        require(limits.password_bytes_min <= limits.password_bytes, "limits.password_bytes_min", || {
            "must not be above limits.password_bytes".into()
        })
    }
}

/// The dotted key of a row of the table, for as long as the program runs.
fn limit_key(name: &'static str) -> &'static str {
    use std::sync::OnceLock;
    static KEYS: OnceLock<Vec<String>> = OnceLock::new();
    let keys = KEYS.get_or_init(|| fanout::Limits::TABLE.iter().map(|row| format!("limits.{}", row.name)).collect());
    keys.iter().find(|key| key.ends_with(name) && key.len() == name.len() + 7).map_or("limits", String::as_str)
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn require(holds: bool, key: &'static str, why: impl FnOnce() -> String) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err((key, why())) }
}
