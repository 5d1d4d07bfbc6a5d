//! How a failed command ends: one sentence for a person, and an exit code for a script.

use std::error::Error;
use std::process;

use service::ExitCode;

/// Prints the error with its causes, and finds its exit code.
pub(crate) fn report(error: &anyhow::Error) -> process::ExitCode {
    crate::output::error(&sentence(error));
    code(error).into()
}

/// The error and its causes; a cause that the sentence before already contains is not repeated. Behind a call that failed come the layers of
/// the HTTP stack, of which only the innermost says something.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut is_inside_call = false;
    for cause in error.chain() {
        let is_layer = is_inside_call && cause.source().is_some();
        is_inside_call |= cause.is::<smc::CallError>();
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
        .find_map(code_of)
        .unwrap_or(ExitCode::Failed)
}

/// What a role's error passes on as its own words: `transparent` errors leave what they wrap out of the chain.
fn passed_on<'a>(cause: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    use api_gateway::agents;
    if let Some(error) = cause.downcast_ref() {
        return match error {
            api_gateway::Error::Store(error) => error,
            api_gateway::Error::Bind(error)
            | api_gateway::Error::Agents(agents::Error::Bind(error)) => error,
            api_gateway::Error::Tls(error) => error,
            api_gateway::Error::Admin(error) => error,
            api_gateway::Error::Agents(error) => error,
            api_gateway::Error::Tasks(error) => error,
        };
    }
    if let Some(error) = cause.downcast_ref() {
        return match error {
            scheduler::Error::Store(error) => error,
            scheduler::Error::Bus(error) => error,
            scheduler::Error::Bind(error) => error,
            scheduler::Error::Task(error) => error,
        };
    }
    match cause.downcast_ref() {
        Some(worker::Error::Store(error)) => return error,
        Some(worker::Error::Bus(error)) => return error,
        Some(worker::Error::Bind(error)) => return error,
        Some(worker::Error::Task(error)) => return error,
        _ => {}
    }
    match cause.downcast_ref() {
        Some(agent::Error::Bind(error)) => error,
        Some(agent::Error::Task(error)) => error,
        _ => match cause.downcast_ref() {
            Some(receiver::Error::Task(error)) => error,
            _ => cause,
        },
    }
}

fn code_of(cause: &(dyn Error + 'static)) -> Option<ExitCode> {
    if cause.is::<service::BindError>() {
        return Some(ExitCode::Bind);
    }
    if let Some(service::TaskFailure::Deadline { .. }) = cause.downcast_ref() {
        return Some(ExitCode::DrainTimeout);
    }
    let store_is_away = matches!(
        cause.downcast_ref(),
        Some(store::StoreError::Connect { .. })
    );
    let bus_is_away = matches!(cause.downcast_ref(), Some(bus::BusError::Connect { .. }));
    let gateway_is_away = cause
        .downcast_ref::<smc::CallError>()
        .is_some_and(|error| error.refusal().is_none());
    let service_is_away = cause
        .downcast_ref::<OperatorError>()
        .is_some_and(|error| error.is_away);
    if store_is_away || bus_is_away || gateway_is_away || service_is_away {
        return Some(ExitCode::Unavailable);
    }
    let names_a_disk_twice = matches!(
        cause.downcast_ref(),
        Some(agent::Error::DiskRepeated { .. })
    );
    let is_usage =
        names_a_disk_twice || cause.is::<UsageError>() || cause.is::<store::InvalidSealKey>();
    is_usage.then_some(ExitCode::Usage)
}

/// The operators' service refused a call, or could not be reached. It says why in a sentence.
#[derive(Debug)]
pub(crate) struct OperatorError {
    sentence: String,
    is_away: bool,
}

impl OperatorError {
    /// The socket can't be opened.
    pub(crate) fn unreachable(path: &str, error: &std::io::Error) -> Self {
        let sentence = match error.kind() {
            std::io::ErrorKind::PermissionDenied => format!(
                "this account may not open {path}: only the one that the gateway runs as, and root, may"
            ),
            std::io::ErrorKind::NotFound => format!(
                "there is no socket at {path}: does the gateway run, and is it given this path with --admin?"
            ),
            std::io::ErrorKind::ConnectionRefused => {
                format!("nobody answers at {path}: does the gateway run?")
            }
            _ => format!("can't open the socket {path}: {error}"),
        };
        Self {
            sentence,
            is_away: true,
        }
    }

    /// What the service said. `is_away`: it may do better in a moment.
    pub(crate) fn said(sentence: &str, is_away: bool) -> Self {
        Self {
            sentence: sentence.to_owned(),
            is_away,
        }
    }
}

impl std::fmt::Display for OperatorError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl Error for OperatorError {}

/// The command line, a setting or a file of settings is wrong.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for UsageError {}
