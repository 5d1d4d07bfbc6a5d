//! Errors of the service's own roles and of the calls to it.

use std::error::Error;

use service::ExitCode;

/// True for a failed call: the errors behind it are layers of the HTTP stack.
pub(super) fn is_call(cause: &(dyn Error + 'static)) -> bool {
    cause.is::<smc::CallError>()
}

/// Returns the error whose words a role's error has taken over: `transparent` errors leave it out of the chain.
pub(super) fn passed_on<'a>(cause: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
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
        Some(receiver::Error::Task(error)) => error,
        _ => cause,
    }
}

/// Returns the exit code for an error of the service, if it is one.
pub(super) fn code_of(cause: &(dyn Error + 'static)) -> Option<ExitCode> {
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
    cause
        .is::<store::InvalidSealKey>()
        .then_some(ExitCode::Usage)
}

/// The operators' service refused a call, or could not be reached. Its sentence gives the reason.
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

    /// The service's own sentence. `is_away`: the service may do better in a moment.
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
