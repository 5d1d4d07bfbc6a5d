//! The migrations are compiled in: a changed file must rebuild the crate.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
    // tools/check-sqlx names a new folder to have every query checked again.
    println!("cargo::rerun-if-env-changed=SQLX_OFFLINE_DIR");
}
