//! Rebuilds when a migration is added: the compiler tracks only the files that `sqlx::migrate!` already embeds.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
