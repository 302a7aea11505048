//! Accounts and tokens for generators, by the admin key: no password is hashed.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Args;
use gateway::auth::AdminKey;
use gateway::client::{Connection, Error, Greeting, Options};
use logstore::id::TimeMs;

use crate::exit::Failure;

/// Names in one administrative request.
const NAMES_A_REQUEST: usize = 256;
/// Longer than any run.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Where the admin key is.
#[derive(Args, Clone, Debug, Default)]
pub struct AdminArgs {
    /// Data directory of the server, for its admin key
    #[arg(long, value_name = "D", env = "SKEIN_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// The admin key itself
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    pub admin_key: Option<PathBuf>,
}

impl AdminArgs {
    /// The key's file.
    pub fn key_file(&self) -> Result<PathBuf, Failure> {
        match (&self.admin_key, &self.data_dir) {
            (Some(file), _) => Ok(file.clone()),
            (None, Some(dir)) => Ok(dir.join("keys/admin.pem")),
            (None, None) => {
                let what = "this needs the server's admin key: give --data-dir D or --admin-key FILE".into();
                Err(Failure::Usage(what))
            }
        }
    }
}

/// Somebody to act as.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its number.
    pub user: u64,
    /// For `hello`.
    pub token: String,
}

/// Accounts of these names, made if they are not there, each with a new token.
pub async fn prepare(server: &str, admin: &AdminArgs, names: &[String]) -> Result<Vec<Account>, Failure> {
    let connection = connect(server, admin).await?;
    let mut accounts = Vec::with_capacity(names.len());
    for some in names.chunks(NAMES_A_REQUEST) {
        let imports: Vec<(String, String)> = some.iter().map(|name| (name.clone(), String::new())).collect();
        let (_, refusals) = connection.import_users(&imports).await.map_err(failure)?;
        if let Some((at, refusal)) = refusals.into_iter().next() {
            let name = some.get(at).map_or("", String::as_str);
            return Err(Failure::Refused(anyhow::Error::new(refusal).context(format!("account {name:?}"))));
        }
        let tokens = connection.mint_tokens(some, TOKEN_LIFETIME).await.map_err(failure)?;
        accounts.extend(tokens.into_iter().map(|t| Account { user: t.user.id.0, token: t.access_token }));
    }
    Ok(accounts)
}

async fn connect(server: &str, admin: &AdminArgs) -> Result<Connection, Failure> {
    let key = AdminKey::load(&admin.key_file()?)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
    let token = key.token(TimeMs(now.as_millis() as u64));
    let (connection, _) = Connection::connect(server, Options::default()).await.map_err(failure)?;
    let greeting = Greeting { token, device: "admin".into(), ..Greeting::default() };
    connection.hello(greeting).await.map_err(failure)?;
    Ok(connection)
}

/// What generators call themselves in `hello`.
pub fn client_name() -> String {
    concat!("skein ", env!("CARGO_PKG_VERSION")).into()
}

/// The exit code a client error deserves.
pub fn failure(error: Error) -> Failure {
    match error {
        Error::Unreachable { .. } | Error::Closed { .. } | Error::Timeout { .. } => Failure::Unreachable(error.into()),
        Error::Refused(_) => Failure::Refused(error.into()),
        _ => Failure::Failed(error.into()),
    }
}
