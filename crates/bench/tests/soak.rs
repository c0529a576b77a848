//! Promise 1 at every change, with few cycles; `bureau-bench soak kill --cycles 200` runs it long.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[test]
fn nothing_is_lost_or_twice_when_nodes_are_killed() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_bureau-bench"))
        .args(["-o", "json", "soak", "kill", "--cycles", "4", "--rate", "150"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert!(output.status.success(), "{outcome:#}\n{stderr}");
    assert_eq!((&outcome["lost"], &outcome["duplicated"]), (&0.into(), &0.into()));
    assert!(outcome["accepted"].as_u64().unwrap() > 50, "{outcome:#}");
    assert_eq!(outcome["acknowledged"], outcome["accepted"]);
}
