//! Generates the code with protox, a protobuf compiler in Rust: no `protoc` is needed to build Wherry.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["admin", "agent", "receiver", "event"]
        .map(|name| format!("wherry/{name}/v1/{name}.proto"));
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
