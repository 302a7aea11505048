//! `skein register`, `login`, `logout`, `whoami`, `profiles`.

use std::io::{self, BufRead, IsTerminal};

use anyhow::{Context, anyhow};
use clap::Args;
use gateway::client::{Connection, MessageClock, Tokens};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde::Serialize;

use super::identity::{self, Identity, chosen};
use crate::exit::Failure;
use crate::output::{Globals, Printer, Row};
use crate::profile::{Profile, Profiles};

/// More than any server takes.
const PASSWORD_BYTES_MAX: u64 = 64 << 10;

/// Name and password.
#[derive(Args, Debug)]
pub struct SignIn {
    /// The account's name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Read the password from standard input [default: SKEIN_PASSWORD, else asked for]
    #[arg(long)]
    pub password_stdin: bool,
}

#[derive(Serialize)]
struct SignedIn {
    name: String,
    user: String,
    profile: String,
    server: String,
    expires_at: String,
}

impl Row for SignedIn {
    const COLUMNS: &'static [&'static str] = &["name", "user", "profile", "server", "expires at"];

    fn cells(&self) -> Vec<String> {
        [&self.name, &self.user, &self.profile, &self.server, &self.expires_at].map(String::clone).into()
    }
}

/// Creates an account and signs in.
pub async fn register(args: SignIn, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let password = password(&args, true).await?;
    let place = Place::of(globals)?;
    let connection = place.connect().await?;
    let tokens = connection.register(&args.name, &password, MessageClock::default().id()).await?;
    place.sign_in(&args, &tokens, printer)
}

/// Signs in.
pub async fn login(args: SignIn, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let password = password(&args, false).await?;
    let place = Place::of(globals)?;
    let connection = place.connect().await?;
    let tokens = connection.login(&args.name, &password).await?;
    place.sign_in(&args, &tokens, printer)
}

/// Forgets a saved sign-in.
pub fn logout(globals: &Globals) -> Result<(), Failure> {
    let profiles = Profiles::of_this_user()?;
    let name = match chosen(globals) {
        Some(name) => name,
        None => profiles.current()?.ok_or_else(|| anyhow!("nobody is signed in"))?,
    };
    if !profiles.remove(&name)? {
        return Err(anyhow!("there is no profile {name:?}").into());
    }
    eprintln!("profile {name} is removed");
    Ok(())
}

/// Asks the server who is signed in.
pub async fn whoami(globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let identity = Identity::of(globals)?;
    let signed = identity.connect().await?;
    let profile = identity.saved.as_ref().map_or_else(String::new, |saved| saved.name.clone());
    let expires_at = match &identity.saved {
        Some(saved) => saved.profiles.load(&saved.name)?.map_or_else(String::new, |p| super::time(p.access_expires_ms)),
        None => String::new(),
    };
    let user = signed.welcome.user;
    printer.one(&SignedIn { name: user.name, user: user.id.to_string(), profile, server: identity.server, expires_at })
}

/// Where to sign in, and where to save that.
struct Place {
    server: String,
    options: gateway::client::Options,
    profiles: Profiles,
    globals: Globals,
}

impl Place {
    fn of(globals: &Globals) -> Result<Place, Failure> {
        let profiles = Profiles::of_this_user()?;
        // Signing in again under a profile goes to that profile's server.
        let known = match chosen(globals) {
            Some(name) => profiles.load(&name).unwrap_or_default(),
            None => None,
        };
        let server = identity::server_of(globals, known.as_ref());
        let options = identity::connect_options(globals, known.as_ref())?;
        Ok(Place { server, options, profiles, globals: globals.clone() })
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        Ok(Connection::connect(&self.server, self.options.clone()).await?.0)
    }

    fn sign_in(&self, args: &SignIn, tokens: &Tokens, printer: &mut Printer) -> Result<(), Failure> {
        let name = chosen(&self.globals).unwrap_or_else(|| args.name.clone());
        let known = self.profiles.load(&name).unwrap_or_default();
        let same = known.filter(|known| known.user == tokens.user.id.0 && known.server == self.server);
        if same.is_none() {
            self.profiles.forget_progress(&name)?;
        }
        let device = same.map_or_else(|| format!("cli-{:016x}", rand::random::<u64>()), |known| known.device);
        let mut profile = Profile {
            server: self.server.clone(),
            name: String::new(),
            user: 0,
            access_token: String::new(),
            refresh_token: String::new(),
            access_expires_ms: 0,
            device,
            tls: self.options.tls.is_some(),
            ca: self.globals.ca.clone(),
        };
        profile.set_tokens(tokens);
        self.profiles.save(&name, &profile)?;
        self.profiles.set_current(&name)?;
        eprintln!("signed in as {}; saved as profile {name}, which is now the default", profile.name);
        printer.one(&SignedIn {
            name: profile.name,
            user: profile.user.to_string(),
            profile: name,
            server: profile.server,
            expires_at: super::time(profile.access_expires_ms),
        })
    }
}

#[derive(Serialize)]
struct ProfileRow {
    profile: String,
    current: bool,
    name: String,
    server: String,
}

impl Row for ProfileRow {
    const COLUMNS: &'static [&'static str] = &["profile", "current", "name", "server"];

    fn cells(&self) -> Vec<String> {
        let current = if self.current { "yes" } else { "" };
        vec![self.profile.clone(), current.into(), self.name.clone(), self.server.clone()]
    }
}

/// Lists saved sign-ins, or makes one the default.
pub fn profiles(default: Option<String>, printer: &mut Printer) -> Result<(), Failure> {
    let profiles = Profiles::of_this_user()?;
    if let Some(name) = default {
        profiles.load(&name)?.ok_or_else(|| anyhow!("there is no profile {name:?}"))?;
        profiles.set_current(&name)?;
    }
    let current = profiles.current()?;
    let mut rows = Vec::new();
    for (profile, content) in profiles.list()? {
        let current = current.as_deref() == Some(profile.as_str());
        rows.push(ProfileRow { profile, current, name: content.name, server: content.server });
    }
    printer.list(&rows)
}

async fn password(args: &SignIn, is_new: bool) -> Result<String, Failure> {
    if args.password_stdin {
        return Ok(read_password(io::stdin().lock())?);
    }
    if let Ok(password) = std::env::var("SKEIN_PASSWORD") {
        return Ok(password);
    }
    if !io::stdin().is_terminal() {
        return Err(anyhow!("no password: set SKEIN_PASSWORD, or give --password-stdin and pipe it in").into());
    }
    let first = ask(&format!("Password of {}: ", args.name)).await?;
    if is_new && ask("Again: ").await? != first {
        return Err(anyhow!("the two passwords differ").into());
    }
    Ok(first)
}

/// The first line.
fn read_password(input: impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    input.take(PASSWORD_BYTES_MAX).read_line(&mut line).context("cannot read the password from standard input")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks on the terminal, without showing what is typed.
async fn ask(question: &str) -> Result<String, Failure> {
    eprint!("{question}");
    let _hidden = Hidden::begin();
    let typed = tokio::select! {
        typed = tokio::task::spawn_blocking(|| read_password(io::stdin().lock())) => typed??,
        _ = tokio::signal::ctrl_c() => {
            drop(_hidden);
            eprintln!();
            // The reader cannot be woken; the shell's code for an interrupted command.
            std::process::exit(130);
        }
    };
    eprintln!();
    Ok(typed)
}

/// While it lives the terminal shows nothing of what is typed.
struct Hidden {
    before: Option<Termios>,
}

impl Hidden {
    fn begin() -> Hidden {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(mut modes) = before.clone() {
            modes.local_modes.remove(LocalModes::ECHO);
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
        }
        Hidden { before }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piped_password_is_its_first_line_without_the_line_end() {
        assert_eq!(read_password(&b"secret word\r\nmore"[..]).unwrap(), "secret word");
        assert_eq!(read_password(&b" spaces stay "[..]).unwrap(), " spaces stay ");
        assert!(read_password(&b"\xff\xfe\n"[..]).is_err());
    }
}
