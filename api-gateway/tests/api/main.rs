//! Every operation over real HTTP against a real Postgres, by the signed client and by raw requests.

mod access_tokens;
mod audit;
mod authentication;
mod client_tokens;
mod connections;
mod create_job;
mod fixture;
mod images;
mod increments;
mod job_states;
mod jobs;
mod networks;
mod operating;
mod policies;
mod sources;
mod tags;
mod tenancy;
mod throttling;
mod tls;
mod two_gateways;
mod wire;
mod workgroups;
