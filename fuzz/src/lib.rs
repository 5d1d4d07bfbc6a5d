//! Functions that accept any bytes and must not panic; they report an error that they find by panicking. A test runs
//! each over its corpus and over a bounded number of its mutations, from a seed that a failure prints.

mod data_path;

use domain::policy::{Circumstances, Decision, MAX_POLICY_BYTES, Policy, Request, decide};
use smc::{pairs, v1, v3};

pub use data_path::{control, examples, frame, journal, manifest, payload};

/// A target.
pub type Target = fn(&[u8]);

/// Every target, with the folder of its corpus.
pub const ALL: [(&str, Target); 9] = [
    ("call", call),
    ("request", request),
    ("signature", signature),
    ("policy", policy),
    ("frame", frame),
    ("control", control),
    ("payload", payload),
    ("journal", journal),
    ("manifest", manifest),
];

/// Checks an incoming call, up to the point where its caller would be looked up.
pub fn call(bytes: &[u8]) {
    api_gateway::unverified::read(bytes);
}

/// Checks the text of a query or form: a text that is read and written again reads the same.
pub fn request(bytes: &[u8]) {
    let Ok(read) = pairs::parse(bytes) else {
        return;
    };
    let written = pairs::canonical(&read);
    let mut sorted = read;
    sorted.sort();
    let mut again = pairs::parse(written.as_bytes()).expect("what was written can be read");
    again.sort();
    assert_eq!(again, sorted, "{written}");
}

/// Checks an `Authorization` header in the first line, a query in the second and a body in the rest: a signed request
/// verifies.
pub fn signature(bytes: &[u8]) {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let header = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let query = pairs::parse(lines.next().unwrap_or_default()).unwrap_or_default();
    let body = lines.next().unwrap_or_default();
    let text = v1::string_to_sign("POST", &query);
    assert!(v1::verify("secret", &text, &v1::sign("secret", &text)));
    let _any = v1::verify("secret", &text, &header);
    let Ok(authorization) = v3::Authorization::parse(&header) else {
        return;
    };
    let canonical = v3::canonical_request(&v3::Request {
        method: "POST",
        path: "/",
        query: &query,
        headers: &query,
        signed_headers: &authorization.signed_headers,
        body_sha256: &v3::sha256(body),
    });
    let text = v3::string_to_sign(&canonical);
    assert!(v3::verify("secret", &text, &v3::sign("secret", &text)));
    let _any = v3::verify("secret", &text, &authorization.signature);
}

/// Checks a policy: one that is read and written again reads the same, and decides the same.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(policy) = Policy::parse(text) else {
        return;
    };
    let written = policy.render();
    // When it is written out, a policy close to the limit can exceed it.
    if written.len() <= MAX_POLICY_BYTES {
        assert_eq!(Policy::parse(&written).as_ref(), Ok(&policy), "{text}");
    }
    let known = Circumstances {
        current_time: "2026-11-23T12:00:00Z".parse().ok(),
        is_secure: Some(true),
        source_ip: "203.0.113.7".parse().ok(),
        has_mfa: Some(false),
        source_vpc: Some("10".to_owned()),
    };
    for circumstances in [&known, &Circumstances::default()] {
        let request = Request {
            action: "smc:DeleteSourceServer",
            resource: "acs:smc:local:1234567890123456:sourceServer/s-1",
            circumstances,
        };
        let decision = decide([&policy], &request);
        let nothing_twice = decide([&policy, &policy], &request);
        assert_eq!(decision, nothing_twice, "{text}");
        if !text.contains("Deny") {
            assert_ne!(decision, Decision::ExplicitDeny, "{text}");
        }
    }
}
