//! What each frame of the server means to the replay, and whether it is what it ought to be.
//!
//! Message i of a conversation must be stored as record `base + 1 + i`, where `base` is the group's creation; every
//! ack, delivery and page of history is held against that.

use std::ops::ControlFlow;
use std::time::Duration;

use gateway::client::Refusal;
use gateway::wire::frame::{FLAG_PUSH, FLAG_RESPONSE, Header};
use gateway::wire::operation::Operation;
use gateway::wire::proto;

use super::player::Chore;
use super::seat::{Came, Taken};
use super::stage::{Stage, StageError};
use crate::bench::wire::{RecordView, decode, each_record, error_of, parse_step};

/// A refusal of the moment that does not say when is tried again after this.
const RETRY: Duration = Duration::from_millis(20);

impl Stage {
    pub(super) fn hear(&mut self, user: u32, header: &Header, body: &[u8]) -> Result<(), StageError> {
        let operation = Operation::from_number(header.operation);
        if header.flags & FLAG_PUSH != 0 {
            return self.hear_push(user, operation, body);
        }
        if header.flags & FLAG_RESPONSE == 0 {
            return Ok(());
        }
        let error = error_of(header, body)?;
        match operation {
            Some(Operation::Send) => self.hear_ack(user, header.request_id, body, error),
            Some(Operation::Hello) => self.hear_welcome(user, body, error),
            Some(Operation::CreateGroup | Operation::History) => self.hear_answer(user, header.request_id, body, error),
            _ => Ok(()),
        }
    }

    fn hear_push(&mut self, user: u32, operation: Option<Operation>, body: &[u8]) -> Result<(), StageError> {
        match operation {
            Some(Operation::Deliver) => self.hear_deliver(user, body),
            Some(Operation::Attached) => self.hear_attached(user, &decode(body)?),
            Some(Operation::CaughtUp) => self.hear_caught_up(user, &decode(body)?),
            Some(Operation::CursorReset) => {
                self.players[user as usize].forget_cursor();
                Ok(())
            }
            Some(Operation::Closing) => {
                let error: proto::Error = decode(body)?;
                self.last_error = error.message;
                Ok(())
            }
            // Receipts, drain, accepted, and what newer servers may push: nothing to do. A drained connection ends.
            _ => Ok(()),
        }
    }

    // ---- deliveries -------------------------------------------------------------------------------

    fn hear_deliver(&mut self, user: u32, body: &[u8]) -> Result<(), StageError> {
        each_record(body, |record| {
            self.hear_record(user, &record, Came::Pushed);
            Ok::<(), StageError>(())
        })?;
        if let Some(step) = parse_step(body, 2)? {
            self.players[user as usize].told(step);
        }
        Ok(())
    }

    /// Takes a record as the user's seat sees it.
    fn hear_record(&mut self, user: u32, record: &RecordView<'_>, came: Came) {
        let Some(&conversation) = self.conversations.get(&record.conversation) else { return };
        let Some(index) = self.index_of(conversation, record) else { return };
        let Some(seat) = self.seat_of(conversation, user) else {
            return self.tally.mismatch(|| format!("user {user} was sent a record of a conversation it is not in"));
        };
        let taken = self.seats[seat as usize].take(&self.chat, index, came);
        match taken {
            Taken::New => {
                self.compare(conversation, index, record, "delivered");
                self.count_delivery(conversation, index, came);
                let run = self.schedule.received(&self.chat, conversation, user, index);
                self.release(conversation, run);
            }
            Taken::Own => {
                self.compare(conversation, index, record, "delivered");
            }
            Taken::Known => {}
            Taken::Ahead => self.fill(user, seat),
            Taken::Hole => {
                self.tally.mismatch(|| {
                    format!(
                        "{}: a hole before seq_id {}",
                        self.chat.conversations[conversation as usize].id, record.seq_id
                    )
                });
                self.fill(user, seat);
            }
            Taken::Repeated => {
                self.tally.mismatch(|| {
                    format!(
                        "{}: seq_id {} pushed twice or backwards",
                        self.chat.conversations[conversation as usize].id, record.seq_id
                    )
                });
            }
        }
    }

    fn count_delivery(&mut self, conversation: u32, index: u32, came: Came) {
        let message = self.chat.conversations[conversation as usize].messages[index as usize] as usize;
        let now_ns = self.begun.elapsed().as_nanos() as u64;
        self.tally.delivered += 1;
        self.moved = self.now;
        match came {
            Came::Pushed => self.tally.send_to_receive.record(now_ns.saturating_sub(self.sent_ns[message])),
            Came::Read => self.tally.filled += 1,
        }
    }

    /// The message a record must be; membership records are none.
    fn index_of(&mut self, conversation: u32, record: &RecordView<'_>) -> Option<u32> {
        let base = self.groups[conversation as usize].base;
        if record.kind >= 128 && record.seq_id <= base {
            return None;
        }
        let index = record.seq_id.checked_sub(base + 1).filter(|&index| index < self.chat.count(conversation).into());
        if record.kind >= 128 || index.is_none() {
            self.tally
                .mismatch(|| format!("a record of kind {} at seq_id {} that nobody sent", record.kind, record.seq_id));
            return None;
        }
        index.map(|index| index as u32)
    }

    fn seat_of(&self, conversation: u32, user: u32) -> Option<u32> {
        let members = &self.chat.conversations[conversation as usize].members;
        let place = members.iter().position(|&member| member == user)?;
        Some(self.first_seat[conversation as usize] + place as u32)
    }

    /// Text, sender and id byte for byte.
    fn compare(&mut self, conversation: u32, index: u32, record: &RecordView<'_>, how: &str) -> bool {
        let message = self.chat.conversations[conversation as usize].messages[index as usize];
        let sender = &self.players[self.chat.messages[message as usize].sender as usize].account;
        let same = record.content == self.chat.text(message).as_bytes()
            && record.sender == sender.user
            && Some(record.client_msg_id) == self.ids[message as usize];
        if !same {
            let id = &self.chat.conversations[conversation as usize].id;
            self.tally.mismatch(|| format!("{id}: message {index} {how} with another text, sender or id"));
        }
        same
    }

    // ---- attach -----------------------------------------------------------------------------------

    fn hear_welcome(&mut self, user: u32, body: &[u8], error: Option<proto::Error>) -> Result<(), StageError> {
        if let Some(error) = error {
            let refusal = judge("hello", error)?;
            self.lose(user, &refusal);
            return Ok(());
        }
        let reply: proto::HelloReply = decode(body)?;
        if self.chat.text_bytes_max() > reply.text_bytes_max as usize {
            let message = format!(
                "texts of the file have up to {} bytes, the server takes {}",
                self.chat.text_bytes_max(),
                reply.text_bytes_max
            );
            return Err(StageError::Refused { what: "hello".into(), number: 0, message });
        }
        self.fresh.set_server_time(reply.server_time_ms);
        self.players[user as usize].welcomed(&reply);
        self.moved = self.now;
        self.touch(user);
        Ok(())
    }

    fn hear_attached(&mut self, user: u32, attached: &proto::Attached) -> Result<(), StageError> {
        for row in &attached.conversations {
            let Some(&conversation) = self.conversations.get(&row.conversation[..]) else { continue };
            let Some(seat) = self.seat_of(conversation, user) else { continue };
            let base = self.groups[conversation as usize].base;
            let messages = row.head_seq.saturating_sub(base).min(self.chat.count(conversation).into());
            self.seats[seat as usize].announced(messages as u32);
            self.players[user as usize].news.push(seat);
        }
        Ok(())
    }

    fn hear_caught_up(&mut self, user: u32, caught_up: &proto::CaughtUp) -> Result<(), StageError> {
        let player = &mut self.players[user as usize];
        if let Some(step) = &caught_up.step {
            player.told((step.slot, step.value));
        }
        if caught_up.all && !player.caught_up {
            player.set_caught_up();
            self.tally.attach(user);
            self.moved = self.now;
            for seat in std::mem::take(&mut self.players[user as usize].news) {
                if self.seats[seat as usize].is_behind(&self.chat) {
                    self.fill(user, seat);
                }
            }
        }
        Ok(())
    }

    /// A new connection may be told again what the last one was.
    pub(super) fn forget_pushes(&mut self, user: u32) {
        for seat in self.seats.iter_mut().filter(|seat| seat.user == user) {
            seat.reconnected();
        }
    }

    fn fill(&mut self, user: u32, seat: u32) {
        let place = &mut self.seats[seat as usize];
        if !place.filling {
            place.filling = true;
            self.ask(user, Chore::Fill(seat));
        }
    }

    // ---- answers ----------------------------------------------------------------------------------

    fn hear_ack(
        &mut self,
        user: u32,
        request_id: u32,
        body: &[u8],
        error: Option<proto::Error>,
    ) -> Result<(), StageError> {
        let Some(messages) = self.players[user as usize].landed(request_id) else { return Ok(()) };
        let mut ack = std::mem::take(&mut self.ack);
        match error {
            Some(error) => {
                let refusal = judge("send", error)?;
                messages.iter().for_each(|&message| self.refuse(user, message, &refusal));
            }
            None => {
                ack.read(body)?;
                self.take_ack(user, &messages, &ack)?;
            }
        }
        self.ack = ack;
        self.moved = self.now;
        let player = &mut self.players[user as usize];
        player.recycle(messages);
        player.resume_if_landed();
        Ok(())
    }

    fn take_ack(&mut self, user: u32, messages: &[u32], ack: &crate::bench::wire::SendAck) -> Result<(), StageError> {
        for refused in &ack.refusals {
            let refusal = judge("send", refused.error.clone().unwrap_or_default())?;
            if let Some(&message) = messages.get(refused.position as usize) {
                self.refuse(user, message, &refusal);
            }
        }
        if ack.seq_ids.len() != messages.len() {
            self.tally.mismatch(|| format!("{} messages answered with {} seq_ids", messages.len(), ack.seq_ids.len()));
        }
        let now_ns = self.begun.elapsed().as_nanos() as u64;
        for (&message, &seq_id) in messages.iter().zip(&ack.seq_ids).filter(|(_, seq_id)| **seq_id != 0) {
            self.take_seq(message, seq_id, now_ns);
        }
        Ok(())
    }

    fn take_seq(&mut self, message: u32, seq_id: u64, now_ns: u64) {
        let told = self.chat.messages[message as usize];
        let expected = self.groups[told.conversation as usize].base + 1 + u64::from(told.index);
        if seq_id != expected {
            let id = &self.chat.conversations[told.conversation as usize].id;
            self.tally
                .mismatch(|| format!("{id}: message {} acknowledged as seq_id {seq_id}, not {expected}", told.index));
        }
        if !std::mem::replace(&mut self.acked[message as usize], true) {
            self.tally.acked += 1;
            self.tally.send_to_durable.record(now_ns.saturating_sub(self.sent_ns[message as usize]));
        }
    }

    fn refuse(&mut self, user: u32, message: u32, refusal: &Refusal) {
        self.tally.refusals += 1;
        self.players[user as usize].refuse(message, self.now + refusal.retry_after.max(RETRY));
    }

    fn hear_answer(
        &mut self,
        user: u32,
        request_id: u32,
        body: &[u8],
        error: Option<proto::Error>,
    ) -> Result<(), StageError> {
        let Some(chore) = self.players[user as usize].done(request_id) else { return Ok(()) };
        self.moved = self.now;
        if let Some(error) = error {
            let refusal = judge(&format!("{chore:?}"), error)?;
            self.players[user as usize].ask_again(chore, self.now + refusal.retry_after.max(RETRY));
            return Ok(());
        }
        match chore {
            Chore::Create(conversation) => self.hear_created(conversation, &decode(body)?),
            Chore::Fill(seat) => self.hear_filled(user, seat, body),
            Chore::ReadBack(conversation, from) => self.hear_read_back(user, conversation, from, body),
        }
    }

    fn hear_created(&mut self, conversation: u32, reply: &proto::GroupReply) -> Result<(), StageError> {
        let group = &mut self.groups[conversation as usize];
        group.id =
            reply.conversation[..].try_into().map_err(|_| std::io::Error::other("a group id that is not 16 bytes"))?;
        group.base = reply.seq_id;
        self.conversations.insert(group.id, conversation);
        Ok(())
    }

    fn hear_filled(&mut self, user: u32, seat: u32, body: &[u8]) -> Result<(), StageError> {
        let before = self.seats[seat as usize].next;
        each_record(body, |record| {
            self.hear_record(user, &record, Came::Read);
            Ok::<(), StageError>(())
        })?;
        let place = &mut self.seats[seat as usize];
        place.filling = false;
        if place.is_behind(&self.chat) {
            let stuck = place.next == before;
            self.fill(user, seat);
            if stuck {
                // What a push or row announced is not readable yet: not at once again.
                self.players[user as usize].pause_until(self.now + RETRY);
            }
        }
        Ok(())
    }

    // ---- reading back -----------------------------------------------------------------------------

    fn hear_read_back(&mut self, user: u32, conversation: u32, from: u64, body: &[u8]) -> Result<(), StageError> {
        let mut next = from;
        each_record(body, |record| {
            if record.seq_id != next || record.conversation != self.groups[conversation as usize].id {
                let id = &self.chat.conversations[conversation as usize].id;
                self.tally.mismatch(|| format!("{id}: history has seq_id {} where {next} belongs", record.seq_id));
            }
            next = record.seq_id + 1;
            if let Some(index) = self.index_of(conversation, &record) {
                let same = self.compare(conversation, index, &record, "stored");
                self.tally.verified += u64::from(same);
            }
            Ok::<(), StageError>(())
        })?;
        match next_page(body)? {
            ControlFlow::Continue(page) if page > from => self.ask(user, Chore::ReadBack(conversation, page)),
            _ => self.finish_read_back(conversation, next),
        }
        Ok(())
    }

    fn finish_read_back(&mut self, conversation: u32, next: u64) {
        let expected = self.groups[conversation as usize].base + 1 + u64::from(self.chat.count(conversation));
        if next != expected {
            let id = &self.chat.conversations[conversation as usize].id;
            self.tally.mismatch(|| format!("{id}: history ends before seq_id {next}, not {expected}"));
        }
        self.tally.conversations_read += 1;
    }
}

/// Where the next page begins, if the answer is not complete.
fn next_page(body: &[u8]) -> Result<ControlFlow<(), u64>, StageError> {
    use crate::bench::wire::{Fields, Value};
    let mut fields = Fields(body);
    let mut next = 0;
    while let Some((field, value)) = fields.next_field()? {
        if let (3, Value::Number(from)) = (field, value) {
            next = from;
        }
    }
    Ok(if next == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(next) })
}

/// A refusal of the moment comes back; any other ends the replay.
fn judge(what: &str, error: proto::Error) -> Result<Refusal, StageError> {
    let refusal = Refusal::from(error);
    if refusal.is_of_the_moment() {
        return Ok(refusal);
    }
    Err(StageError::Refused { what: what.into(), number: refusal.number, message: refusal.message })
}
