//! The README's Python client, run as it stands there against real nodes. It knows an address and
//! certificates; the rest it learns by reflection.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod harness;
#[path = "readme/blocks.rs"]
mod readme;

use std::{
    env, fs,
    io::{self, Write as _},
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Output},
};

use harness::{Network, Program};

/// A client in 30 lines, as the README's heading says.
const LINES_MAX: usize = 30;

#[tokio::test]
async fn the_python_client_of_the_readme_works() {
    let client = only("python");
    assert!(client.lines().count() <= LINES_MAX, "{} lines", client.lines().count());
    let expected = only("text");
    let Some(python) = python() else { return };

    let program = Program::at(env!("CARGO_BIN_EXE_bureau"));
    let mut network = Network::mesh(program, &["FR", "KE"], "IPSG");
    network.start_all(&["FR", "KE"]).await;
    network.desk("FR").linked("KE", true).await;
    let home = network.home("FR");
    let folder = home.parent().unwrap().parent().unwrap();
    symlink(home.parent().unwrap(), folder.join("example")).unwrap();
    let client = client
        .replace("127.0.0.1:7101", &address(&network, "FR"))
        .replace("127.0.0.1:7111", &address(&network, "KE"));
    fs::write(folder.join("client.py"), client).unwrap();

    let mut run = Command::new(python);
    run.arg("client.py").current_dir(folder).env_remove("BUREAU_DESK");
    let Output { status, stdout, stderr } =
        tokio::task::spawn_blocking(move || run.output().unwrap()).await.unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{stdout}\n{stderr}");
    assert_eq!(stdout.trim_end(), expected.trim_end(), "{stderr}");
    assert!(network.desk("KE").inbox().await.is_empty(), "the client acknowledged what it took");
}

/// The one block of a language under the client's heading.
fn only(language: &str) -> String {
    let mut found = readme::blocks()
        .into_iter()
        .filter(|block| block.heading.contains("Python") && block.language == language);
    let block = found.next().unwrap_or_else(|| panic!("the README has no block of {language}"));
    assert!(found.next().is_none(), "the README has two blocks of {language}");
    block.lines.join("\n") + "\n"
}

fn address(network: &Network, bureau: &str) -> String {
    let text = fs::read_to_string(network.home(bureau).join("desk.toml")).unwrap();
    let profile: toml::Table = text.parse().unwrap();
    profile["address"].as_str().unwrap().to_owned()
}

/// A Python that has grpcio and its reflection: `BUREAU_PYTHON`, or else `python3`. Where there is
/// none the test says loudly that it did not run; in CI it fails.
fn python() -> Option<PathBuf> {
    let named = env::var_os("BUREAU_PYTHON").map(PathBuf::from);
    let python = named.clone().unwrap_or_else(|| PathBuf::from("python3"));
    let import = "import grpc, google.protobuf, grpc_reflection.v1alpha";
    let has = Command::new(&python).args(["-c", import]).output();
    if has.as_ref().is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    let why = match has {
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            stderr.lines().last().unwrap_or("it says nothing").to_owned()
        }
        Err(error) => error.to_string(),
    };
    let python = python.display();
    assert!(named.is_none() && env::var_os("CI").is_none(), "{python} has no grpcio: {why}");
    let told = format!(
        "\nNOT RUN: the README's Python client was not tried: {python} has no grpcio ({why}).\n\
         pip install grpcio grpcio-reflection, or set BUREAU_PYTHON to a Python that has it.\n\n"
    );
    // Not by a macro: the test harness keeps those back where a test passes.
    io::stderr().write_all(told.as_bytes()).unwrap();
    None
}
