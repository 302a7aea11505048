//! Who asks: a saved sign-in, or a token from `SKEIN_TOKEN`.
//!
//! In this order: `--profile`, `SKEIN_TOKEN`, `SKEIN_PROFILE`, the profile that signed in last.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use gateway::client::{
    Connection, Error, Greeting, Options, Progress, Session, SessionOptions, Tls, TokenSource, Welcome,
};

use crate::exit::Failure;
use crate::output::Globals;
use crate::profile::{Profile, Profiles};

/// Where a server listens unless told otherwise.
pub const DEFAULT_SERVER: &str = "127.0.0.1:7400";
/// An access token is exchanged when it has less than this left.
const EXPIRY_MARGIN_MS: u64 = 30_000;
/// The environment's token.
const TOKEN_VARIABLE: &str = "SKEIN_TOKEN";

/// Who asks, and where.
pub struct Identity {
    /// Address of the server.
    pub server: String,
    /// How to connect.
    pub options: Options,
    /// The saved sign-in, if it is one.
    pub saved: Option<Saved>,
    tokens: Arc<dyn TokenSource>,
    device: String,
}

/// A saved sign-in and where it is saved.
#[derive(Clone)]
pub struct Saved {
    /// All of them.
    pub profiles: Profiles,
    /// Its name.
    pub name: String,
}

/// A connection that has been greeted.
pub struct Signed {
    /// The connection.
    pub connection: Connection,
    /// What the server said.
    pub welcome: Welcome,
}

impl Identity {
    /// Finds out who asks.
    pub fn of(globals: &Globals) -> Result<Identity, Failure> {
        let named = chosen(globals);
        let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        let named_by_variable = named.is_some() && std::env::var("SKEIN_PROFILE").ok() == named;
        match token {
            Some(token) if named.is_none() || named_by_variable => Identity::of_token(globals, token),
            _ => Identity::of_profile(globals, named),
        }
    }

    fn of_token(globals: &Globals, token: String) -> Result<Identity, Failure> {
        let options = connect_options(globals, None)?;
        let server = server_of(globals, None);
        let device = format!("token-{}", std::process::id());
        Ok(Identity { server, options, saved: None, tokens: Arc::new(token), device })
    }

    fn of_profile(globals: &Globals, named: Option<String>) -> Result<Identity, Failure> {
        let profiles = Profiles::of_this_user()?;
        let name = match named {
            Some(name) => name,
            None => profiles.current()?.ok_or_else(not_signed_in)?,
        };
        let profile = profiles.load(&name)?.ok_or_else(|| {
            anyhow!("there is no profile {name:?}; make one with `skein login NAME --profile {name}`")
        })?;
        let options = connect_options(globals, Some(&profile))?;
        let server = server_of(globals, Some(&profile));
        let device = profile.device.clone();
        let saved = Saved { profiles, name };
        let tokens = Arc::new(SavedTokens { saved: saved.clone(), server: server.clone(), options: options.clone() });
        Ok(Identity { server, options, saved: Some(saved), tokens, device })
    }

    /// Connects and says who asks; nothing is pushed.
    pub async fn connect(&self) -> Result<Signed, Failure> {
        let mut rejected = false;
        loop {
            let token = self.tokens.token(rejected).await?;
            let (connection, _) = Connection::connect(&self.server, self.options.clone()).await?;
            let greeting = Greeting { token, device: self.device.clone(), ..Greeting::default() };
            match connection.hello(greeting).await {
                Ok(welcome) => return Ok(Signed { connection, welcome }),
                Err(error) if error.code() == Some(fanout::Code::Unauthenticated) && !rejected => rejected = true,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Begins a session as this device.
    pub async fn session(&self, options: SessionOptions) -> Result<Session, Failure> {
        let options = SessionOptions { connection: self.options.clone(), device: self.device.clone(), ..options };
        Ok(Session::start(&self.server, options, self.tokens.clone()).await?)
    }

    /// How far this device has been shown what.
    pub fn progress(&self) -> Result<Progress, Failure> {
        match &self.saved {
            Some(saved) => Ok(saved.profiles.progress(&saved.name)?),
            None => Ok(Progress::default()),
        }
    }

    /// Notes how far it has; without a saved sign-in there is nowhere to.
    pub fn save_progress(&self, progress: &Progress) -> Result<(), Failure> {
        match &self.saved {
            Some(saved) => Ok(saved.profiles.save_progress(&saved.name, progress)?),
            None => Ok(()),
        }
    }
}

/// The profile that was named, if one was.
pub fn chosen(globals: &Globals) -> Option<String> {
    globals.profile.clone().filter(|name| !name.is_empty())
}

/// The server to ask.
pub fn server_of(globals: &Globals, profile: Option<&Profile>) -> String {
    let named = globals.server.clone().filter(|server| !server.is_empty());
    named.or_else(|| profile.map(|profile| profile.server.clone())).unwrap_or_else(|| DEFAULT_SERVER.into())
}

/// How to connect to it.
pub fn connect_options(globals: &Globals, profile: Option<&Profile>) -> Result<Options, Failure> {
    let ca = globals.ca.clone().or_else(|| profile.and_then(|profile| profile.ca.clone()));
    let wants_tls = globals.tls || profile.is_some_and(|profile| profile.tls);
    let tls = match (ca, wants_tls) {
        (Some(file), _) => Some(Tls::with_roots_in(&file)),
        (None, true) => Some(Tls::with_system_roots()),
        (None, false) => None,
    };
    let tls = tls.transpose().map_err(|why| anyhow!("{why}; name a PEM file with --ca FILE"))?;
    Ok(Options { tls, ..Options::default() })
}

fn not_signed_in() -> anyhow::Error {
    anyhow!("nobody is signed in; type `skein register NAME` or `skein login NAME`, or set {TOKEN_VARIABLE}")
}

/// Tokens of a saved sign-in, exchanged when they end.
struct SavedTokens {
    saved: Saved,
    server: String,
    options: Options,
}

impl TokenSource for SavedTokens {
    fn token(&self, rejected: bool) -> Pin<Box<dyn Future<Output = Result<String, Error>> + Send + '_>> {
        Box::pin(async move { self.valid_token(rejected).await.map_err(into_client_error) })
    }
}

impl SavedTokens {
    async fn valid_token(&self, rejected: bool) -> anyhow::Result<String> {
        let profile = self.load()?;
        if !rejected && is_fresh(&profile) {
            return Ok(profile.access_token);
        }
        let seen = profile.access_token;
        let (profiles, name) = (self.saved.profiles.clone(), self.saved.name.clone());
        // Another command of the same user may be exchanging them right now.
        let lock = tokio::task::spawn_blocking(move || profiles.lock(&name)).await??;
        let mut profile = self.load()?;
        if profile.access_token == seen || !is_fresh(&profile) {
            let (connection, _) = Connection::connect(&self.server, self.options.clone()).await?;
            profile.set_tokens(&connection.refresh(&profile.refresh_token).await?);
            self.saved.profiles.save(&self.saved.name, &profile)?;
        }
        drop(lock);
        Ok(profile.access_token)
    }

    fn load(&self) -> anyhow::Result<Profile> {
        let profile = self.saved.profiles.load(&self.saved.name)?;
        profile.ok_or_else(|| anyhow!("profile {:?} was removed", self.saved.name))
    }
}

fn is_fresh(profile: &Profile) -> bool {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    profile.access_expires_ms > now_ms + EXPIRY_MARGIN_MS
}

fn into_client_error(error: anyhow::Error) -> Error {
    match error.downcast_ref::<Error>() {
        Some(error) => error.clone(),
        None => Error::Protocol(format!("{error:#}")),
    }
}
