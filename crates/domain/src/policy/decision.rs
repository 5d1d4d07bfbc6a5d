//! Decisions of policies about a call.

use super::condition::Circumstances;
use super::document::{Actions, Effect, Policy, Statement};
use super::wildcard::matches;

/// A call, as far as policies inspect it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The action, such as `smc:DescribeSourceServers`.
    pub action: &'a str,
    /// The resource, such as `acs:smc:local:1234567890123456:sourceServer/*`.
    pub resource: &'a str,
    /// Time, address and the like.
    pub circumstances: &'a Circumstances,
}

/// A decision of policies about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows the call and none denies it.
    Allow,
    /// A statement denies the call, whatever others allow.
    ExplicitDeny,
    /// No statement applies to the call.
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

    /// Returns true if the statement covers `resource`. Case is ignored before the id, in the kind above all, but not
    /// in the id.
    fn is_about(&self, resource: &str) -> bool {
        let folded = resource.find('/').unwrap_or(resource.len());
        self.resources
            .iter()
            .any(|pattern| matches(pattern, resource, folded))
    }
}

impl Actions {
    /// Returns true if `action` is included. Case is ignored, so that a Deny is never missed over a letter.
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
