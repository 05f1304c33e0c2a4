//! Tells the compiler where the library lies; the kernel says so in its environment.

fn main() {
    let folder = std::env::var("CODELORA_LIBRARY").expect("CODELORA_LIBRARY: run `codelora lab`, which sets it for the kernel");
    println!("cargo::rustc-link-search=all={folder}");
    println!("cargo::rerun-if-env-changed=CODELORA_LIBRARY");
    println!("cargo::rerun-if-changed={folder}");
}
