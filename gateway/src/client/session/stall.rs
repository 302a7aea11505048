//! How long the server has taken nothing of what is sent, and when that is told or given up.
//!
//! What always holds: one message that is settled, whatever became of it, ends the stall; refusals that only follow from
//! another (an earlier message was not taken) do not name it.

use std::time::Duration;

use fanout::Code;
use tokio::time::Instant;

use crate::client::{Refusal, SendOutcome};

/// Shorter stalls are how a busy server works, and not worth telling.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// Whether sends are getting anywhere.
#[derive(Default)]
pub(super) struct Stall {
    since: Option<Instant>,
    why: Option<Refusal>,
    told: bool,
}

impl Stall {
    /// A batch was answered.
    pub(super) fn answered(&mut self, outcomes: &[SendOutcome], now: Instant) {
        let is_put_off = |outcome: &SendOutcome| matches!(outcome, Err(refusal) if refusal.is_of_the_moment());
        match outcomes.iter().all(is_put_off) {
            false => *self = Stall::default(),
            true => outcomes.iter().for_each(|outcome| self.refused(outcome.as_ref().err(), now)),
        }
    }

    /// A batch was refused as a whole, for the moment.
    pub(super) fn postponed(&mut self, refusal: &Refusal, now: Instant) {
        self.refused(Some(refusal), now);
    }

    /// The connection ended: that is told and given up in its own way.
    pub(super) fn forget(&mut self) {
        *self = Stall::default();
    }

    /// Why nothing is taken, once it is worth telling; once a stall.
    pub(super) fn news(&mut self, now: Instant) -> Option<Refusal> {
        if self.told || !self.lasts(TELL_AFTER, now) {
            return None;
        }
        self.told = true;
        self.why.clone()
    }

    /// Why nothing has been taken for as long as `limit`.
    pub(super) fn too_long(&self, limit: Option<Duration>, now: Instant) -> Option<Refusal> {
        self.why.clone().filter(|_| limit.is_some_and(|limit| self.lasts(limit, now)))
    }

    fn lasts(&self, time: Duration, now: Instant) -> bool {
        self.since.is_some_and(|since| now.duration_since(since) >= time)
    }

    fn refused(&mut self, why: Option<&Refusal>, now: Instant) {
        self.since.get_or_insert(now);
        let names_it = |refusal: &&Refusal| refusal.code() != Some(Code::PredecessorFailed) || self.why.is_none();
        if let Some(refusal) = why.filter(names_it) {
            self.why = Some(refusal.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Stored;
    use logstore::id::{SeqId, ServerMsgId, TimeMs};

    fn refused(code: Code) -> SendOutcome {
        Err(Refusal { number: code.number(), message: "no".into(), retry_after: Duration::from_millis(50) })
    }

    fn taken() -> SendOutcome {
        Ok(Stored { seq_id: SeqId(1), server_msg_id: ServerMsgId(1), time: TimeMs(1), duplicate: false })
    }

    fn code(refusal: Option<Refusal>) -> Option<Code> {
        refusal.and_then(|refusal| refusal.code())
    }

    #[test]
    fn what_lasts_is_told_once_and_given_up_in_the_end_by_its_own_name() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let limit = Some(Duration::from_secs(30));
        let mut stall = Stall::default();
        stall.answered(&[refused(Code::NoSpace), refused(Code::PredecessorFailed)], at(0));
        assert_eq!((code(stall.news(at(0))), code(stall.too_long(limit, at(29)))), (None, None));
        stall.answered(&[refused(Code::PredecessorFailed)], at(1));
        assert_eq!((code(stall.news(at(1))), code(stall.news(at(20)))), (Some(Code::NoSpace), None));
        assert_eq!(
            (code(stall.too_long(limit, at(30))), code(stall.too_long(None, at(90)))),
            (Some(Code::NoSpace), None)
        );
    }

    #[test]
    fn whoever_gets_anywhere_is_not_stalled() {
        let start = Instant::now();
        let later = start + Duration::from_secs(100);
        let limit = Some(Duration::from_secs(30));
        let mut stall = Stall::default();
        stall.answered(&[refused(Code::Busy)], start);
        stall.answered(&[taken(), refused(Code::Busy)], start);
        assert_eq!((code(stall.news(later)), code(stall.too_long(limit, later))), (None, None));
        // A refusal for good is an answer as well.
        stall.answered(&[refused(Code::Busy)], start);
        stall.answered(&[Err(Refusal { retry_after: Duration::ZERO, ..refused(Code::TooLong).unwrap_err() })], start);
        assert_eq!(code(stall.too_long(limit, later)), None);
        stall.postponed(&refused(Code::Draining).unwrap_err(), start);
        stall.forget();
        assert_eq!(code(stall.too_long(limit, later)), None);
    }
}
