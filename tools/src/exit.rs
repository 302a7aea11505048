//! Exit codes: 0 done, 1 failed, 2 usage (clap's), 3 refused by the server, 4 cannot reach the server,
//! 5 verification found a difference.

use std::process::ExitCode;

/// What ended a command, when it was not success.
#[derive(Debug)]
pub enum Failure {
    /// Anything of ours or the machine's.
    Failed(anyhow::Error),
    /// The server answered with a typed error.
    Refused(anyhow::Error),
    /// No server there.
    Unreachable(anyhow::Error),
    /// A verification found a difference.
    Mismatch(String),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Failed(error.into())
    }
}

/// A command's result.
pub type Outcome = Result<(), Failure>;

/// Says in one line what failed, and gives the exit code.
pub fn report(outcome: Outcome) -> ExitCode {
    let (code, words) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(error)) => (1, format!("{error:#}")),
        Err(Failure::Refused(error)) => (3, format!("{error:#}")),
        Err(Failure::Unreachable(error)) => (4, format!("{error:#}")),
        Err(Failure::Mismatch(what)) => (5, what),
    };
    eprintln!("skein: {words}");
    ExitCode::from(code)
}
