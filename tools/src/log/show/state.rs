//! Rows of state as people read them. Hashes of passwords and secrets stay out, but for bytes that were asked for.

use sequencer::state::Key;
use sequencer::store::Row;

use crate::log::fact::{Fact, hex};

/// A row of a delta; `None`: it is gone.
pub fn row(at: &str, key: &[u8], value: Option<&[u8]>, with_hex: bool) -> Fact {
    let fact = match Key::decode(key) {
        Err(bad) => Fact::new("state", at).with("malformed_key", format!("{bad:?}")),
        Ok(decoded) => of_key(Fact::new("state", at).with("key", format!("{decoded:?}")), &decoded, value),
    };
    if !with_hex {
        return fact;
    }
    fact.with("key_hex", hex(key)).with_some("value_hex", value.map(hex))
}

fn of_key(fact: Fact, key: &Key, value: Option<&[u8]>) -> Fact {
    match value.map(|value| Row::decode(key, value)) {
        None => fact.with("gone", true),
        Some(Err(bad)) => fact.with("malformed_row", format!("{bad:?}")),
        Some(Ok(Row::User(user))) => fact
            .with("name", user.name)
            .with("created", crate::user::log_time(user.created))
            .with("has_password", !user.password_phc.is_empty())
            .with("sessions", user.sessions.len()),
        Some(Ok(Row::OutboxPage(effects))) => fact.with("effects", effects.len()),
        Some(Ok(row)) => fact.with("row", format!("{row:?}")),
    }
}
