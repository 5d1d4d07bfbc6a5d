//! How a failed command ends: one sentence for a person, and an exit code for a script.

use std::process;

use service::ExitCode;

/// Prints the error with its causes, and finds its exit code.
pub(crate) fn report(error: &anyhow::Error) -> process::ExitCode {
    eprintln!("error: {}", sentence(error));
    code(error).into()
}

/// The error and its causes; a cause that the sentence before already contains is not repeated.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}

fn code(error: &anyhow::Error) -> ExitCode {
    for cause in error.chain() {
        if cause.is::<service::BindError>() {
            return ExitCode::Bind;
        }
        if let Some(service::TaskFailure::Deadline { .. }) = cause.downcast_ref() {
            return ExitCode::DrainTimeout;
        }
        let store_is_away = matches!(
            cause.downcast_ref(),
            Some(store::StoreError::Connect { .. })
        );
        let bus_is_away = matches!(cause.downcast_ref(), Some(bus::BusError::Connect { .. }));
        let gateway_is_away = cause
            .downcast_ref::<smc::CallError>()
            .is_some_and(|error| error.refusal().is_none());
        if store_is_away || bus_is_away || gateway_is_away {
            return ExitCode::Unavailable;
        }
        if cause.is::<UsageError>() || cause.is::<store::InvalidSealKey>() {
            return ExitCode::Usage;
        }
    }
    ExitCode::Failed
}

/// The command line, a setting or a file of settings is wrong.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}
