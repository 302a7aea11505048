//! Who is where: group → users, user → conversations, of the member rows that are in memory for their own sake.
//!
//! What always holds: a layer has the rows made in one generation, each once; those of frozen generations become the place
//! rows of their delta and are never changed again. As long as the state is whole (nothing of it is only in sealed rows) the
//! base has all older rows; from then on those are found by scans below memory.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;
use logstore::id::{ConversationId, ConversationName, UserId};

use crate::store::Sharded;

/// Parts of each map of a layer.
const PARTS: usize = 1024;

/// The layers, by generation.
#[derive(Debug)]
pub(super) struct MemberIndex {
    hasher: DefaultHashBuilder,
    current: Layer,
    /// Oldest first.
    frozen: VecDeque<Arc<Layer>>,
    /// The part of the oldest frozen layer that is folded next.
    fold_next: usize,
    /// Of generations that were folded down; `None` once they are only in sealed rows.
    base: Option<Layer>,
}

/// The rows made in one generation.
#[derive(Debug)]
pub(super) struct Layer {
    /// Group → users, in no order. A 1:1 says in its id who they are.
    users: Sharded<ConversationId, Vec<UserId>>,
    conversations: Sharded<UserId, Vec<ConversationId>>,
}

impl Layer {
    fn new() -> Layer {
        Layer { users: Sharded::new(PARTS), conversations: Sharded::new(PARTS) }
    }

    fn enter(&mut self, hasher: &DefaultHashBuilder, conversation: ConversationId, user: UserId) {
        if direct_users(conversation).is_none() {
            self.users.or_default(hasher, conversation).push(user);
        }
        self.conversations.or_default(hasher, user).push(conversation);
    }

    /// Moves one part of another layer here.
    fn take_in(&mut self, hasher: &DefaultHashBuilder, part: usize, other: &mut Layer) {
        for (group, users) in other.users.take_part(part) {
            self.users.or_default(hasher, group).extend(users);
        }
        for (user, conversations) in other.conversations.take_part(part) {
            self.conversations.or_default(hasher, user).extend(conversations);
        }
    }

    fn drop_part(&mut self, part: usize) {
        drop((self.users.take_part(part), self.conversations.take_part(part)));
    }

    /// Every row as (user, conversation), in no order.
    pub(super) fn places(&self) -> impl Iterator<Item = (UserId, ConversationId)> {
        self.conversations.iter().flat_map(|(user, conversations)| conversations.iter().map(|at| (*user, *at)))
    }
}

impl MemberIndex {
    pub(super) fn new() -> MemberIndex {
        MemberIndex {
            hasher: DefaultHashBuilder::default(),
            current: Layer::new(),
            frozen: VecDeque::new(),
            fold_next: 0,
            base: Some(Layer::new()),
        }
    }

    /// The index of a state whose rows are all sealed.
    pub(super) fn above_sealed() -> MemberIndex {
        MemberIndex { base: None, ..MemberIndex::new() }
    }

    /// Notes a row that was made before the current generation.
    pub(super) fn lay_below(&mut self, conversation: ConversationId, user: UserId) {
        let MemberIndex { hasher, base, .. } = self;
        base.get_or_insert_with(Layer::new).enter(hasher, conversation, user);
    }

    /// Notes that a row was made.
    pub(super) fn enter(&mut self, conversation: ConversationId, user: UserId) {
        self.current.enter(&self.hasher, conversation, user);
    }

    /// The users of a group whose rows it knows of, ascending.
    pub(super) fn users_of(&self, group: ConversationId) -> Vec<UserId> {
        let found = self.layers().filter_map(|layer| layer.users.find(&self.hasher, &group));
        let mut users: Vec<UserId> = found.flatten().copied().collect();
        users.sort_unstable();
        users
    }

    /// The conversations of a user whose rows it knows of, in no order.
    pub(super) fn conversations_of(&self, user: UserId) -> impl Iterator<Item = ConversationId> {
        self.layers().filter_map(move |layer| layer.conversations.find(&self.hasher, &user)).flatten().copied()
    }

    /// Ends the current generation.
    pub(super) fn freeze(&mut self) {
        self.frozen.push_back(Arc::new(std::mem::replace(&mut self.current, Layer::new())));
    }

    /// A frozen generation, 0 being the newest, as long as it is whole.
    pub(super) fn frozen(&self, age: usize) -> Option<Arc<Layer>> {
        let place = self.frozen.len().checked_sub(age + 1)?;
        let is_whole = place > 0 || self.fold_next == 0;
        is_whole.then(|| self.frozen[place].clone())
    }

    /// Folds one part of the oldest frozen generation down, once there are more than `kept`, or lets go of it.
    pub(super) fn fold_step(&mut self, kept: usize) {
        if self.frozen.len() <= kept {
            return;
        }
        let Some(oldest) = self.frozen.front_mut().and_then(Arc::get_mut) else { return };
        match &mut self.base {
            Some(base) => base.take_in(&self.hasher, self.fold_next, oldest),
            None => oldest.drop_part(self.fold_next),
        }
        self.fold_next += 1;
        if self.fold_next == PARTS {
            self.frozen.pop_front();
            self.fold_next = 0;
        }
    }

    /// Rows of generations that were folded down are looked for in sealed rows from now on. Gives what is to be dropped, which
    /// takes time.
    pub(super) fn let_go_of_base(&mut self) -> Option<Layer> {
        self.base.take()
    }

    fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.base.iter().chain(self.frozen.iter().map(Arc::as_ref)).chain([&self.current])
    }
}

/// The users that the id of a 1:1 names, ascending; one twice is one.
pub(super) fn direct_users(conversation: ConversationId) -> Option<impl Iterator<Item = UserId>> {
    match conversation.name() {
        Some(ConversationName::Direct(low, high)) => {
            Some([Some(low), (high != low).then_some(high)].into_iter().flatten())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(index: &MemberIndex, user: u64) -> Vec<ConversationId> {
        let mut conversations: Vec<_> = index.conversations_of(UserId(user)).collect();
        conversations.sort_unstable();
        conversations
    }

    #[test]
    fn rows_are_found_in_whatever_layer_they_are_until_sealed_rows_have_them() {
        let mut index = MemberIndex::new();
        let [one, two, three] = [1, 2, 3].map(ConversationId::group);
        for group in [one, two, three] {
            index.enter(group, UserId(7));
            index.enter(group, UserId(group.0 as u64));
            index.freeze();
        }
        (0..PARTS / 2).for_each(|_| index.fold_step(2));
        assert!(index.frozen(2).is_none(), "half of it is folded");
        assert_eq!(told(&index, 7), [one, two, three]);
        (0..4 * PARTS).for_each(|_| index.fold_step(1));
        assert_eq!(told(&index, 7), [one, two, three]);
        assert_eq!(
            index.users_of(two),
            [UserId(7), UserId(two.0 as u64)]
                .iter()
                .copied()
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        );
        assert_eq!(index.frozen(0).unwrap().places().count(), 2);
        drop(index.let_go_of_base());
        assert_eq!(told(&index, 7), [three]);
        index.enter(one, UserId(9));
        index.freeze();
        (0..4 * PARTS).for_each(|_| index.fold_step(0));
        assert!(told(&index, 9).is_empty() && told(&index, 7).is_empty());
    }
}
