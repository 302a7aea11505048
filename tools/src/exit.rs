//! Exit codes, the same for every command:
//!
//! | code | means |
//! |---|---|
//! | 0 | done |
//! | 1 | failed: this machine, this configuration, this data; the line on stderr says what |
//! | 2 | usage: the command line is not understood |
//! | 3 | refused by the server |
//! | 4 | the server cannot be reached |
//! | 5 | a verification found a difference, or rot |
//! | 70 | a running node stopped itself because a write or sync failed |
//! | 130 | a second signal ended a node that was draining |

use std::process::ExitCode;

use gateway::client::{Error, TlsProblem};

/// What ended a command, when it was not success.
#[derive(Debug)]
pub enum Failure {
    /// Anything of ours or the machine's.
    Failed(anyhow::Error),
    /// The command line makes no sense.
    Usage(String),
    /// The server answered with a typed error.
    Refused(anyhow::Error),
    /// No server there.
    Unreachable(anyhow::Error),
    /// A verification found a difference.
    Mismatch(String),
    /// Somebody could not wait.
    Interrupted,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    /// What the client library says has an exit code of its own, whatever context was put around it.
    fn from(error: E) -> Failure {
        let error = error.into();
        match error.downcast_ref::<Error>() {
            Some(Error::Refused(refusal)) => {
                let remedy = remedy_of(refusal);
                Failure::Refused(if remedy.is_empty() { error } else { anyhow::anyhow!("{error:#}; {remedy}") })
            }
            Some(Error::Unreachable { .. }) => Failure::Unreachable(anyhow::anyhow!("{error:#}; {NO_SERVER}")),
            Some(Error::Tls { why, .. }) => {
                let remedy = remedy_without_tls(why);
                Failure::Unreachable(anyhow::anyhow!("{error:#}; {remedy}"))
            }
            Some(Error::SpeaksTls) => Failure::Unreachable(anyhow::anyhow!("{error:#}; {SPEAK_TLS}")),
            Some(Error::Closed { .. } | Error::Timeout { .. }) => Failure::Unreachable(error),
            _ => Failure::Failed(error),
        }
    }
}

const NO_SERVER: &str = "start a node with `skein server --dev`, or name a running one with --server ADDR";

const SPEAK_TLS: &str =
    "say whom to trust: --ca FILE (its certificate, or who signed it), or --tls (what this machine trusts)";

/// What to do about a server with which there is no TLS.
fn remedy_without_tls(why: &TlsProblem) -> &'static str {
    match why {
        TlsProblem::NotSpoken => "leave --tls and --ca away, or name its TLS port with --server ADDR",
        TlsProblem::NotTrusted(_) => {
            "name the certificate to trust with --ca FILE, and the server as the certificate does"
        }
        TlsProblem::Failed(_) => "check the server's certificate, and that both sides speak TLS 1.3",
    }
}

/// What to type after a refusal.
fn remedy_of(refusal: &gateway::client::Refusal) -> &'static str {
    match refusal.code() {
        Some(fanout::Code::Unauthenticated | fanout::Code::SessionOver) => "sign in with `skein login NAME`",
        Some(fanout::Code::NoSpace) => "free space on the server's disk; it recovers by itself",
        Some(fanout::Code::NameTaken) => "choose another name, or sign in with `skein login NAME`",
        _ => "",
    }
}

/// A command's result.
pub type Outcome = Result<(), Failure>;

impl Failure {
    fn code_and_words(self) -> (u8, String) {
        match self {
            Failure::Failed(error) => (1, format!("{error:#}")),
            Failure::Usage(words) => (2, words),
            Failure::Refused(error) => (3, format!("{error:#}")),
            Failure::Unreachable(error) => (4, format!("{error:#}")),
            Failure::Mismatch(what) => (5, what),
            Failure::Interrupted => (130, "interrupted".into()),
        }
    }
}

/// Says in one line what failed, and gives the exit code.
pub fn report(outcome: Outcome) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    let (code, words) = failure.code_and_words();
    eprintln!("skein: {words}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_own_code() {
        let error = || anyhow::anyhow!("x");
        let codes = [
            Failure::Failed(error()),
            Failure::Usage("x".into()),
            Failure::Refused(error()),
            Failure::Unreachable(error()),
            Failure::Mismatch("x".into()),
            Failure::Interrupted,
        ]
        .map(|failure| failure.code_and_words().0);
        assert_eq!(codes, [1, 2, 3, 4, 5, 130]);
    }
}
