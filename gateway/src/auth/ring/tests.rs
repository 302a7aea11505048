//! The forgery matrix: every way a token can be wrong is refused, and the right ones are not.

use serde_json::{Value, json};

use super::*;
use crate::auth::AdminKey;

const NOW: TimeMs = TimeMs(1_760_000_000_000);
const LATER: TimeMs = TimeMs(NOW.0 + 900_000);

struct Fixture {
    dir: tempfile::TempDir,
    token_key: KeyFile,
    admin_key: KeyFile,
    ring: KeyRing,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let token_key = KeyFile::create(&dir.path().join("token.pem"), false).unwrap();
    let admin_key = KeyFile::create(&dir.path().join("admin.pem"), false).unwrap();
    let ring = KeyRing::new(&token_key, None, &admin_key).unwrap();
    Fixture { dir, token_key, admin_key, ring }
}

/// A token made by hand: any header, any claims, signed by `key` over whatever they say.
fn forge(header: &Value, claims: &Value, key: &KeyFile) -> String {
    use ed25519_dalek::Signer as _;
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = key.key.sign(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

fn good_header(key: &KeyFile) -> Value {
    json!({"alg": "EdDSA", "typ": "skein-access+jwt", "kid": key.id()})
}

fn good_claims() -> Value {
    let seconds = NOW.0 / 1000;
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "7", "exp": seconds + 900, "iat": seconds, "jti": "1", "name": "alice"})
}

fn with(mut value: Value, key: &str, to: Value) -> Value {
    value[key] = to;
    value
}

fn without(mut value: Value, key: &str) -> Value {
    value.as_object_mut().unwrap().remove(key).unwrap();
    value
}

#[test]
fn a_token_speaks_for_whom_it_was_made() {
    let f = fixture();
    let token = f.ring.issue_access(UserId(7), "alice", NOW, LATER);
    let bearer = f.ring.verify_access(&token, NOW).unwrap();
    assert_eq!(bearer, Claims { user: UserId(7), name: "alice".into(), role: Role::User, expires: LATER });
}

#[test]
fn a_refresh_token_carries_its_session_and_secret() {
    let f = fixture();
    let bearer = RefreshBearer { user: UserId(7), session: u64::MAX, secret: [9; 32] };
    let token = f.ring.issue_refresh(&bearer, NOW, LATER);
    assert_eq!(f.ring.verify_refresh(&token, NOW), Ok(bearer));
}

#[test]
fn the_admin_key_makes_admin_tokens_by_itself() {
    let f = fixture();
    let token = AdminKey::load(f.admin_key.path()).unwrap().token(NOW);
    assert_eq!(f.ring.verify_access(&token, NOW).unwrap().role, Role::Admin);
    assert_eq!(f.ring.verify_access(&token, TimeMs(NOW.0 + 11 * 60_000)), Err(TokenError));
}

#[test]
fn the_hand_made_token_is_good_when_nothing_is_wrong_with_it() {
    let f = fixture();
    let token = forge(&good_header(&f.token_key), &good_claims(), &f.token_key);
    assert_eq!(f.ring.verify_access(&token, NOW).unwrap().user, UserId(7));
}

#[test]
fn forged_headers_are_refused() {
    let f = fixture();
    let good = good_header(&f.token_key);
    for (what, header) in [
        ("alg none", with(good.clone(), "alg", json!("none"))),
        ("another algorithm", with(good.clone(), "alg", json!("ES256"))),
        ("no typ", without(good.clone(), "typ")),
        ("plain typ", with(good.clone(), "typ", json!("JWT"))),
        ("typ of refresh", with(good.clone(), "typ", json!("skein-refresh+jwt"))),
        ("typ of admin under the token key", with(good.clone(), "typ", json!("skein-admin+jwt"))),
        ("no kid", without(good.clone(), "kid")),
        ("unknown kid", with(good.clone(), "kid", json!("0000000000000000"))),
        ("kid of the admin key", with(good.clone(), "kid", json!(f.admin_key.id()))),
        ("kid that is a path", with(good.clone(), "kid", json!("../keys/token.pem"))),
        ("huge kid", with(good.clone(), "kid", json!("k".repeat(100_000)))),
    ] {
        let token = forge(&header, &good_claims(), &f.token_key);
        assert_eq!(f.ring.verify_access(&token, NOW), Err(TokenError), "{what}");
    }
}

#[test]
fn forged_claims_are_refused() {
    let f = fixture();
    let (good, seconds) = (good_claims(), NOW.0 / 1000);
    for (what, claims) in [
        ("another issuer", with(good.clone(), "iss", json!("someone"))),
        ("another audience", with(good.clone(), "aud", json!("skein-admin"))),
        ("expired", with(good.clone(), "exp", json!(seconds - LEEWAY_SECONDS))),
        ("not yet good", with(good.clone(), "nbf", json!(seconds + LEEWAY_SECONDS + 1))),
        ("made in the future", with(good.clone(), "iat", json!(seconds + LEEWAY_SECONDS + 1))),
        ("ends at the end of time", with(good.clone(), "exp", json!(u64::MAX))),
        ("negative end", with(good.clone(), "exp", json!(-1))),
        ("end as text", with(good.clone(), "exp", json!("tomorrow"))),
        ("empty id", with(good.clone(), "jti", json!(""))),
        ("nobody", with(good.clone(), "sub", json!("0"))),
        ("not a number", with(good.clone(), "sub", json!("alice"))),
        ("the admin's name", with(good.clone(), "sub", json!("admin"))),
        ("too long", with(good.clone(), "name", json!("n".repeat(TOKEN_BYTES_MAX)))),
        ("no issuer", without(good.clone(), "iss")),
        ("no audience", without(good.clone(), "aud")),
        ("no subject", without(good.clone(), "sub")),
        ("no end", without(good.clone(), "exp")),
        ("no beginning", without(good.clone(), "iat")),
        ("no id", without(good.clone(), "jti")),
    ] {
        let token = forge(&good_header(&f.token_key), &claims, &f.token_key);
        assert_eq!(f.ring.verify_access(&token, NOW), Err(TokenError), "{what}");
    }
}

#[test]
fn a_token_of_another_key_is_refused_even_under_our_key_id() {
    let f = fixture();
    let other = KeyFile::create(&f.dir.path().join("other.pem"), false).unwrap();
    for signer in [&other, &f.admin_key] {
        let token = forge(&good_header(&f.token_key), &good_claims(), signer);
        assert_eq!(f.ring.verify_access(&token, NOW), Err(TokenError));
    }
}

#[test]
fn the_public_key_is_no_shared_secret() {
    let f = fixture();
    let header =
        Header { typ: Some("skein-access+jwt".into()), kid: Some(f.token_key.id()), ..Header::new(Algorithm::HS256) };
    let secret = EncodingKey::from_secret(f.token_key.key.verifying_key().as_bytes());
    let token = jsonwebtoken::encode(&header, &good_claims(), &secret).unwrap();
    assert_eq!(f.ring.verify_access(&token, NOW), Err(TokenError));
}

#[test]
fn a_token_is_refused_with_any_byte_changed_or_cut() {
    let f = fixture();
    let token = f.ring.issue_access(UserId(7), "alice", NOW, LATER);
    for place in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert_eq!(f.ring.verify_access(&changed, NOW), Err(TokenError), "byte {place}");
        assert_eq!(f.ring.verify_access(&token[..place], NOW), Err(TokenError), "cut at {place}");
    }
}

#[test]
fn one_purpose_never_stands_in_for_another() {
    let f = fixture();
    let access = f.ring.issue_access(UserId(7), "alice", NOW, LATER);
    let refresh = f.ring.issue_refresh(&RefreshBearer { user: UserId(7), session: 1, secret: [0; 32] }, NOW, LATER);
    let admin = AdminKey::load(f.admin_key.path()).unwrap().token(NOW);
    assert_eq!(f.ring.verify_access(&refresh, NOW), Err(TokenError));
    assert_eq!(f.ring.verify_refresh(&access, NOW), Err(TokenError));
    assert_eq!(f.ring.verify_refresh(&admin, NOW), Err(TokenError));
}

#[test]
fn leeway_is_five_seconds_and_no_more() {
    let f = fixture();
    let token = f.ring.issue_access(UserId(7), "alice", NOW, LATER);
    assert!(f.ring.verify_access(&token, TimeMs(LATER.0 + 4_999)).is_ok());
    assert!(f.ring.verify_access(&token, TimeMs(LATER.0 + 5_000)).is_err());
    assert!(f.ring.verify_access(&token, TimeMs(NOW.0 - 5_000)).is_ok());
    assert!(f.ring.verify_access(&token, TimeMs(NOW.0 - 6_000)).is_err());
}

#[test]
fn a_retired_key_still_verifies_and_no_longer_signs() {
    let f = fixture();
    let old_token = f.ring.issue_access(UserId(7), "alice", NOW, LATER);
    let new_key = KeyFile::create(&f.dir.path().join("new.pem"), false).unwrap();
    let rotated = KeyRing::new(&new_key, Some(&f.token_key), &f.admin_key).unwrap();
    assert!(rotated.verify_access(&old_token, NOW).is_ok());
    let new_token = rotated.issue_access(UserId(7), "alice", NOW, LATER);
    assert!(rotated.verify_access(&new_token, NOW).is_ok());
    assert_eq!(f.ring.verify_access(&new_token, NOW), Err(TokenError));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    static RING: std::sync::LazyLock<Fixture> = std::sync::LazyLock::new(fixture);

    proptest! {
        #[test]
        fn garbage_never_verifies_and_never_panics(garbage in "[A-Za-z0-9_.=-]{0,300}") {
            prop_assert_eq!(RING.ring.verify_access(&garbage, NOW), Err(TokenError));
        }
    }
}
