//! Accounts and tokens for generators, by the admin key: no password is hashed.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::admin::connect;
use crate::exit::Failure;
use crate::output::Globals;

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
    /// Whether either was said.
    pub fn is_given(&self) -> bool {
        self.data_dir.is_some() || self.admin_key.is_some()
    }

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

/// Accounts of these names, made if they are not there, each with a new token; and where the server is.
pub async fn prepare(
    admin: &AdminArgs,
    globals: &Globals,
    names: &[String],
) -> Result<(String, Vec<Account>), Failure> {
    let (connection, server) = connect(admin, globals).await?;
    let mut accounts = Vec::with_capacity(names.len());
    for some in names.chunks(NAMES_A_REQUEST) {
        let imports: Vec<(String, String)> = some.iter().map(|name| (name.clone(), String::new())).collect();
        let (_, refusals) = connection.import_users(&imports).await?;
        if let Some((at, refusal)) = refusals.into_iter().next() {
            let name = some.get(at).map_or("", String::as_str);
            return Err(Failure::Refused(anyhow::Error::new(refusal).context(format!("account {name:?}"))));
        }
        let tokens = connection.mint_tokens(some, TOKEN_LIFETIME).await?;
        accounts.extend(tokens.into_iter().map(|t| Account { user: t.user.id.0, token: t.access_token }));
    }
    Ok((server, accounts))
}

/// The loops that read frames where they lie have no room for a cipher between. To be asked before anything is done.
pub fn refuse_tls(globals: &Globals) -> Result<(), Failure> {
    if globals.tls || globals.ca.is_some() {
        return Err(Failure::Usage(
            "replay and bench speak plain TCP only: leave --tls and --ca (SKEIN_TLS, SKEIN_CA) away, and name a server \
             without TLS"
                .into(),
        ));
    }
    Ok(())
}

/// What generators call themselves in `hello`.
pub fn client_name() -> String {
    concat!("skein ", env!("CARGO_PKG_VERSION")).into()
}
