//! What a user's home knows of the user's relation to somebody else.

/// A user's side of a 1:1, at the user's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelationRow {
    /// What is known of the other.
    pub peer: Peer,
}

/// What a home knows of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The peer's home has been asked and has not answered.
    Asked,
    /// The peer exists.
    Known,
    /// There was no such account when it was asked; it may be asked again.
    Unknown,
}
