//! Compiles `bpf/policy.bpf.c` into `$OUT_DIR/policy.bpf.o`.
//!
//! `CLANG` chooses the compiler. `LATTICE_BPF_OBJECT` names an object that is already compiled, for machines without
//! one.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const SOURCE: &str = "bpf/policy.bpf.c";
const COMPILERS: [&str; 7] =
    ["clang", "clang-14", "clang-15", "clang-16", "clang-17", "clang-18", "clang-19"];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    println!("cargo::rerun-if-env-changed=LATTICE_BPF_OBJECT");
    match object() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn object() -> Result<(), String> {
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: build with cargo")?;
    let out = PathBuf::from(out).join("policy.bpf.o");
    if let Some(prebuilt) = env::var_os("LATTICE_BPF_OBJECT") {
        fs::copy(&prebuilt, &out)
            .map_err(|e| format!("cannot copy LATTICE_BPF_OBJECT={}: {e}", prebuilt.to_string_lossy()))?;
        return Ok(());
    }
    let compilers: Vec<OsString> = match env::var_os("CLANG") {
        Some(clang) => vec![clang],
        None => COMPILERS.map(OsString::from).to_vec(),
    };
    for compiler in &compilers {
        match compile(compiler, &out) {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let diagnostics = String::from_utf8_lossy(&output.stderr).into_owned();
                for line in diagnostics.lines() {
                    println!("cargo::warning={line}");
                }
                return Err(format!(
                    "{} cannot compile {SOURCE}; if a header is missing: \
                     apt-get install --no-install-recommends libbpf-dev",
                    compiler.to_string_lossy()
                ));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(format!("cannot run {}: {e}", compiler.to_string_lossy())),
        }
    }
    Err(format!(
        "no clang found (tried {}) to compile {SOURCE}: apt-get install --no-install-recommends clang-14 libbpf-dev",
        compilers.iter().map(|c| c.to_string_lossy()).collect::<Vec<_>>().join(", ")
    ))
}

fn compile(compiler: &OsString, out: &Path) -> io::Result<std::process::Output> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let endian = env::var("CARGO_CFG_TARGET_ENDIAN").unwrap_or_default();
    let here = env::current_dir()?;
    Command::new(compiler)
        .args(["-target", if endian == "big" { "bpfeb" } else { "bpfel" }, "-mcpu=v3", "-O2", "-g"])
        .args(["-Wall", "-Wextra", "-Werror", "-Wno-sign-compare", "-Wno-unused-parameter"])
        // The object carries source paths for the verifier's log; the builder's directory is nobody's business.
        .arg(format!("-ffile-prefix-map={}=.", here.display()))
        // Debian keeps <asm/types.h> where clang does not look for a BPF target.
        .arg(format!("-I/usr/include/{arch}-linux-gnu"))
        .args(["-c", SOURCE, "-o"])
        .arg(out)
        .output()
}
