//! The life of a connection, without a socket: what may be asked when, and when time ends it.
//!
//! ```text
//!           hello              drain             close
//!    New ───────────▶ Ready ───────────▶ Draining ─────────▶ Closed      (drain and close also from before)
//! ```
//!
//! What always holds: time is an argument; nothing here reads, writes, waits or asks a clock. What other connections
//! and shards have to do with it (attach, deliveries) is in [`super::feed`].

use std::time::{Duration, Instant};

use fanout::{Code, Fault, Limits};
use logstore::id::{TimeMs, UserId};

use crate::session::{Claims, Role};
use crate::wire::operation::Operation;

/// How long a closing connection may take to read what is left for it.
const FAREWELL: Duration = Duration::from_secs(5);
/// Looked at least this often, so that a token's end or a stall is noticed soon after it is due.
const LOOK_AT_LEAST: Duration = Duration::from_secs(30);

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Ready,
    Draining,
    Closed,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The account; 0 before `hello`.
    pub user: UserId,
    /// What the token allows.
    pub role: Role,
}

impl Caller {
    /// Somebody who has not said who he is.
    pub const NOBODY: Caller = Caller { user: UserId(0), role: Role::User };
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Tell the client why, let it read what is left, close.
    Tell(Fault),
    /// There is nobody to tell.
    Silent(&'static str),
}

/// The times a machine keeps to.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    handshake: Duration,
    idle: Duration,
    stalled: Duration,
}

impl Timing {
    /// As the table of limits says.
    pub fn new(limits: &Limits) -> Timing {
        Timing {
            handshake: Duration::from_secs(limits.handshake_seconds),
            idle: Duration::from_secs(limits.idle_seconds),
            stalled: Duration::from_secs(limits.stalled_seconds),
        }
    }

    /// How often a client has to be heard: three may be lost before it is given up.
    pub fn heartbeat(&self) -> Duration {
        self.idle / 3
    }
}

/// One connection's state.
#[derive(Debug)]
pub struct Machine {
    timing: Timing,
    phase: Phase,
    caller: Caller,
    opened: Instant,
    /// The last whole frame. Bytes that never become a frame are silence.
    heard: Option<Instant>,
    /// Since when the client has taken nothing of what is queued for it.
    stalled: Option<Instant>,
    closing: Option<Instant>,
    expires: Option<TimeMs>,
}

impl Machine {
    /// A connection just opened.
    pub fn new(timing: Timing, now: Instant) -> Machine {
        Machine {
            timing,
            phase: Phase::New,
            caller: Caller::NOBODY,
            opened: now,
            heard: None,
            stalled: None,
            closing: None,
            expires: None,
        }
    }

    /// Who speaks.
    pub fn caller(&self) -> Caller {
        self.caller
    }

    /// A whole frame has come.
    pub fn heard(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    /// Whether an operation may be asked for now.
    pub fn admit(&self, operation: Operation) -> Result<(), Fault> {
        use Operation::{Hello, Login, Ping, Refresh, Register};
        match self.phase {
            Phase::Closed => Err(Fault::new(Code::BadState, "the connection is closing")),
            Phase::Draining if operation != Ping => Err(draining()),
            Phase::Ready if operation == Hello => Err(Fault::new(Code::BadState, "this connection has said hello")),
            Phase::New if !matches!(operation, Hello | Ping | Register | Login | Refresh) => {
                Err(Fault::new(Code::Unauthenticated, format!("{} needs a hello first", operation.name())))
            }
            _ if is_push(operation) => Err(Fault::new(Code::UnknownOperation, "only servers push")),
            _ if is_administration(operation) && self.caller.role != Role::Admin => {
                Err(Fault::new(Code::Forbidden, format!("{} needs an administrator's token", operation.name())))
            }
            _ => Ok(()),
        }
    }

    /// `hello` was accepted.
    pub fn greet(&mut self, claims: &Claims) {
        self.phase = Phase::Ready;
        self.caller = Caller { user: claims.user, role: claims.role };
        self.expires = Some(claims.expires);
    }

    /// The node is stopping: nothing new is begun.
    pub fn drain(&mut self) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Draining;
        }
    }

    /// Whether an order to drain is news.
    pub fn begins_draining(&self) -> bool {
        matches!(self.phase, Phase::New | Phase::Ready)
    }

    /// The connection ends as soon as the client has read what is left.
    pub fn close(&mut self, now: Instant) {
        self.phase = Phase::Closed;
        self.closing.get_or_insert(now);
    }

    /// Whether frames are still taken.
    pub fn is_open(&self) -> bool {
        self.phase != Phase::Closed
    }

    /// The client took some of what is queued for it; `left`: it has not taken all.
    pub fn progressed(&mut self, left: bool, now: Instant) {
        self.stalled = left.then_some(now);
    }

    /// Whether something is queued that the client has not taken at once.
    pub fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    /// Something is queued that the client does not take.
    pub fn blocked(&mut self, now: Instant) {
        self.stalled.get_or_insert(now);
    }

    /// When to call [`Machine::elapsed`] next.
    pub fn deadline(&self, now: Instant, time: TimeMs) -> Instant {
        let expiry = self.expires.map(|at| now + Duration::from_millis(at.0.saturating_sub(time.0)));
        let silence = self.silence_ends();
        let stall = self.stalled.map(|since| since + self.timing.stalled);
        let farewell = self.closing.map(|since| since + FAREWELL);
        let soonest = [expiry, Some(silence), stall, farewell].into_iter().flatten().min();
        soonest.map_or(now + LOOK_AT_LEAST, |at| at.clamp(now, now + LOOK_AT_LEAST))
    }

    /// What time has done.
    pub fn elapsed(&self, now: Instant, time: TimeMs) -> Option<End> {
        if let Some(since) = self.closing {
            return (now >= since + FAREWELL).then_some(End::Silent("it did not read its farewell"));
        }
        if self.stalled.is_some_and(|since| now >= since + self.timing.stalled) {
            return Some(End::Silent("it took nothing of what was queued for it"));
        }
        if self.expires.is_some_and(|at| time >= at) {
            return Some(End::Tell(Fault::new(Code::Unauthenticated, "the token has expired")));
        }
        if now >= self.silence_ends() {
            return Some(End::Tell(Fault::new(Code::Timeout, "nothing was heard for too long")));
        }
        None
    }

    fn silence_ends(&self) -> Instant {
        match self.heard {
            Some(at) => at + self.timing.idle,
            None => self.opened + self.timing.handshake,
        }
    }
}

fn draining() -> Fault {
    Fault::later(Code::Draining, "this node is stopping: reconnect", Duration::from_millis(500))
}

fn is_push(operation: Operation) -> bool {
    (200..900).contains(&operation.number())
}

fn is_administration(operation: Operation) -> bool {
    operation.number() >= 900 && operation != Operation::Probe
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: TimeMs = TimeMs(1_800_000_000_000);

    fn machine(now: Instant) -> Machine {
        Machine::new(Timing::new(&Limits::default()), now)
    }

    fn claims(role: Role) -> Claims {
        Claims { user: UserId(7), name: "ada".into(), role, expires: TimeMs(WALL.0 + 3_600_000) }
    }

    fn code(result: Result<(), Fault>) -> Option<Code> {
        result.err().map(|fault| fault.code)
    }

    #[test]
    fn before_hello_only_signing_in_and_ping_are_taken() {
        let machine = machine(Instant::now());
        let open = [Operation::Hello, Operation::Ping, Operation::Register, Operation::Login, Operation::Refresh];
        for &operation in Operation::ALL {
            let expected = (!open.contains(&operation)).then_some(Code::Unauthenticated);
            assert_eq!(code(machine.admit(operation)), expected, "{}", operation.name());
        }
    }

    #[test]
    fn after_hello_everything_but_hello_pushes_and_administration_is_taken() {
        let mut machine = machine(Instant::now());
        machine.greet(&claims(Role::User));
        for &operation in Operation::ALL {
            let expected = match operation.number() {
                1 => Some(Code::BadState),
                200..900 => Some(Code::UnknownOperation),
                904 => None,
                900.. => Some(Code::Forbidden),
                _ => None,
            };
            assert_eq!(code(machine.admit(operation)), expected, "{}", operation.name());
        }
    }

    #[test]
    fn an_administrator_may_do_everything_a_client_can_ask_for() {
        let mut machine = machine(Instant::now());
        machine.greet(&claims(Role::Admin));
        let refused = Operation::ALL.iter().filter(|o| machine.admit(**o).is_err());
        assert!(refused.into_iter().all(|o| *o == Operation::Hello || is_push(*o)));
    }

    #[test]
    fn a_connection_that_says_nothing_ends_after_the_handshake_time() {
        let start = Instant::now();
        let machine = machine(start);
        let due = machine.deadline(start, WALL);
        assert_eq!(due, start + Duration::from_secs(10));
        assert_eq!(machine.elapsed(due - Duration::from_millis(1), WALL), None);
        assert!(matches!(machine.elapsed(due, WALL), Some(End::Tell(fault)) if fault.code == Code::Timeout));
    }

    #[test]
    fn every_frame_puts_off_the_end_by_the_idle_time() {
        let start = Instant::now();
        let mut machine = machine(start);
        let heard = start + Duration::from_secs(9);
        machine.heard(heard);
        assert_eq!(machine.elapsed(heard + Duration::from_secs(89), WALL), None);
        assert!(machine.elapsed(heard + Duration::from_secs(90), WALL).is_some());
    }

    #[test]
    fn a_connection_ends_with_its_token() {
        let start = Instant::now();
        let mut machine = machine(start);
        machine.heard(start);
        machine.greet(&claims(Role::User));
        assert_eq!(machine.elapsed(start, TimeMs(WALL.0 + 3_599_999)), None);
        let end = machine.elapsed(start, TimeMs(WALL.0 + 3_600_000));
        assert!(matches!(end, Some(End::Tell(fault)) if fault.code == Code::Unauthenticated));
        assert_eq!(machine.deadline(start, TimeMs(WALL.0 + 3_599_000)), start + Duration::from_secs(1));
    }

    #[test]
    fn a_client_that_takes_nothing_for_a_minute_is_cut_off() {
        let start = Instant::now();
        let mut machine = machine(start);
        machine.heard(start);
        machine.blocked(start);
        machine.blocked(start + Duration::from_secs(30));
        machine.heard(start + Duration::from_secs(55));
        assert_eq!(machine.elapsed(start + Duration::from_secs(59), WALL), None);
        assert!(matches!(machine.elapsed(start + Duration::from_secs(60), WALL), Some(End::Silent(_))));
        machine.progressed(true, start + Duration::from_secs(59));
        assert_eq!(machine.elapsed(start + Duration::from_secs(60), WALL), None);
        machine.progressed(false, start + Duration::from_secs(60));
        assert_eq!(machine.elapsed(start + Duration::from_secs(125), WALL), None);
    }

    #[test]
    fn a_draining_connection_begins_nothing_new() {
        let mut machine = machine(Instant::now());
        machine.greet(&claims(Role::User));
        machine.drain();
        assert_eq!(code(machine.admit(Operation::Send)), Some(Code::Draining));
        assert_eq!(code(machine.admit(Operation::Ping)), None);
    }

    #[test]
    fn a_closing_connection_has_a_moment_to_read_why() {
        let start = Instant::now();
        let mut machine = machine(start);
        machine.close(start);
        assert!(!machine.is_open());
        assert_eq!(machine.elapsed(start + Duration::from_secs(4), WALL), None);
        assert!(matches!(machine.elapsed(start + FAREWELL, WALL), Some(End::Silent(_))));
    }
}
