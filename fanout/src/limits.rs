//! The one table of limits: name, default, unit, what happens at the limit.

macro_rules! limits {
    ($($(#[$doc:meta])* $item:ident: $default:literal, $unit:literal, $at_limit:literal;)*) => {
        /// Every limit a node enforces, from configuration.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits { $($(#[$doc])* pub $item: u64,)* }

        impl Default for Limits {
            fn default() -> Limits {
                Limits { $($item: $default,)* }
            }
        }

        impl Limits {
            /// The table, for documents and `skein config print`.
            pub const TABLE: &'static [Limit] = &[$(Limit {
                name: stringify!($item), default: $default, unit: $unit, at_limit: $at_limit,
            },)*];

            /// Sets a limit by name; `false` if there is none of that name.
            pub fn set(&mut self, name: &str, value: u64) -> bool {
                match name { $(stringify!($item) => { self.$item = value; true })* _ => false }
            }

            /// A limit by name.
            pub fn get(&self, name: &str) -> Option<u64> {
                match name { $(stringify!($item) => Some(self.$item),)* _ => None }
            }
        }
    };
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its key in the configuration's `[limits]`.
    pub name: &'static str,
    /// Used when the configuration does not say.
    pub default: u64,
    /// What it counts.
    pub unit: &'static str,
    /// What happens there.
    pub at_limit: &'static str,
}

limits! {
    /// Largest frame a client may send.
    frame_bytes: 65536, "bytes", "the connection closes with bad_frame";
    /// Longest text of a message.
    text_bytes: 16384, "bytes", "too_long";
    /// Messages in one send.
    batch_messages: 256, "messages", "too_many";
    /// Longest account name.
    name_bytes: 64, "bytes", "bad_name";
    /// Shortest password.
    password_bytes_min: 8, "bytes", "bad_password";
    /// Longest password.
    password_bytes: 1024, "bytes", "bad_password";
    /// Longest group name.
    title_bytes: 128, "bytes", "too_long";
    /// Users named in one group change.
    change_users: 1000, "users", "too_many";
    /// Members of a group.
    group_members: 10000, "members", "limit_reached";
    /// Records in one page of history.
    history_records: 500, "records", "the page ends there and says where the next begins";
    /// Widest range one history request may name.
    history_span: 10000000, "records", "bad_range";
    /// Conversations in one page of the list.
    list_conversations: 200, "conversations", "the page ends there and says where the next begins";
    /// Cursors in one delivered or read request.
    cursor_moves: 1000, "cursors", "too_many";
    /// Names or ids in one look-up.
    find_users: 500, "users", "too_many";
    /// Newest records of a conversation sent at attach; the client reads older ones when it wants them.
    attach_records: 200, "records", "older ones are left to history";
    /// Connections of one user.
    user_connections: 64, "connections", "the oldest closes";
    /// Connections of the node.
    connections: 100000, "connections", "new ones are refused with busy";
    /// Bytes queued for one connection; beyond, it is caught up from the log instead.
    outbound_bytes: 1048576, "bytes", "pushes stop; the connection is caught up from the log";
    /// Seconds a connection may make no progress reading what is queued for it.
    stalled_seconds: 60, "seconds", "the connection closes";
    /// Seconds between connect and hello or a first request.
    handshake_seconds: 10, "seconds", "the connection closes";
    /// Seconds a connection may be silent.
    idle_seconds: 90, "seconds", "the connection closes";
    /// Requests of one connection in progress.
    requests_in_flight: 1024, "requests", "reading from the connection pauses";
    /// Password hashes waiting for the pool.
    password_queue: 64, "requests", "busy";
    /// Bytes of records held for one connection, over all shards, between announcements and their answers.
    attach_hold_bytes: 1048576, "bytes", "the shard whose records do not fit is announced again";
}
