//! What can go wrong between a client and its server.

use std::time::Duration;

use fanout::Code;

use crate::wire::proto;

/// Why a request has no answer. Cheap to clone: everyone who waits on a connection that ends gets one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The server answered with a typed error.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No connection could be made.
    #[error("cannot reach {server}: {reason}")]
    Unreachable {
        /// Where to.
        server: String,
        /// What the system said.
        reason: String,
    },
    /// There is no TLS with this server that both sides agree to.
    #[error("no TLS with {server}: {why}")]
    Tls {
        /// Where to.
        server: String,
        /// Why not.
        why: TlsProblem,
    },
    /// The server speaks TLS, and this side does not.
    #[error("the server speaks TLS")]
    SpeaksTls,
    /// The connection ended; whether the request was carried out is unknown.
    #[error("the connection ended: {reason}")]
    Closed {
        /// Why, as far as it is known.
        reason: String,
    },
    /// The server said something that the protocol does not allow.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// No answer in time; whether the request was carried out is unknown.
    #[error("no answer within {} s", .after.as_secs_f64())]
    Timeout {
        /// How long was waited.
        after: Duration,
    },
    /// The request does not fit into a frame; nothing was sent.
    #[error("a request of {bytes} bytes does not fit into a frame of {limit}")]
    TooLarge {
        /// Of the whole frame.
        bytes: usize,
        /// What the server accepts.
        limit: usize,
    },
}

impl Error {
    /// The typed code, if the server refused.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Refused(refusal) => refusal.code(),
            _ => None,
        }
    }

    /// Whether the same request on another connection may be answered.
    pub fn is_connection_lost(&self) -> bool {
        matches!(self, Error::Unreachable { .. } | Error::Closed { .. } | Error::Timeout { .. })
    }
}

/// Why there is no TLS with a server that can be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsProblem {
    /// It answers in something else.
    #[error("it does not speak TLS")]
    NotSpoken,
    /// It shows a certificate that this side does not trust.
    #[error("its certificate is not trusted: {0}")]
    NotTrusted(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// A typed error of the server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", self.name())]
pub struct Refusal {
    /// On the wire; may be newer than [`Code`] knows.
    pub number: u32,
    /// For people.
    pub message: String,
    /// When trying again makes sense; zero: not as it is.
    pub retry_after: Duration,
}

impl Refusal {
    /// The code, if this side knows it.
    pub fn code(&self) -> Option<Code> {
        Code::from_number(self.number)
    }

    /// Its name in documents.
    pub fn name(&self) -> &'static str {
        self.code().map_or("error", Code::name)
    }

    /// Whether the refusal is of the moment: the message may be sent again, under the same id, in a new epoch.
    pub fn is_of_the_moment(&self) -> bool {
        (400..500).contains(&self.number) || !self.retry_after.is_zero()
    }
}

impl From<proto::Error> for Refusal {
    fn from(error: proto::Error) -> Refusal {
        Refusal { number: error.code, message: error.message, retry_after: Duration::from_millis(error.retry_after_ms) }
    }
}
