//! Reads everything back from every replica, as each person who may.

use std::net::SocketAddr;
use std::sync::Arc;

use gateway::client::{Connection, Error, Greeting, HistoryQuery, Options};
use hashbrown::HashMap;
use logstore::id::{ConversationId, SeqId, UserId};

use super::history::{Op, Replica};
use super::recorder::Recorder;
use super::stage::{Person, Place, Stage, change_of};

/// Records in a page.
const PAGE: u32 = 500;

/// The newest record each person was told of in each conversation, over all replicas.
pub type Heads = HashMap<(UserId, ConversationId), SeqId>;

/// Notes a `final` for every record, and gives the heads.
pub async fn read_back(stage: &Stage, recorder: &Arc<Recorder>) -> anyhow::Result<Heads> {
    let mut heads = Heads::new();
    for (at, &listen) in stage.listen.iter().enumerate() {
        let replica = Replica(at as u16 + 1);
        for person in &stage.people {
            let connection = connect(listen, person).await?;
            for place in stage.places_of(person.user) {
                let reader = Reader { connection: &connection, user: person.user, replica, recorder };
                let head = reader.read(&place).await?;
                let known = heads.entry((person.user, place.conversation)).or_default();
                *known = head.max(*known);
            }
        }
    }
    Ok(heads)
}

async fn connect(listen: SocketAddr, person: &Person) -> Result<Connection, Error> {
    let (connection, _) = Connection::connect(&listen.to_string(), Options::default()).await?;
    let greeting = Greeting { token: person.token.clone(), device: "reads back".into(), ..Greeting::default() };
    connection.hello(greeting).await?;
    Ok(connection)
}

/// One person at one replica.
struct Reader<'a> {
    connection: &'a Connection,
    user: UserId,
    replica: Replica,
    recorder: &'a Recorder,
}

impl Reader<'_> {
    /// The last record; 0: there is nothing to see.
    async fn read(&self, place: &Place) -> anyhow::Result<SeqId> {
        let conversation = place.conversation;
        let (mut from, mut last) = (SeqId(1), SeqId(0));
        loop {
            let query = HistoryQuery { conversation, from, to: SeqId(0), limit: PAGE, newest_first: false };
            let page = match self.connection.history(query).await {
                Ok(page) => page,
                // Who never was a member sees nothing; whether that is right the log says.
                Err(Error::Refused(refusal)) if refusal.number < 400 => return Ok(last),
                Err(error) => return Err(error.into()),
            };
            for record in &page.records {
                let op = Op::Final(self.replica, change_of(record));
                self.recorder.note(self.user, conversation, record.client_msg_id, record.seq_id, op);
                last = last.max(record.seq_id);
            }
            match page.next_from {
                Some(next) if next > from => from = next,
                Some(_) => anyhow::bail!("history of {conversation} does not go on"),
                None => return Ok(last),
            }
        }
    }
}
