//! Who somebody is: keys, and the tokens they sign.
//!
//! Tokens are JWTs with one pinned algorithm (EdDSA). Two keys sign: the node's token key signs what users carry; the admin
//! key signs what its holder makes by himself, so that administration needs no password and no server-side secret.
//!
//! What always holds: a token's own header never chooses the algorithm or where a key comes from; `kid` is looked up among
//! the keys this node has, among those for the token's purpose only; every refusal reads the same to the client.

mod admin;
mod claims;
mod key;
mod ring;
mod tokens;

pub use admin::AdminKey;
pub use claims::Purpose;
pub use key::{KeyError, KeyFile};
pub use ring::{KeyRing, RefreshBearer, TokenError};
pub use tokens::NodeTokens;
