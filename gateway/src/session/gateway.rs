//! The access layer of a node: every client connection, and what serves them.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use fanout::Limits;
use fanout::service::Services;
use fanout::tail::{Delivery, GatewayId, TailSink, Tails};
use logstore::id::{ConnectionId, HistoryId, LogIndex, ShardId, TimeMs};
use parking_lot::Mutex;
use sequencer::{Clock, CursorMoved, Sequencer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::deliver::{Scratch, give_receipts};
use super::exports::Exports;
use super::figures::Figures;
use super::registry::Registry;
use super::tokens::Tokens;
use crate::connection::feed::Then;
use crate::connection::{Connection, SignedIn, catch_up, drive};
use crate::transport;
use crate::wire::{convert, proto};

/// Clients of a node that stops come back spread over this long.
const RECONNECT_WITHIN_MS: u64 = 2000;
/// How often a drain looks whether everything has ended.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// Every client connection of a node, and what serves them.
pub struct Gateway {
    id: GatewayId,
    services: Arc<Services>,
    tails: Arc<Tails>,
    sequencer: Arc<Sequencer>,
    tokens: Arc<dyn Tokens>,
    limits: Arc<Limits>,
    clock: Arc<dyn Clock>,
    shards: Arc<[ShardId]>,
    /// One a shard: its deliveries come one at a time.
    scratch: Box<[Mutex<Scratch>]>,
    pub(super) registry: Registry,
    pub(super) figures: Figures,
    registration_closed: AtomicBool,
    dev: AtomicBool,
    exports: Arc<Exports>,
    stopping: CancellationToken,
    runtime: Handle,
    me: Weak<Gateway>,
}

impl Gateway {
    /// A gateway over a node's services, known to its tails from now on. To be called inside the runtime that is to serve,
    /// after the recorder of metrics is installed.
    pub fn new(
        services: Arc<Services>,
        tails: Arc<Tails>,
        sequencer: Arc<Sequencer>,
        tokens: Arc<dyn Tokens>,
        limits: Arc<Limits>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Gateway> {
        let shards: Arc<[ShardId]> = sequencer.shards().iter().map(|shard| shard.id()).collect();
        let gateway = Arc::new_cyclic(|me| Gateway {
            id: GatewayId(rand::random()),
            scratch: shards.iter().map(|_| Mutex::default()).collect(),
            registry: Registry::new(limits.connections, rand::random()),
            figures: Figures::new(),
            registration_closed: AtomicBool::new(false),
            dev: AtomicBool::new(false),
            exports: Arc::default(),
            stopping: CancellationToken::new(),
            runtime: Handle::current(),
            me: me.clone(),
            services,
            tails,
            sequencer,
            tokens,
            limits,
            clock,
            shards,
        });
        gateway.tails.register(gateway.id, gateway.clone());
        gateway
    }

    /// From now on only administrators make accounts.
    pub fn close_registration(&self) {
        self.registration_closed.store(true, Ordering::Relaxed);
    }

    /// The data directory was made by `--dev`: so is what is exported of it.
    pub fn mark_dev(&self) {
        self.dev.store(true, Ordering::Relaxed);
    }

    /// Whether `--dev` made the data directory.
    pub(crate) fn is_dev(&self) -> bool {
        self.dev.load(Ordering::Relaxed)
    }

    /// The exports being read.
    pub(crate) fn exports(&self) -> &Arc<Exports> {
        &self.exports
    }

    /// Accepts connections until [`Gateway::drain`].
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>) {
        let stopping = self.stopping.clone();
        transport::accept(self, listener, tls, stopping).await;
    }

    /// Stops accepting, tells every connection to go, waits for what is in flight (at most `limit`), closes.
    pub async fn drain(&self, limit: Duration) {
        self.stopping.cancel();
        for connection in self.registry.all() {
            connection.drain(&proto::Drain {
                reconnect_after_ms: rand::random_range(0..RECONNECT_WITHIN_MS),
                alternatives: Vec::new(),
                reason: "this node is stopping".into(),
            });
        }
        let deadline = tokio::time::Instant::now() + limit;
        let answered = || self.registry.all().iter().all(|connection| connection.requests() == 0);
        wait_until(deadline, answered).await;
        self.registry.all().iter().for_each(|connection| connection.close(None));
        wait_until(deadline, || self.registry.len() == 0).await;
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.registry.len()
    }
}

async fn wait_until(deadline: tokio::time::Instant, done: impl Fn() -> bool) {
    while !done() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}

/// What connections and operations ask of their gateway.
impl Gateway {
    pub(crate) fn id(&self) -> GatewayId {
        self.id
    }

    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    pub(crate) fn tails(&self) -> &Tails {
        &self.tails
    }

    pub(crate) fn sequencer(&self) -> &Sequencer {
        &self.sequencer
    }

    pub(crate) fn tokens(&self) -> &dyn Tokens {
        &*self.tokens
    }

    pub(crate) fn registration_closed(&self) -> bool {
        self.registration_closed.load(Ordering::Relaxed)
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn figures(&self) -> &Figures {
        &self.figures
    }

    pub(crate) fn now(&self) -> TimeMs {
        self.clock.now()
    }

    pub(crate) fn history(&self) -> HistoryId {
        self.sequencer.history()
    }

    /// The shards, in the order of their slots.
    pub(crate) fn shards(&self) -> Arc<[ShardId]> {
        Arc::clone(&self.shards)
    }

    /// The position of a shard by its number on the wire.
    pub(crate) fn slot(&self, number: u32) -> Option<usize> {
        self.shards.binary_search_by_key(&number, |shard| convert::slot(*shard)).ok()
    }

    /// Enters a connection; `None` if the node has as many as it may.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Entered> {
        let connection = self.registry.enter()?;
        self.figures.connections.set(self.registry.len() as f64);
        Some(Entered { gateway: Arc::clone(self), connection })
    }

    /// A connection acts for a user from now on.
    pub(crate) fn join(&self, connection: &Connection, who: SignedIn) {
        connection.sign_in(who);
        let Some(oldest) = self.registry.sign_in(who.user, connection.id(), self.limits.user_connections) else {
            return;
        };
        if let Some(oldest) = self.registry.get(oldest) {
            let what = format!("another connection was opened, and {} is the limit", self.limits.user_connections);
            oldest.close(Some(&fanout::Fault::new(fanout::Code::LimitReached, what)));
        }
    }

    /// Brings an attached connection to where its shards are.
    pub(crate) fn catch_up(&self, connection: &Arc<Connection>) {
        if let Some(gateway) = self.me.upgrade() {
            self.runtime.spawn(catch_up::run(gateway, Arc::clone(connection)));
        }
    }

    /// A connection has ended: nobody finds it any more, and nothing is announced for it.
    fn leave(&self, connection: &Arc<Connection>) {
        connection.close(None);
        let who = connection.who();
        self.registry.remove(connection.id(), who.map(|who| who.user));
        self.figures.connections.set(self.registry.len() as f64);
        if who.is_some() {
            self.sequencer.forget_connection(connection.id());
        }
        if let Some(SignedIn { user, attached: true, .. }) = who {
            let (gateway, tails, connection) = (self.id, Arc::clone(&self.tails), Arc::clone(connection));
            self.runtime.spawn(async move {
                // A late announcement would outlive its connection.
                let _no_round = connection.rounds().await;
                tails.detach(gateway, connection.id(), user);
            });
        }
    }
}

/// A connection in the registry. However its task ends, it is taken out.
pub(crate) struct Entered {
    gateway: Arc<Gateway>,
    connection: Arc<Connection>,
}

impl Entered {
    pub(crate) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Serves a socket until it closes.
    pub(crate) async fn run<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S) {
        drive(stream, Arc::clone(&self.gateway), Arc::clone(&self.connection)).await;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.gateway.leave(&self.connection);
    }
}

impl TailSink for Gateway {
    fn deliver(&self, delivery: Delivery) {
        let Some(slot) = self.slot(convert::slot(delivery.shard)) else { return };
        let mut scratch = self.scratch[slot].lock();
        scratch.load(&delivery);
        scratch.give(self, slot, delivery.batch.applied.index);
        scratch.rest();
        drop(scratch);
        if !delivery.receipts.is_empty() {
            give_receipts(self, &delivery.receipts, &delivery.connections);
        }
    }

    fn reset(&self, shard: ShardId, floor: LogIndex) {
        let Some(slot) = self.slot(convert::slot(shard)) else { return };
        tracing::debug!(%shard, %floor, "the connections of a shard announce anew");
        for connection in self.registry.all() {
            let then = connection.update(|shared| shared.feed.as_mut().map(|feed| feed.reset(slot))).flatten();
            if then == Some(Then::CatchUp) {
                self.catch_up(&connection);
            }
        }
    }

    fn receipts(&self, _shard: ShardId, receipts: Vec<(CursorMoved, Range<u32>)>, connections: Vec<ConnectionId>) {
        give_receipts(self, &receipts, &connections);
    }
}
