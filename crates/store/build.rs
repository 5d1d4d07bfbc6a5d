//! The migrations are compiled in: a changed file must rebuild the crate.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
    // tools/check-sqlx has every query asked anew by naming a new folder.
    println!("cargo::rerun-if-env-changed=SQLX_OFFLINE_DIR");
}
