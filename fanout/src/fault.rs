//! What a request can be answered with instead of what it asked for.

use std::time::Duration;

macro_rules! codes {
    ($($(#[$doc:meta])* $item:ident = $value:literal, $text:literal;)*) => {
        /// A stable number for a client to act on. Never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        #[non_exhaustive]
        pub enum Code { $($(#[$doc])* $item = $value,)* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$item,)*];

            /// The code with this number.
            pub fn from_number(number: u32) -> Option<Code> {
                match number { $($value => Some(Code::$item),)* _ => None }
            }

            /// Its number on the wire.
            pub fn number(self) -> u32 {
                self as u32
            }

            /// Its name in documents and logs.
            pub fn name(self) -> &'static str {
                match self { $(Code::$item => $text,)* }
            }
        }
    };
}

codes! {
    // 1xx: the frame or body is not what the protocol says.
    /// No such operation.
    UnknownOperation = 100, "unknown_operation";
    /// The body does not parse.
    BadBody = 101, "bad_body";
    /// A field has a value that is never right.
    BadField = 102, "bad_field";
    /// The protocol version is not spoken here.
    BadVersion = 103, "bad_version";
    /// Framing is broken; the connection closes.
    BadFrame = 104, "bad_frame";
    /// The operation needs a `hello` first, or came twice.
    BadState = 105, "bad_state";
    // 2xx: who you are.
    /// No token, or one that is not ours, expired, or forged.
    Unauthenticated = 200, "unauthenticated";
    /// Wrong name or password.
    BadCredentials = 201, "bad_credentials";
    /// The token's role does not allow this.
    Forbidden = 202, "forbidden";
    /// The session is over: sign in again.
    SessionOver = 203, "session_over";
    // 3xx: what you ask for.
    /// No such account.
    NoSuchUser = 300, "no_such_user";
    /// No such conversation, or not yours to see.
    NoSuchConversation = 301, "no_such_conversation";
    /// You are not a member.
    NotMember = 302, "not_member";
    /// You may not do this here.
    NotAllowed = 303, "not_allowed";
    /// The name is taken.
    NameTaken = 304, "name_taken";
    /// The name is empty, too long, or has characters names cannot have.
    BadName = 305, "bad_name";
    /// The password is too short or too long.
    BadPassword = 306, "bad_password";
    /// The text is too long.
    TooLong = 307, "too_long";
    /// Text that is not UTF-8.
    NotUtf8 = 308, "not_utf8";
    /// More items than one request may have.
    TooMany = 309, "too_many";
    /// A range that is reversed or absurd.
    BadRange = 310, "bad_range";
    /// The cursor is ahead of the head.
    CursorAhead = 311, "cursor_ahead";
    /// The same client_msg_id with another body.
    IdempotencyConflict = 312, "idempotency_conflict";
    /// The client_msg_id's time is ahead of the server's: correct the clock from `hello`.
    ClockSkew = 313, "clock_skew";
    /// The client_msg_id is too old to be told apart from others.
    Expired = 314, "expired";
    /// A table is at its limit.
    LimitReached = 315, "limit_reached";
    /// The conversation is being imported: it is there when all of it is.
    Importing = 316, "importing";
    /// The conversation has records: nothing is imported into it.
    NotEmpty = 317, "not_empty";
    // 4xx: not now.
    /// A queue is full: try again after `retry_after_ms`.
    Busy = 400, "busy";
    /// An earlier message of the same pipeline was not taken: send again in order with a higher epoch.
    PredecessorFailed = 401, "predecessor_failed";
    /// Too many requests.
    RateLimited = 402, "rate_limited";
    /// The disk has no room that is certain; reads go on.
    NoSpace = 403, "no_space";
    /// The server is stopping: reconnect.
    Draining = 404, "draining";
    /// The shard did not answer in time; the outcome is unknown: retry under the same id.
    Timeout = 405, "timeout";
    /// The log here is damaged: the node serves what is sound of it, and takes nothing new.
    ReadOnly = 406, "read_only";
    /// Something of ours failed.
    Internal = 500, "internal";
    /// What is asked for lies in a part of the log that is damaged; the rest is served.
    Damaged = 501, "damaged";
}

/// A typed refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct Fault {
    /// For programs.
    pub code: Code,
    /// For people.
    pub message: String,
    /// When trying again makes sense; zero: not as it is.
    pub retry_after: Duration,
}

impl Fault {
    /// A refusal that repeating does not change.
    pub fn new(code: Code, message: impl Into<String>) -> Fault {
        Fault { code, message: message.into(), retry_after: Duration::ZERO }
    }

    /// A refusal of the moment.
    pub fn later(code: Code, message: impl Into<String>, retry_after: Duration) -> Fault {
        Fault { code, message: message.into(), retry_after }
    }
}
