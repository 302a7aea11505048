//! A node that reads around damage: opened without changing a byte of its data directory.

use std::path::Path;
use std::sync::Arc;

use logstore::{Journal, JournalDamage};
use sequencer::Sequencer;

use super::{Held, Node, Ready, StartError, check, error, journal_options, keys, refuse_other_mode, sequencer_options};
use crate::config::Config;
use crate::data_dir::HeldDataDir;

impl Node {
    /// Serves what is sound of a damaged data directory, for reading alone. Nothing in it is written, removed or renamed; what
    /// is damaged is logged, and said by `/readyz` and `/status`.
    pub async fn start_around_damage(config: Config) -> Result<Node, StartError> {
        check(&config)?;
        let lock = HeldDataDir::hold(&config.data_dir)?;
        let identity = lock.identity().clone();
        refuse_other_mode(&config, &identity)?;
        let tokens = keys::open_existing(&config)?;
        let ready = Ready::new(config, identity, Held::Shared(lock), tokens)?;
        let (journal, damage) = open_journal(&ready.config).await?;
        let options = sequencer_options(&ready.config, &ready.identity);
        let sequencer = Sequencer::open_around_damage(options, journal.clone(), damage).await;
        let sequencer = sequencer.map_err(|error| error::from_sequencer(error, &ready.config.data_dir))?;
        tell(&sequencer, &ready.config.data_dir);
        ready.serve(journal, Arc::default(), sequencer).await
    }
}

async fn open_journal(config: &Config) -> Result<(Journal, JournalDamage), StartError> {
    let (disk, options) = (logstore::io::read_only(&config.data_dir), journal_options(config));
    let opening = tokio::task::spawn_blocking(move || Journal::open_around_damage(disk, options));
    let opened = opening
        .await
        .map_err(|panic| StartError::new(format!("opening the journal failed: {panic}"), "report this"))?;
    opened.map_err(|error| error::from_logstore(error, &config.data_dir))
}

fn tell(sequencer: &Sequencer, data_dir: &Path) {
    for what in sequencer.damage() {
        tracing::error!(what, "damage in the journal");
    }
    for shard in sequencer.shards() {
        for what in shard.troubles() {
            tracing::error!(shard = shard.id().0, what, "a shard is damaged");
        }
    }
    let is_sound = sequencer.damage().is_empty() && !sequencer.shards().iter().any(|shard| shard.is_damaged());
    if is_sound {
        tracing::warn!(data_dir = %data_dir.display(), "no damage was found: start without --read-around-damage to write again");
    }
}
