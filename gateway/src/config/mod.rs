//! The configuration of a node: every key, its default, and what it means.
//!
//! What always holds: a [`Config`] that came out of [`load`] has been checked; a key that is not in
//! it is an error that names the key; every key is in `skein.toml` with its default (a test
//! compares them).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fanout::Limits;
use fanout::service::RetentionPolicy;
use logstore::JournalOptions;
use sequencer::Retention;
use serde::{Deserialize, Serialize};

mod check;
mod limits;
mod load;
mod units;

pub use limits::text_of as limit_text;
pub use load::{ConfigError, NOT_KEYS, Sources, keys_of, load};
pub use units::{Size, Span};

/// A node's configuration, checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Development mode: loopback only, keys made on the fly, demo accounts. Only a flag sets it.
    #[serde(skip)]
    pub dev: bool,
    /// Where everything the node keeps lies.
    pub data_dir: PathBuf,
    /// Client protocol.
    pub listen: SocketAddr,
    /// Health and metrics.
    pub http: SocketAddr,
    /// What this process does.
    pub roles: Vec<RoleName>,
    /// Shards of a new node; one that has data keeps the shards it has.
    pub shards: u16,
    /// How long a stopping node waits for what is in flight.
    pub drain_timeout: Span,
    /// Encryption of the client port.
    pub tls: TlsConfig,
    /// The shared journal.
    pub journal: JournalConfig,
    /// Shards and their proposers.
    pub sequencer: SequencerConfig,
    /// What conversations keep.
    pub retention: RetentionConfig,
    /// Keys, tokens, registration.
    pub auth: AuthConfig,
    /// What is written to stderr.
    pub log: LogConfig,
    /// The table of limits.
    #[serde(with = "limits")]
    pub limits: Limits,
}

/// A role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// Sockets and sessions.
    Gateway,
    /// Log, order, deliveries.
    Core,
}

/// `[tls]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate chain, PEM; empty: no TLS.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Without a certificate, `listen` may be something else than loopback only when this is true.
    pub allow_plain_tcp_on_public_addresses: bool,
}

/// `[journal]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalConfig {
    /// Size of one journal file.
    pub file_bytes: Size,
    /// Most bytes in one block (one group commit).
    pub block_bytes_max: Size,
    /// Files kept ready ahead of the active one.
    pub reserve_files: usize,
    /// Files in use beyond which live entries of the oldest are copied forward.
    pub held_files_max: usize,
    /// Bytes of recent entries kept in memory, all shards together.
    pub tail_cache_bytes: Size,
    /// Most bytes queued for the writer.
    pub queue_bytes_max: Size,
    /// Whether sealed entries stay while `held_files_max` leaves a place for them, so that saves tell what came between them.
    pub keep_for_backups: bool,
}

/// `[sequencer]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequencerConfig {
    /// Most bytes of commands in one entry.
    pub entry_bytes_max: Size,
    /// Entries of one shard in flight.
    pub entries_in_flight: usize,
    /// Most commands queued at one proposer.
    pub queue_commands_max: usize,
    /// Most bytes queued at one proposer.
    pub queue_bytes_max: Size,
    /// Bytes of applied entries each shard keeps for tail readers.
    pub tail_bytes: Size,
    /// Bytes of entries after which a generation is sealed.
    pub seal_bytes: Size,
    /// Log time after which a generation is sealed that is not that large.
    pub seal_age: Span,
    /// Most bytes a shard may hold unsealed: beyond, that shard refuses new messages.
    pub unsealed_bytes_max: Size,
    /// Most bytes a second that making segments writes, all shards together.
    pub seal_bytes_per_second: Size,
    /// So many consecutive seals are merged into one segment.
    pub merge_inputs: usize,
    /// What was trimmed or recalled is gone from segments after this, if no merge comes before.
    pub drop_within: Span,
    /// Bytes of sealed rows of state kept in memory, all shards together.
    pub row_cache_bytes: Size,
    /// Bytes of sealed blocks kept in memory, all shards together.
    pub block_cache_bytes: Size,
}

/// `[retention]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// Days that records are kept; 0: for ever.
    pub days: u64,
    /// Newest records of a conversation that stay; 0: no matter how many.
    pub records: u64,
    /// How often what need not be kept is trimmed.
    pub every: Span,
}

impl RetentionConfig {
    /// The same for the services.
    pub fn policy(&self) -> RetentionPolicy {
        let age_ms = self.days.saturating_mul(24 * 3600 * 1000);
        RetentionPolicy { default: Retention { age_ms, records: self.records }, every: self.every.0 }
    }
}

/// `[auth]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// Ed25519 key that signs tokens, PEM; empty: `keys/token.pem` in the data directory.
    pub token_key_file: PathBuf,
    /// A former token key whose tokens are still accepted; empty: none.
    pub retired_token_key_file: PathBuf,
    /// Ed25519 key of administrators, PEM; empty: `keys/admin.pem` in the data directory.
    pub admin_key_file: PathBuf,
    /// How long an access token is good.
    pub access_token_lifetime: Span,
    /// How long a session lasts unless it is refreshed.
    pub refresh_token_lifetime: Span,
    /// Whether strangers may register.
    pub registration: Registration,
}

/// Whether strangers may register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Anybody who can reach the client port.
    Open,
    /// Only administrators make accounts.
    Closed,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged: a level, or directives as `tracing` knows them.
    pub level: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people on a terminal, one JSON object a line otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Where the admin key lies in a data directory, unless the configuration says otherwise.
pub fn admin_key_path(data_dir: &Path) -> PathBuf {
    data_dir.join("keys").join("admin.pem")
}

/// Where the token key lies in a data directory, unless the configuration says otherwise.
pub fn token_key_path(data_dir: &Path) -> PathBuf {
    data_dir.join("keys").join("token.pem")
}

impl Default for Config {
    fn default() -> Config {
        let journal = JournalOptions::default();
        Config {
            dev: false,
            data_dir: PathBuf::from("skein-data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            http: SocketAddr::from(([127, 0, 0, 1], 7401)),
            roles: vec![RoleName::Gateway, RoleName::Core],
            shards: 64,
            drain_timeout: Span(Duration::from_secs(10)),
            tls: TlsConfig { cert: PathBuf::new(), key: PathBuf::new(), allow_plain_tcp_on_public_addresses: false },
            journal: JournalConfig {
                file_bytes: Size(journal.file_bytes),
                block_bytes_max: Size(journal.block_bytes_max as u64),
                reserve_files: journal.reserve_files,
                held_files_max: journal.held_files_max,
                tail_cache_bytes: Size(journal.tail_cache_bytes as u64),
                queue_bytes_max: Size(journal.queue_bytes_max as u64),
                // A start reads all that the journal holds: who makes no backups shall not wait for that.
                keep_for_backups: false,
            },
            sequencer: SequencerConfig {
                // Measured: two entries of 64 KiB in flight keep the journal busy; more only adds waiting.
                entry_bytes_max: Size(64 << 10),
                entries_in_flight: 2,
                queue_commands_max: 16_384,
                queue_bytes_max: Size(8 << 20),
                tail_bytes: Size(16 << 20),
                seal_bytes: Size(64 << 20),
                seal_age: Span(Duration::from_secs(10 * 60)),
                unsealed_bytes_max: Size(256 << 20),
                seal_bytes_per_second: Size(64 << 20),
                // Fewer cost more writing, more cost reads: a page looks into each segment that holds a part of it.
                merge_inputs: 16,
                // A recall in a large segment costs writing all of it again: once a day bounds that.
                drop_within: Span(Duration::from_secs(24 * 3600)),
                // Three eighths for conversations, of some 100 bytes each: a million that are active.
                row_cache_bytes: Size(256 << 20),
                block_cache_bytes: Size(256 << 20),
            },
            retention: RetentionConfig { days: 0, records: 0, every: Span(Duration::from_secs(3600)) },
            auth: AuthConfig {
                token_key_file: PathBuf::new(),
                retired_token_key_file: PathBuf::new(),
                admin_key_file: PathBuf::new(),
                access_token_lifetime: Span(Duration::from_secs(15 * 60)),
                refresh_token_lifetime: Span(Duration::from_secs(30 * 24 * 3600)),
                registration: Registration::Open,
            },
            log: LogConfig { format: LogFormat::Auto, level: "info".into() },
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// What `--dev` begins with: few shards, small files, and a longer tail for each shard.
    pub fn dev() -> Config {
        let mut config = Config { dev: true, shards: 4, ..Config::default() };
        config.journal.file_bytes = Size(64 << 20);
        config.journal.tail_cache_bytes = Size(128 << 20);
        config.sequencer.tail_bytes = Size(64 << 20);
        config.sequencer.queue_bytes_max = Size(16 << 20);
        config.sequencer.row_cache_bytes = Size(64 << 20);
        config.sequencer.block_cache_bytes = Size(64 << 20);
        config
    }

    /// The file with the key that signs tokens.
    pub fn token_key_file(&self) -> PathBuf {
        path_or(&self.auth.token_key_file, || token_key_path(&self.data_dir))
    }

    /// The file with the key of administrators.
    pub fn admin_key_file(&self) -> PathBuf {
        path_or(&self.auth.admin_key_file, || admin_key_path(&self.data_dir))
    }

    /// All of it as TOML that reads back the same.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a Config is plain data with its sections last")
    }

    /// Whether the client port speaks TLS.
    pub fn has_tls(&self) -> bool {
        !self.tls.cert.as_os_str().is_empty()
    }

    /// The journal's part, as logstore wants it.
    pub fn journal_options(&self) -> JournalOptions {
        JournalOptions {
            file_bytes: self.journal.file_bytes.0,
            block_bytes_max: self.journal.block_bytes_max.bytes(),
            reserve_files: self.journal.reserve_files,
            held_files_max: self.journal.held_files_max,
            tail_cache_bytes: self.journal.tail_cache_bytes.bytes(),
            queue_bytes_max: self.journal.queue_bytes_max.bytes(),
            // Chance and the executor come from where the node is composed.
            ..JournalOptions::default()
        }
    }
}

fn path_or(path: &Path, otherwise: impl FnOnce() -> PathBuf) -> PathBuf {
    if path.as_os_str().is_empty() { otherwise() } else { path.to_path_buf() }
}
