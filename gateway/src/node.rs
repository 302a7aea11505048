//! The only place where all parts meet.
//!
//! Start: lock → identity → keys → ports → journal → shards → services → tails → gateway; drain: the other way round.
//! What always holds: nothing is read or written before the data directory is locked, no client is accepted before every
//! acknowledged message is back, and the lock is given up last.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanout::service::Services;
use fanout::tail::Tails;
use logstore::id::HistoryId;
use logstore::io::{Part, Written};
use logstore::{Executor, Journal, JournalOptions};
use sequencer::{Clock, Sequencer, SequencerOptions, Shard, SystemClock, sealed_history};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::auth::NodeTokens;
use crate::config::{Config, Registration};
use crate::data_dir::{DataDir, HeldDataDir, Identity, owner_of_this_process};
use crate::http::{self, Pages, Readiness, Status, StatusQuery};
use crate::session::Gateway;

mod around;
mod error;
mod keys;
mod port;
mod probe;
mod seed;
mod space;

pub use error::StartError;
pub use keys::{check_files, create_keys};
pub use seed::{DEMO_ACCOUNTS, DEMO_GROUP};

use port::Port;

/// What the process exits with when a write or sync failed: nothing that is in memory can be trusted to be on disk.
pub const EXIT_DISK_FAILED: i32 = 70;

/// A running node.
pub struct Node {
    config: Config,
    identity: Identity,
    client_addr: SocketAddr,
    http_addr: SocketAddr,
    parts: Arc<Parts>,
    front: Front,
    accepting: JoinHandle<()>,
    // Last: fields are dropped in order, and the lock is given up when everything else is gone.
    lock: Held,
}

/// How a node holds its data directory.
enum Held {
    /// Nobody else may look.
    Alone(DataDir),
    /// Nothing is changed: others may look, too.
    Shared(#[expect(dead_code, reason = "held until it is dropped")] HeldDataDir),
}

/// A node that only lacks its shards.
struct Ready {
    config: Config,
    identity: Identity,
    lock: Held,
    tokens: Arc<NodeTokens>,
    tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>,
    client_port: Port,
    client_addr: SocketAddr,
    http_addr: SocketAddr,
    status: Arc<StatusSource>,
    front: Front,
    clock: Arc<dyn Clock>,
}

/// What stores and delivers.
struct Parts {
    journal: Journal,
    /// What this node has written to its data files since it started.
    written: Arc<Written>,
    sequencer: Arc<Sequencer>,
    services: Arc<Services>,
    tails: Arc<Tails>,
    gateway: Arc<Gateway>,
}

/// The HTTP port, up from the beginning so that a node that is replaying its journal can be told from a dead one.
struct Front {
    readiness: Arc<Readiness>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    upkeep: JoinHandle<()>,
}

impl Node {
    /// Starts everything; returns when the node accepts clients.
    pub async fn start(config: Config) -> Result<Node, StartError> {
        check(&config)?;
        let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        let lock = DataDir::lock(&config.data_dir, &owner_of_this_process(config.listen, &now))?;
        // Nothing is made for a node that will not start: mode and keys come before a new identity.
        match lock.known_identity()? {
            Some(identity) => refuse_other_mode(&config, &identity)?,
            None => space::require_room_for_a_new_node(&config)?,
        }
        let tokens = keys::open(&config)?;
        let identity = lock.identity(config.dev, &now)?;
        let mut ready = Ready::new(config, identity, Held::Alone(lock), tokens)?;
        if let Held::Alone(lock) = &mut ready.lock {
            lock.set_owner(&owner_of_this_process(ready.client_addr, &now))?;
        }
        refuse_other_segments(&ready.config, &ready.identity).await?;
        let written = Arc::new(Written::default());
        let journal = open_journal(&ready.config, written.clone()).await?;
        let (options, from) = (sequencer_options(&ready.config, &ready.identity), ready.identity.restored_from);
        let sequencer = Sequencer::open_restored(options, from, journal.clone(), ready.clock.clone()).await;
        let sequencer = sequencer.map_err(|error| error::from_sequencer(error, &ready.config.data_dir))?;
        refuse_other_history(sequencer.history(), &ready.identity, &ready.config.data_dir)?;
        ready.serve(journal, written, sequencer).await
    }

    /// The address clients connect to.
    pub fn client_addr(&self) -> SocketAddr {
        self.client_addr
    }

    /// The address of health and metrics.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Where everything the node keeps lies.
    pub fn data_dir(&self) -> &Path {
        &self.config.data_dir
    }

    /// The key of administrators.
    pub fn admin_key_file(&self) -> PathBuf {
        self.config.admin_key_file()
    }

    /// Which node this is.
    pub fn history(&self) -> logstore::id::HistoryId {
        self.identity.history
    }

    /// What users and administrators can ask for, without a connection in between.
    pub fn services(&self) -> &Arc<Services> {
        &self.parts.services
    }

    /// The shards, for whoever looks at them from inside.
    pub fn sequencer(&self) -> &Arc<Sequencer> {
        &self.parts.sequencer
    }

    /// Tells clients to go, finishes what is in flight, stops. Everything acknowledged is synced already.
    pub async fn drain(self) {
        let Node { config, parts, front, accepting, lock, .. } = self;
        front.readiness.drain();
        parts.gateway.drain(config.drain_timeout.0).await;
        parts.services.receipts.flush().await;
        parts.tails.shutdown().await;
        parts.sequencer.shutdown().await;
        accepting.abort();
        let journal = parts.journal.clone();
        if tokio::task::spawn_blocking(move || journal.close()).await.is_err() {
            tracing::error!("closing the journal panicked");
        }
        front.close().await;
        drop(lock);
    }
}

impl Ready {
    /// Takes the ports; `/healthz` answers from here on.
    fn new(config: Config, identity: Identity, lock: Held, tokens: NodeTokens) -> Result<Ready, StartError> {
        let tls =
            if config.has_tls() { Some(crate::tls::server_config(&config.tls.cert, &config.tls.key)?) } else { None };
        let client_port = Port::bind(config.listen, "listen")?;
        let http_port = Port::bind(config.http, "http")?;
        let (client_addr, http_addr) = (client_port.addr, http_port.addr);
        let status = Arc::new(StatusSource::new(&config, &identity, client_addr));
        let front = Front::open(http_port.listen()?, status.clone());
        let (tokens, clock) = (Arc::new(tokens), Arc::new(SystemClock));
        Ok(Ready { config, identity, lock, tokens, tls, client_port, client_addr, http_addr, status, front, clock })
    }

    /// Puts everything above the shards and accepts clients.
    async fn serve(
        self,
        journal: Journal,
        written: Arc<Written>,
        sequencer: Arc<Sequencer>,
    ) -> Result<Node, StartError> {
        let Ready { config, identity, lock, tokens, tls, client_port, client_addr, http_addr, status, front, clock } =
            self;
        let limits = Arc::new(config.limits.clone());
        let services = Arc::new(Services::new(sequencer.clone(), limits.clone()));
        let tails = Tails::start(sequencer.clone(), limits.clone());
        services.pass_receipts_to(tails.clone());
        if !sequencer.is_read_only() {
            services.retain_by(config.retention.policy());
        }
        let gateway = Gateway::new(services.clone(), tails.clone(), sequencer.clone(), tokens, limits, clock);
        if config.auth.registration == Registration::Closed {
            gateway.close_registration();
        }
        if identity.dev {
            gateway.mark_dev();
        }
        let parts = Arc::new(Parts { journal, written, sequencer, services, tails, gateway });
        status.running(&parts);
        if config.dev && !parts.sequencer.is_read_only() {
            seed::seed(&parts.services).await.map_err(error::from_seed)?;
        }
        let accepting = tokio::spawn(parts.gateway.clone().serve(client_port.listen()?, tls));
        front.readiness.serve(probe::probes(parts.sequencer.clone())).await;
        Ok(Node { config, identity, client_addr, http_addr, parts, front, accepting, lock })
    }
}

/// What is sealed is of this node, or of the one it was restored from: seen before an entry of a new term is written.
async fn refuse_other_segments(config: &Config, identity: &Identity) -> Result<(), StartError> {
    let disk = logstore::io::read_only(&config.data_dir);
    let looking = tokio::task::spawn_blocking(move || sealed_history(&disk));
    let found = looking
        .await
        .map_err(|panic| StartError::new(format!("looking at segments failed: {panic}"), "report this"))?;
    match found {
        Some(found) if Some(found) != identity.restored_from => refuse_other_history(found, identity, &config.data_dir),
        _ => Ok(()),
    }
}

/// Whoever follows a log is told its history: it must be the one that the log says.
fn refuse_other_history(found: HistoryId, identity: &Identity, data_dir: &Path) -> Result<(), StartError> {
    if found == identity.history {
        return Ok(());
    }
    let (file, found, said) = (data_dir.join("node.toml"), found.0, identity.history.0);
    Err(StartError::new(
        format!("{} is of another node: it says history {said:032x}, and the log is of {found:032x}", file.display()),
        "put node.toml back from a copy of this directory",
    ))
}

fn check(config: &Config) -> Result<(), StartError> {
    let wrong = |(key, why)| StartError::new(format!("key {key:?}: {why}"), "correct the configuration");
    config.check().map_err(wrong)
}

impl Front {
    /// Answers `/healthz` at once, `/readyz` with 503 until there are shards to ask.
    fn open(listener: TcpListener, status: Arc<StatusSource>) -> Front {
        let (readiness, stop, metrics) =
            (Arc::new(Readiness::starting()), CancellationToken::new(), http::metrics::install());
        let pages = Pages {
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            status: Arc::new(move |query| status.status(query)),
        };
        let serving = tokio::spawn(http::serve(listener, pages, stop.clone()));
        Front { readiness, stop, serving, upkeep: tokio::spawn(http::metrics::upkeep(metrics)) }
    }

    async fn close(mut self) {
        self.stop.cancel();
        // A scraper that reads slowly does not hold up the end.
        let _ = tokio::time::timeout(Duration::from_secs(1), &mut self.serving).await;
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.serving.abort();
        self.upkeep.abort();
    }
}

/// What `/status` is made from: words at once, figures as soon as there are shards.
struct StatusSource {
    words: Status,
    began: Instant,
    parts: std::sync::OnceLock<std::sync::Weak<Parts>>,
}

impl StatusSource {
    fn new(config: &Config, identity: &Identity, listen: SocketAddr) -> StatusSource {
        let words = Status {
            version: env!("CARGO_PKG_VERSION"),
            node: identity.node.0,
            history: format!("{:032x}", identity.history.0),
            dev: config.dev,
            durability: http::DURABILITY,
            data_dir: config.data_dir.display().to_string(),
            listen: listen.to_string(),
            tls: config.has_tls(),
            connections: 0,
            uptime_seconds: 0,
            written_bytes: Default::default(),
            shards: Vec::new(),
        };
        StatusSource { words, began: Instant::now(), parts: std::sync::OnceLock::new() }
    }

    fn running(&self, parts: &Arc<Parts>) {
        let _ = self.parts.set(Arc::downgrade(parts));
    }

    fn status(&self, query: StatusQuery) -> Status {
        let mut status = self.words.clone();
        status.uptime_seconds = self.began.elapsed().as_secs();
        if let Some(parts) = self.parts.get().and_then(std::sync::Weak::upgrade) {
            status.connections = parts.gateway.connections();
            status.written_bytes = Part::ALL.into_iter().map(|part| (part.name(), parts.written.bytes(part))).collect();
            status.shards = parts.sequencer.shards().iter().map(|shard| figures(shard, query).into()).collect();
        }
        status
    }
}

fn figures(shard: &Shard, query: StatusQuery) -> sequencer::ShardStatus {
    if !query.digest {
        return shard.status();
    }
    shard.status_with_digest().unwrap_or_else(|error| {
        tracing::error!(%error, "a shard is told without its digest");
        shard.status()
    })
}

/// Demo accounts have published passwords: a directory that holds them never serves in earnest, nor the other way round.
fn refuse_other_mode(config: &Config, identity: &Identity) -> Result<(), StartError> {
    let dir = config.data_dir.display();
    match (config.dev, identity.dev) {
        (false, true) => Err(StartError::new(
            format!("data directory {dir} was made by --dev: it holds keys and accounts with published passwords"),
            "use another data_dir, or start with --dev",
        )),
        (true, false) => Err(StartError::new(
            format!("data directory {dir} was not made by --dev, which would add accounts with published passwords"),
            "use another --data-dir, or start with --config",
        )),
        _ => Ok(()),
    }
}

fn sequencer_options(config: &Config, identity: &Identity) -> SequencerOptions {
    let of = &config.sequencer;
    SequencerOptions {
        node: identity.node,
        shards: config.shards,
        history: identity.history,
        entry_bytes_max: of.entry_bytes_max.bytes(),
        entries_in_flight: of.entries_in_flight,
        queue_commands_max: of.queue_commands_max,
        queue_bytes_max: of.queue_bytes_max.bytes(),
        tail_bytes: of.tail_bytes.bytes(),
        seal_bytes: of.seal_bytes.0,
        seal_age: of.seal_age.0,
        unsealed_bytes_max: of.unsealed_bytes_max.0,
        seal_bytes_per_second: of.seal_bytes_per_second.0,
        keeps_sealed: config.journal.keep_for_backups,
        merge_inputs: of.merge_inputs,
        drop_within: of.drop_within.0,
        row_cache_bytes: of.row_cache_bytes.0,
        block_cache_bytes: of.block_cache_bytes.0,
    }
}

/// The configuration's part, and what only a running process has: chance, and threads for files to be prepared on.
fn journal_options(config: &Config) -> JournalOptions {
    let runtime = tokio::runtime::Handle::current();
    JournalOptions {
        salt_seed: rand::random(),
        executor: Executor::new(move |job| drop(runtime.spawn_blocking(job))),
        ..config.journal_options()
    }
}

/// Recovers the journal, off the async workers: it reads everything that is not sealed.
async fn open_journal(config: &Config, written: Arc<Written>) -> Result<Journal, StartError> {
    let (root, options) = (config.data_dir.clone(), journal_options(config));
    let opening = tokio::task::spawn_blocking(move || {
        let disk = logstore::io::counted(logstore::io::real(&root), written);
        Journal::open(disk, options, Box::new(stop_process))
    });
    let opened = opening
        .await
        .map_err(|panic| StartError::new(format!("opening the journal failed: {panic}"), "report this"))?;
    opened.map_err(|error| error::from_logstore(error, &config.data_dir))
}

/// A failed sync is final: what the kernel has dropped cannot be synced again, so no later success would mean anything.
fn stop_process(error: &logstore::Error) {
    tracing::error!(%error, "the disk failed a write or sync; this node stops now, nothing unacknowledged is claimed");
    eprintln!("skein: the disk failed a write or sync ({error}); stopped; check the disk, then start again");
    std::process::exit(EXIT_DISK_FAILED);
}
