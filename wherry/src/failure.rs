//! The end of a failed command: one sentence for a person, and an exit code for a script.

use std::error::Error;
use std::process;

use service::ExitCode;

#[cfg(feature = "service")]
#[path = "failure/service.rs"]
mod service_roles;

#[cfg(feature = "service")]
pub(crate) use service_roles::OperatorError;

/// Prints the error with its causes, and finds its exit code.
pub(crate) fn report(error: &anyhow::Error) -> process::ExitCode {
    crate::output::error(&sentence(error));
    code(error).into()
}

/// The error and its causes. A cause that the sentence before already contains is not repeated. Behind a call that
/// failed come the layers of the HTTP stack; only the innermost layer adds information.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    #[cfg_attr(
        not(feature = "service"),
        expect(unused_mut, reason = "agents make no calls over HTTP")
    )]
    let mut is_inside_call = false;
    for cause in error.chain() {
        let is_layer = is_inside_call && cause.source().is_some();
        #[cfg(feature = "service")]
        {
            is_inside_call |= service_roles::is_call(cause);
        }
        let cause = cause.to_string();
        if !is_layer && !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}

fn code(error: &anyhow::Error) -> ExitCode {
    error
        .chain()
        .map(passed_on)
        .find_map(|cause| {
            #[cfg(feature = "service")]
            if let Some(code) = service_roles::code_of(cause) {
                return Some(code);
            }
            code_of(cause)
        })
        .unwrap_or(ExitCode::Failed)
}

/// Returns the error whose words an agent's error has taken over: `transparent` errors leave it out of the chain.
fn passed_on<'a>(cause: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    match cause.downcast_ref() {
        Some(agent::Error::Bind(error)) => error,
        Some(agent::Error::Task(error)) => error,
        #[cfg(feature = "service")]
        _ => service_roles::passed_on(cause),
        #[cfg(not(feature = "service"))]
        _ => cause,
    }
}

fn code_of(cause: &(dyn Error + 'static)) -> Option<ExitCode> {
    if cause.is::<service::BindError>() {
        return Some(ExitCode::Bind);
    }
    if let Some(service::TaskFailure::Deadline { .. }) = cause.downcast_ref() {
        return Some(ExitCode::DrainTimeout);
    }
    let names_a_disk_twice = matches!(
        cause.downcast_ref(),
        Some(agent::Error::DiskRepeated { .. })
    );
    let is_usage = names_a_disk_twice || cause.is::<UsageError>();
    is_usage.then_some(ExitCode::Usage)
}

/// The command line, a setting or a file of settings is wrong.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for UsageError {}
