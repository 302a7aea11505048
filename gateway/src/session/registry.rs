//! The connections of a gateway, found by id without a hash.
//!
//! ```text
//!   63                              20 19            0
//!  +----------------------------------+---------------+
//!  | serial: random start, counted up | place in slab |
//!  +----------------------------------+---------------+
//! ```
//!
//! What always holds: an id is never given twice, so a late delivery to a connection that is gone finds nobody, even if
//! its place has been taken again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use logstore::id::{ConnectionId, UserId};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::connection::Connection;

const PLACE_BITS: u32 = 20;
/// No gateway can have more connections than there are places.
const PLACES_MAX: usize = 1 << PLACE_BITS;

/// Every connection, and who is signed in on which.
pub struct Registry {
    slab: RwLock<Slab>,
    users: Mutex<HashMap<UserId, Vec<ConnectionId>>>,
    serial: AtomicU64,
    connections_max: usize,
}

/// Connections by place.
#[derive(Default)]
pub struct Slab {
    places: Vec<Option<Arc<Connection>>>,
    free: Vec<u32>,
}

impl Slab {
    /// The connection with this id, while it is here.
    pub fn get(&self, id: ConnectionId) -> Option<&Arc<Connection>> {
        let place = (id.0 & (PLACES_MAX as u64 - 1)) as usize;
        self.places.get(place)?.as_ref().filter(|connection| connection.id() == id)
    }

    fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

impl Registry {
    /// An empty registry. `serial_start` should be random.
    pub fn new(connections_max: u64, serial_start: u64) -> Registry {
        // 2^43 leaves as many serials to count through, and 0 is no connection.
        let serial = AtomicU64::new(serial_start % (1 << 43) + 1);
        let connections_max = (connections_max as usize).min(PLACES_MAX);
        Registry { slab: RwLock::default(), users: Mutex::default(), serial, connections_max }
    }

    /// Enters a new connection; `None` if there are as many as there may be.
    pub fn enter(&self) -> Option<Arc<Connection>> {
        let mut slab = self.slab.write();
        if slab.len() >= self.connections_max {
            return None;
        }
        let place = slab.free.pop().unwrap_or_else(|| {
            slab.places.push(None);
            slab.places.len() as u32 - 1
        });
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::new(ConnectionId(serial << PLACE_BITS | u64::from(place))));
        slab.places[place as usize] = Some(Arc::clone(&connection));
        Some(connection)
    }

    /// A user has signed in on a connection; returns what the limit makes give way to it.
    pub fn sign_in(&self, user: UserId, connection: ConnectionId, user_connections_max: u64) -> Option<ConnectionId> {
        let mut users = self.users.lock();
        let connections = users.entry(user).or_default();
        connections.push(connection);
        (connections.len() as u64 > user_connections_max.max(1)).then(|| connections.remove(0))
    }

    /// A connection has ended.
    pub fn remove(&self, connection: ConnectionId, user: Option<UserId>) {
        if let Some(user) = user {
            self.sign_out(user, connection);
        }
        let mut slab = self.slab.write();
        if slab.get(connection).is_some() {
            let place = (connection.0 & (PLACES_MAX as u64 - 1)) as u32;
            slab.places[place as usize] = None;
            slab.free.push(place);
        }
    }

    fn sign_out(&self, user: UserId, connection: ConnectionId) {
        let mut users = self.users.lock();
        if let Some(connections) = users.get_mut(&user) {
            connections.retain(|id| *id != connection);
            if connections.is_empty() {
                users.remove(&user);
            }
        }
    }

    /// The connections, to be looked up; nobody can come or go meanwhile.
    pub fn read(&self) -> RwLockReadGuard<'_, Slab> {
        self.slab.read()
    }

    /// The connection with this id.
    pub fn get(&self, id: ConnectionId) -> Option<Arc<Connection>> {
        self.slab.read().get(id).cloned()
    }

    /// Every connection now.
    pub fn all(&self) -> Vec<Arc<Connection>> {
        self.slab.read().places.iter().flatten().cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slab.read().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_connection_that_is_gone_finds_nobody_even_when_its_place_is_taken() {
        let registry = Registry::new(2, 7);
        let first = registry.enter().unwrap().id();
        registry.remove(first, None);
        let second = registry.enter().unwrap().id();
        assert_eq!(first.0 & 0xfffff, second.0 & 0xfffff);
        assert!(registry.get(first).is_none());
        assert_eq!(registry.get(second).unwrap().id(), second);
        registry.remove(first, None);
        assert_eq!(registry.len(), 1);
    }

    #[test]
    fn a_full_registry_takes_nobody_until_one_goes() {
        let registry = Registry::new(2, u64::MAX);
        let first = registry.enter().unwrap().id();
        registry.enter().unwrap();
        assert!(registry.enter().is_none());
        registry.remove(first, None);
        assert!(registry.enter().is_some());
    }

    #[test]
    fn the_oldest_connection_of_a_user_gives_way() {
        let registry = Registry::new(9, 0);
        let ids: Vec<_> = (0..3).map(|_| registry.enter().unwrap().id()).collect();
        assert_eq!(registry.sign_in(UserId(1), ids[0], 2), None);
        assert_eq!(registry.sign_in(UserId(1), ids[1], 2), None);
        assert_eq!(registry.sign_in(UserId(2), ids[0], 2), None);
        assert_eq!(registry.sign_in(UserId(1), ids[2], 2), Some(ids[0]));
        registry.remove(ids[1], Some(UserId(1)));
        assert_eq!(registry.sign_in(UserId(1), ids[1], 2), None);
    }
}
