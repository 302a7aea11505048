//! Signs and verifies tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use logstore::id::{TimeMs, UserId};

use super::claims::{AUDIENCE, ISSUER, Purpose, TokenClaims};
use super::key::{KeyError, KeyFile, key_id};
use crate::session::{Claims, Role};

/// Longest token looked at.
const TOKEN_BYTES_MAX: usize = 8 << 10;
/// How far the clocks of those who make and those who read tokens may differ.
const LEEWAY_SECONDS: u64 = 5;

/// What a verified refresh token carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshBearer {
    /// The account.
    pub user: UserId,
    /// The session.
    pub session: u64,
    /// Its secret.
    pub secret: [u8; 32],
}

/// A token is not good. Deliberately says no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token is missing, expired, or not one of this server")]
pub struct TokenError;

/// The keys of a node.
pub struct KeyRing {
    signer: Signer,
    token_keys: Vec<Verifier>,
    admin_keys: Vec<Verifier>,
    validation: Validation,
}

impl KeyRing {
    /// A ring that signs with `token_key`, also accepts tokens of `retired`, and accepts admin tokens of `admin_key`.
    pub fn new(token_key: &KeyFile, retired: Option<&KeyFile>, admin_key: &KeyFile) -> Result<KeyRing, KeyError> {
        Ok(KeyRing {
            signer: Signer::new(token_key)?,
            token_keys: std::iter::once(token_key).chain(retired).map(Verifier::new).collect(),
            admin_keys: vec![Verifier::new(admin_key)],
            validation: validation(),
        })
    }

    /// An access token of a user.
    pub fn issue_access(&self, user: UserId, name: &str, now: TimeMs, expires: TimeMs) -> String {
        let subject = TokenSubject { sub: user.to_string(), name: name.into(), session: None, secret: None };
        self.signer.sign(Purpose::Access, subject, now, expires)
    }

    /// A refresh token of a session.
    pub fn issue_refresh(&self, bearer: &RefreshBearer, now: TimeMs, expires: TimeMs) -> String {
        let subject = TokenSubject {
            sub: bearer.user.to_string(),
            name: String::new(),
            session: Some(bearer.session.to_string()),
            secret: Some(URL_SAFE_NO_PAD.encode(bearer.secret)),
        };
        self.signer.sign(Purpose::Refresh, subject, now, expires)
    }

    /// Who an access or admin token speaks for.
    pub fn verify_access(&self, token: &str, now: TimeMs) -> Result<Claims, TokenError> {
        let (purpose, claims) = self.verify(token, now, &[Purpose::Access, Purpose::Admin])?;
        let (user, role) = match purpose {
            Purpose::Admin => (UserId(0), Role::Admin),
            _ => (user_of(&claims)?, Role::User),
        };
        Ok(Claims { user, role, expires: TimeMs(claims.exp * 1000), name: claims.name })
    }

    /// What a refresh token carries.
    pub fn verify_refresh(&self, token: &str, now: TimeMs) -> Result<RefreshBearer, TokenError> {
        let (_, claims) = self.verify(token, now, &[Purpose::Refresh])?;
        let secret = URL_SAFE_NO_PAD.decode(claims.secret.as_deref().unwrap_or_default()).map_err(|_| TokenError)?;
        Ok(RefreshBearer {
            user: user_of(&claims)?,
            session: claims.session.as_deref().and_then(|text| text.parse().ok()).ok_or(TokenError)?,
            secret: secret.try_into().map_err(|_| TokenError)?,
        })
    }

    /// Length, purpose, key, signature, names, times: in this order, each before the next costs anything.
    fn verify(&self, token: &str, now: TimeMs, purposes: &[Purpose]) -> Result<(Purpose, TokenClaims), TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError)?;
        let typ = header.typ.as_deref().unwrap_or_default();
        let purpose = *purposes.iter().find(|purpose| purpose.typ() == typ).ok_or(TokenError)?;
        let keys = if purpose == Purpose::Admin { &self.admin_keys } else { &self.token_keys };
        let kid = header.kid.as_deref().unwrap_or_default();
        let key = keys.iter().find(|key| key.id == kid).ok_or(TokenError)?;
        let token = jsonwebtoken::decode::<TokenClaims>(token, &key.key, &self.validation).map_err(|_| TokenError)?;
        check_times(&token.claims, now)?;
        Ok((purpose, token.claims))
    }
}

fn check_times(claims: &TokenClaims, now: TimeMs) -> Result<(), TokenError> {
    let now = now.0 / 1000;
    let begun = claims.iat.max(claims.nbf.unwrap_or(0)) <= now.saturating_add(LEEWAY_SECONDS);
    let over = now >= claims.exp.saturating_add(LEEWAY_SECONDS);
    // Milliseconds of `exp` must fit, and a token without an id could not be told from another.
    let sane = claims.exp <= u64::MAX / 1000 && !claims.jti.is_empty();
    if begun && !over && sane { Ok(()) } else { Err(TokenError) }
}

fn user_of(claims: &TokenClaims) -> Result<UserId, TokenError> {
    claims.sub.parse().ok().filter(|id| *id != 0).map(UserId).ok_or(TokenError)
}

/// Signature, issuer and audience are the library's; times are ours, because the clock is passed in.
fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[AUDIENCE]);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation
}

/// What a token is about.
pub(super) struct TokenSubject {
    pub sub: String,
    pub name: String,
    pub session: Option<String>,
    pub secret: Option<String>,
}

/// The half of a key that makes tokens.
pub(super) struct Signer {
    id: String,
    key: EncodingKey,
}

impl Signer {
    pub fn new(file: &KeyFile) -> Result<Signer, KeyError> {
        let der = file.key.to_pkcs8_der().map_err(|_| KeyError::NotAKey { path: file.path().into() })?;
        Ok(Signer { id: file.id(), key: EncodingKey::from_ed_der(der.as_bytes()) })
    }

    pub fn sign(&self, purpose: Purpose, subject: TokenSubject, now: TimeMs, expires: TimeMs) -> String {
        let header =
            Header { typ: Some(purpose.typ().into()), kid: Some(self.id.clone()), ..Header::new(Algorithm::EdDSA) };
        let claims = TokenClaims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: subject.sub,
            exp: expires.0 / 1000,
            iat: now.0 / 1000,
            nbf: None,
            jti: uuid::Uuid::now_v7().to_string(),
            name: subject.name,
            session: subject.session,
            secret: subject.secret,
        };
        jsonwebtoken::encode(&header, &claims, &self.key).expect("an Ed25519 key signs whatever it is given")
    }
}

/// The half of a key that checks tokens.
struct Verifier {
    id: String,
    key: DecodingKey,
}

impl Verifier {
    fn new(file: &KeyFile) -> Verifier {
        let public = file.key.verifying_key();
        Verifier { id: key_id(public.as_bytes()), key: DecodingKey::from_ed_der(public.as_bytes()) }
    }
}

#[cfg(test)]
mod tests;
