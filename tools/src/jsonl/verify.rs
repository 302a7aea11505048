//! Whether lines make sense together: order, contiguity, references, counts, checksum.
//!
//! What always holds: what passes can be imported; the first line that does not is named. Memory is bounded by accounts and
//! conversations, some 60 bytes each, which a node that is to serve them needs many times over.

use std::io::BufRead;

use hashbrown::{HashMap, HashSet};
use logstore::RecordKind;
use logstore::id::{Bucket, ConversationId, ConversationName, ServerMsgId, TimeMs, UserId};
use logstore::segment::BODY_BYTES_MAX;
use sequencer::state::{MEMBERS_MAX, MemberRow, Upkeep};

use super::line::{Account, Conversation, End, FORMAT, Line, Member, Name, Record, Relation, Trimmed};
use super::read::{BadLine, Lines};

/// Far longer than any name that is let in.
const NAME_BYTES_MAX: usize = 1024;

/// What an input holds, if it makes sense.
#[derive(Debug)]
pub struct Verified {
    /// Its counts and checksum.
    pub end: End,
    /// Where records begin.
    pub records_at: u64,
    /// BLAKE3 of the lines before them.
    pub head_hash: blake3::Hash,
    /// The highest time in it.
    pub time: TimeMs,
    /// The highest id of a record.
    pub last_record: ServerMsgId,
    /// The highest id of an account.
    pub last_user: UserId,
    /// Members of each group now.
    pub members: HashMap<ConversationId, u32>,
}

/// Looks at every line; `step` is told of each.
pub fn verify(input: impl BufRead, step: &mut dyn FnMut()) -> Result<Verified, BadLine> {
    let mut lines = Lines::new(input);
    let mut verifier = Verifier::default();
    while let Some(line) = lines.next_line()? {
        step();
        if let Line::End(end) = line {
            return verifier.end(lines, end);
        }
        if matches!(line, Line::Record(_) | Line::Trimmed(_)) && verifier.part < Part::Records {
            (verifier.records_at, verifier.head_hash) = (Some(lines.offset()), Some(lines.hash_before()));
        }
        verifier.line(&line).map_err(|what| lines.bad(what))?;
        verifier.counted.count(&line);
    }
    Err(lines.bad("the end is missing".into()))
}

/// The parts of an input, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    #[default]
    Nothing,
    Header,
    Accounts,
    Names,
    Relations,
    Conversations,
    Records,
}

/// What a conversation's line says of it.
struct Head {
    last_seq: u64,
    last_ordinal: u64,
    last_time_ms: u64,
    is_group: bool,
    members: u32,
}

/// The conversation whose records come.
struct Current {
    key: (Bucket, ConversationId),
    seq: u64,
    ordinal: u64,
    time_ms: u64,
}

#[derive(Default)]
struct Verifier {
    part: Part,
    counted: End,
    records_at: Option<u64>,
    head_hash: Option<blake3::Hash>,
    accounts: HashSet<u64>,
    last_account: u64,
    last_name: Option<String>,
    last_relation: Option<(u64, u64)>,
    heads: HashMap<ConversationId, Head>,
    /// Conversations that have records, and those of which all have come.
    with_records: u64,
    completed: u64,
    conversation: Option<ConversationId>,
    last_member: Option<u64>,
    current: Option<Current>,
    time_ms: u64,
    last_record: u64,
}

type Checked = Result<(), String>;

fn require(is_right: bool, what: impl FnOnce() -> String) -> Checked {
    if is_right { Ok(()) } else { Err(what()) }
}

impl Verifier {
    fn line(&mut self, line: &Line) -> Checked {
        let part = match line {
            Line::Export(_) => Part::Header,
            Line::Account(_) => Part::Accounts,
            Line::Name(_) => Part::Names,
            Line::Relation(_) => Part::Relations,
            Line::Conversation(_) | Line::Member(_) => Part::Conversations,
            Line::Record(_) | Line::Trimmed(_) => Part::Records,
            Line::End(_) => return Ok(()),
        };
        if (self.part == Part::Nothing) != (part == Part::Header) {
            return Err("an export begins with its header, and has one".into());
        }
        require(part >= self.part, || format!("out of order: it belongs before the {:?}", self.part).to_lowercase())?;
        self.part = part;
        match line {
            Line::Export(header) => {
                require(header.format == FORMAT, || format!("format {}: this program knows {FORMAT}", header.format))
            }
            Line::Account(account) => self.account(account),
            Line::Name(name) => self.name(name),
            Line::Relation(relation) => self.relation(relation),
            Line::Conversation(conversation) => self.conversation(conversation),
            Line::Member(member) => self.member(member),
            Line::Record(record) => self.record(record),
            Line::Trimmed(range) => self.trimmed(range),
            Line::End(_) => Ok(()),
        }
    }

    fn account(&mut self, account: &Account) -> Checked {
        let user = account.user.0;
        require((1..ConversationId::ID_LIMIT).contains(&user), || format!("{user} cannot be an account"))?;
        require(user > self.last_account, || format!("account {user} comes after {}", self.last_account))?;
        check_name(&account.name)?;
        let phc = &account.password_phc;
        require(phc.is_empty() || phc.starts_with("$argon2id$"), || "password_phc is not one of argon2id".into())?;
        self.note_time(account.created_ms);
        self.last_account = user;
        self.accounts.insert(user);
        Ok(())
    }

    fn name(&mut self, name: &Name) -> Checked {
        check_name(&name.name)?;
        let follows = self.last_name.as_ref().is_none_or(|last| *last < name.name);
        require(follows, || format!("name {:?} comes after one that sorts behind it", name.name))?;
        self.note_time(name.claimed_ms);
        self.last_name = Some(name.name.clone());
        self.exists(name.user.0)
    }

    fn relation(&mut self, relation: &Relation) -> Checked {
        let key = (relation.user.0, relation.peer.0);
        require(self.last_relation < Some(key), || format!("relation of {} to {} is out of order", key.0, key.1))?;
        self.last_relation = Some(key);
        let is_user = (1..ConversationId::ID_LIMIT).contains(&key.1);
        require(is_user, || format!("{} cannot be an account", key.1))?;
        self.exists(key.0)?;
        if relation.exists { self.exists(key.1) } else { Ok(()) }
    }

    fn conversation(&mut self, line: &Conversation) -> Checked {
        let id = ConversationId(line.conversation.0);
        require(self.conversation < Some(id), || format!("conversation {id} is out of order"))?;
        match (id.name(), &line.direct, &line.group) {
            (Some(ConversationName::Direct(low, high)), Some(direct), None) => {
                require(direct.low <= 3 && direct.high <= 3, || "grants of a 1:1 are 0 to 3".into())?;
                self.exists(low.0)?;
                self.exists(high.0)?;
            }
            (Some(ConversationName::Group(_)), None, Some(group)) => {
                require(group.name.len() <= NAME_BYTES_MAX, || "the group's name is too long".into())?;
                require(line.last_seq > 0, || "a group has a record from its creation on".into())?;
                self.note_time(group.created_ms);
            }
            _ => return Err(format!("{id} is not the id of a 1:1 with its grants, nor of a group with its name")),
        }
        require(line.last_ordinal <= line.last_seq, || "more countable messages than records".into())?;
        require(line.last_seq < u64::MAX, || "no record can follow".into())?;
        if let Some(keep) = &line.upkeep {
            let ascends = keep.recalled.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
            let above = keep.recalled.first().is_none_or(|first| first.0 >= keep.before);
            let within = keep.recalled.last().is_none_or(|last| last.0 <= line.last_seq);
            let fits = keep.before <= line.last_seq + 1 && keep.recalled.len() <= Upkeep::RECALLED_MAX;
            require(ascends && above && within && fits, || "what was removed is not within the conversation".into())?;
            self.note_time(keep.time_ms);
        }
        self.note_time(line.last_time_ms);
        let Conversation { last_seq, last_ordinal, last_time_ms, .. } = *line;
        self.with_records += u64::from(last_seq > 0);
        let is_group = line.group.is_some();
        self.heads.insert(id, Head { last_seq, last_ordinal, last_time_ms, is_group, members: 0 });
        (self.conversation, self.last_member) = (Some(id), None);
        Ok(())
    }

    fn member(&mut self, member: &Member) -> Checked {
        let user = member.user.0;
        let id = self.conversation.ok_or("a member of no conversation")?;
        require(self.last_member < Some(user), || format!("member {user} is out of order"))?;
        self.last_member = Some(user);
        self.exists(user)?;
        let head = self.heads.get_mut(&id).ok_or("a member of no conversation")?;
        if let Some(ConversationName::Direct(low, high)) = id.name() {
            require(user == low.0 || user == high.0, || format!("{user} is none of the two of this 1:1"))?;
        }
        check_intervals(member, head)?;
        let within = member.delivered <= head.last_seq && member.read <= head.last_seq;
        let ordinals = [member.read_ordinal, member.join_ordinal, member.left_ordinal];
        let within = within && ordinals.iter().all(|ordinal| *ordinal <= head.last_ordinal);
        require(within, || "a cursor is ahead of the conversation".into())?;
        head.members += u32::from(member.is_active());
        require(head.members as usize <= MEMBERS_MAX, || format!("more than {MEMBERS_MAX} members"))?;
        self.note_time(member.left_ms);
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Checked {
        let kind = RecordKind(record.kind);
        let before = record.ordinal.checked_sub(u64::from(kind.is_countable()));
        let before = before.ok_or("a countable message has an ordinal above 0")?;
        let id = ConversationId(record.conversation.0);
        self.follows(id, (record.seq, record.seq), (before, record.ordinal), record.time_ms)?;
        let sealed = record.clone().sealed(sequencer::founding::CONTENT_INDEX)?;
        require(sealed.body.len() <= BODY_BYTES_MAX, || format!("a body of more than {BODY_BYTES_MAX} bytes"))?;
        if record.sender.0 != 0 {
            self.exists(record.sender.0)?;
        }
        self.last_record = self.last_record.max(record.server_msg_id.0);
        Ok(())
    }

    fn trimmed(&mut self, range: &Trimmed) -> Checked {
        require(range.first <= range.last && range.ordinal_before <= range.ordinal, || "an empty range".into())?;
        let id = ConversationId(range.conversation.0);
        self.follows(id, (range.first, range.last), (range.ordinal_before, range.ordinal), range.time_ms)
    }

    /// The records from the first to the last come next.
    fn follows(&mut self, id: ConversationId, seqs: (u64, u64), ordinals: (u64, u64), time_ms: u64) -> Checked {
        let key = (id.bucket(), id);
        if self.current.as_ref().is_none_or(|current| current.key != key) {
            require(self.current.as_ref().is_none_or(|current| current.key < key), || {
                format!("records of conversation {id} are out of order")
            })?;
            self.complete()?;
            self.current = Some(Current { key, seq: 0, ordinal: 0, time_ms: 0 });
        }
        let head = self.heads.get(&id).ok_or_else(|| format!("conversation {id} is not in this export"))?;
        let current = self.current.as_mut().expect("there is one now");
        require(seqs.0 == current.seq + 1, || format!("seq {} where {} belongs", seqs.0, current.seq + 1))?;
        require(seqs.1 <= head.last_seq, || {
            format!("seq {} above the conversation's last, {}", seqs.1, head.last_seq)
        })?;
        let counted = ordinals.0 == current.ordinal;
        require(counted, || format!("{} countable messages before it where {} were", ordinals.0, current.ordinal))?;
        require(time_ms >= current.time_ms, || "its time is before that of the record before".into())?;
        (current.seq, current.ordinal, current.time_ms) = (seqs.1, ordinals.1, time_ms);
        self.note_time(time_ms);
        Ok(())
    }

    /// No more records of the current conversation come.
    fn complete(&mut self) -> Checked {
        let Some(Current { key: (_, id), seq, ordinal, time_ms }) = self.current.take() else { return Ok(()) };
        let head = self.heads.get(&id).ok_or_else(|| format!("conversation {id} is not in this export"))?;
        let is_whole = (head.last_seq, head.last_ordinal, head.last_time_ms) == (seq, ordinal, time_ms);
        require(is_whole, || {
            format!("conversation {id} ends at record {seq} before this line, not at {}", head.last_seq)
        })?;
        self.completed += 1;
        Ok(())
    }

    fn end<R: BufRead>(mut self, mut lines: Lines<R>, end: End) -> Result<Verified, BadLine> {
        let hash = lines.hash_before();
        let checked = || -> Checked {
            require(self.part > Part::Nothing, || "an export begins with its header".into())?;
            self.complete()?;
            let missing = self.with_records - self.completed;
            require(missing == 0, || format!("the records of {missing} conversations are missing"))?;
            self.counted.blake3 = hash.to_hex().to_string();
            require(end.blake3 == self.counted.blake3, || "the checksum of what came before differs".into())?;
            require(end == self.counted, || format!("what came before is {:?}", self.counted))
        };
        let mut checked = checked;
        checked().map_err(|what| lines.bad(what))?;
        let (records_at, head_hash) = (self.records_at.unwrap_or(lines.offset()), self.head_hash.unwrap_or(hash));
        if lines.next_line().map_or(true, |line| line.is_some()) {
            return Err(lines.bad("something follows the end".into()));
        }
        let groups = self.heads.into_iter().filter(|(_, head)| head.is_group);
        Ok(Verified {
            end,
            records_at,
            head_hash,
            time: TimeMs(self.time_ms),
            last_record: ServerMsgId(self.last_record),
            last_user: UserId(self.last_account),
            members: groups.map(|(id, head)| (id, head.members)).collect(),
        })
    }

    fn exists(&self, user: u64) -> Checked {
        require(self.accounts.contains(&user), || format!("account {user} is not in this export"))
    }

    fn note_time(&mut self, ms: u64) {
        self.time_ms = self.time_ms.max(ms);
    }
}

fn check_name(name: &str) -> Checked {
    require((1..=NAME_BYTES_MAX).contains(&name.len()), || "a name has 1 to 1024 bytes".into())
}

/// Ascending, without overlap, only the last one open.
fn check_intervals(member: &Member, head: &Head) -> Checked {
    let intervals = &member.intervals;
    require((1..=MemberRow::INTERVALS_MAX).contains(&intervals.len()), || {
        format!("a member has 1 to {} intervals", MemberRow::INTERVALS_MAX)
    })?;
    let mut free = 1;
    for (at, (join, end)) in intervals.iter().enumerate() {
        let is_last = at + 1 == intervals.len();
        let fits = *join >= free && *join <= head.last_seq + 1 && if *end == 0 { is_last } else { end > join };
        require(fits && *end <= head.last_seq + 1, || "its intervals overlap, or go beyond the conversation".into())?;
        free = *end;
    }
    Ok(())
}
