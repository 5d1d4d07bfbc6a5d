//! What policies say of a call.

use super::condition::Circumstances;
use super::document::{Actions, Effect, Policy, Statement};
use super::wildcard::matches;

/// A call, as far as policies look at it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Such as `smc:DescribeSourceServers`.
    pub action: &'a str,
    /// Such as `acs:smc:local:1234567890123456:sourceServer/*`.
    pub resource: &'a str,
    /// Time, address and the like.
    pub circumstances: &'a Circumstances,
}

/// What policies say of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows it and none denies it.
    Allow,
    /// A statement denies it, whatever others allow.
    ExplicitDeny,
    /// No statement speaks of it.
    ImplicitDeny,
}

/// Decides a call by all policies of one kind together; their order means nothing.
pub fn decide<'p>(
    policies: impl IntoIterator<Item = &'p Policy>,
    request: &Request<'_>,
) -> Decision {
    let mut decision = Decision::ImplicitDeny;
    for statement in policies.into_iter().flat_map(|policy| &policy.statements) {
        if !statement.applies(request) {
            continue;
        }
        match statement.effect {
            Effect::Deny => return Decision::ExplicitDeny,
            Effect::Allow => decision = Decision::Allow,
        }
    }
    decision
}

impl Statement {
    fn applies(&self, request: &Request<'_>) -> bool {
        self.actions.include(request.action)
            && self.is_about(request.resource)
            && self
                .conditions
                .iter()
                .all(|condition| condition.is_met(self.effect, request.circumstances))
    }

    /// The case of what stands before the id, the kind above all, means nothing; that of the id does.
    fn is_about(&self, resource: &str) -> bool {
        let folded = resource.find('/').unwrap_or(resource.len());
        self.resources
            .iter()
            .any(|pattern| matches(pattern, resource, folded))
    }
}

impl Actions {
    /// Actions are the same in whatever case: a Deny must not be missed over a letter.
    fn include(&self, action: &str) -> bool {
        let any = |patterns: &[String]| {
            patterns
                .iter()
                .any(|pattern| matches(pattern, action, action.len()))
        };
        match self {
            Self::Only(patterns) => any(patterns),
            Self::AllBut(patterns) => !any(patterns),
        }
    }
}
